"""Stage `export-flow`: the stored flow as grey pictures in folders, as other tools want it."""

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipelines.datasets.catalogue import Catalogue, flow_provenance, load_catalogue
from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.jobs.attributes import options_difference
from pipelines.jobs.resume import Division
from pipelines.jobs.run import run_job
from pipelines.jobs.task import ExtractResult, Job
from pipelines.layouts.names import FLOW_LAYOUTS, LayoutName
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.sources.videos import VideoSource
from pipelines.storage.atomic import read_json, require_writable, write_json
from pipelines.storage.flow_settings import SHARED_SETTINGS
from pipelines.storage.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.layouts.writing import ExportTask

STAGE = "export-flow"
SCHEMA = "stres/flow-pictures/1"


@dataclass(frozen=True)
class Config:
    """Settings of `export-flow`."""

    workspace: options.WorkspaceFolder
    output: Annotated[Path, Option(argument=True, metavar="OUT")]
    """Folder to write to."""
    layout: LayoutName = "authors"
    """File names: u/VIDEO/frame000001 (authors), CLASS/VIDEO/flow_x_00000 (denseflow) or CLASS/VIDEO/x_00001
    (mmaction2)."""
    format: options.PictureFormat = "jpg"
    """jpg (quality 95) or png (lossless)."""
    workers: options.Workers = 0
    overwrite: options.Overwrite = False
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)


@dataclass(frozen=True, kw_only=True)
class Result(ExtractResult):
    """What was exported."""

    usage: list[str]
    """Lines of Python that show a picture's values in pixels; none where nothing is written."""


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Writes the pictures of all videos that have none yet, and `flow.json`, which says what they are.

    Damaged artifacts, and two of one name where the layout has no folders for classes, are rows of `failures.csv`.

    Raises:
        MissingError: There is no flow.
        UsageError: The folder holds pictures of another kind.
        StorageError: Writing fails.
    """
    from pipelines.layouts.writing import partial_folder, probe, write_pictures

    workspace = Workspace(config.workspace)
    division = ranks().broadcast_from_rank0(lambda: _prepare(config, workspace))
    partial = partial_folder(config.output.absolute())
    job = Job(
        STAGE,
        unit="pairs",
        workspace=workspace,
        folder=partial,
        store=write_pictures,
        probe=probe,
        workers=config.workers or available_cores(),
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    result = run_job(job, division)
    if not config.dry_run:
        with contextlib.suppress(OSError):  # there is none, another rank was first, or another command is at work
            partial.rmdir()
    return Result(**vars(result), usage=[] if config.dry_run else _usage(config))


def _usage(config: Config) -> list[str]:
    from pipelines.storage.quantise import step_size

    picture = next(config.output.rglob(f"[!.]*.{config.format}"), None)
    if picture is None:
        return []
    bound = read_json(config.output / "flow.json")["bound"]
    return ["import cv2", f"print(cv2.imread({options.python_literal(picture)}, 0) * {step_size(bound):g} - {bound:g})"]


def _prepare(config: Config, workspace: Workspace) -> "Division[ExportTask]":
    """Finds what is to do, and writes `flow.json`."""
    from pipelines.layouts.writing import ExportTask, is_done

    catalogue = load_catalogue(workspace)
    layout = FLOW_LAYOUTS[config.layout]
    problems = [
        VideoSource(row.class_name, row.video, Path(row.path), problem=row.reason)
        for row in catalogue.problems
        if Path(row.path).is_relative_to(workspace.flow)
    ]
    tasks, by_name = [], dict[str, VideoSource]()
    for video in catalogue.videos:
        if video.flow_file is None:
            continue
        source = VideoSource(video.class_name, video.video, video.flow_file)
        first = by_name.setdefault(source.video, source)
        if layout.trees is not None and first is not source:
            reason = f"{first.id} has the same name, and --layout authors has no folders for classes: use another"
            problems.append(replace(source, problem=reason))
            continue
        target = config.output.absolute()
        tasks.append(ExportTask(source, target, video.flow_fields, video.flow_step, config.layout, config.format))
    if not tasks and not problems:
        raise MissingError(f"no flow in {workspace.flow}: run `stres extract-flow` first")
    if not config.dry_run:
        require_writable(*(folder.parent for task in tasks for folder in task.folders()))
    _settle(config, catalogue, workspace)
    finished = [not config.overwrite and is_done(task) for task in tasks]
    return Division(
        to_do=[task for task, is_finished in zip(tasks, finished, strict=True) if not is_finished],
        done=[task for task, is_finished in zip(tasks, finished, strict=True) if is_finished],
        problems=problems,
    )


def _settle(config: Config, catalogue: Catalogue, workspace: Workspace) -> None:
    """Writes `flow.json`. Raises `UsageError` where there is one that says otherwise."""
    made = flow_provenance(catalogue)
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "layout": config.layout,
        "format": config.format,
        "first": FLOW_LAYOUTS[config.layout].first,
        "flow_folder": os.path.realpath(workspace.flow),
    }
    for name in SHARED_SETTINGS:
        about[name] = made and made.to_json()[name]  # null where no flow is sound
    path = config.output / "flow.json"
    if path.exists() and not config.overwrite:
        document = read_json(path)
        before = document if isinstance(document, dict) else {}
        before.setdefault("flow_folder", about["flow_folder"])  # stres 0.1 did not record whose flow it was
        difference = options_difference(before, about)
        if difference:
            raise UsageError(
                f"{config.output} holds flow of another kind ({difference}): give another folder, or --overwrite"
            )
    if not config.dry_run:
        write_json(path, about)
