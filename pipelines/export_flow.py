"""Stage `export-flow`: the stored flow as grey pictures in folders, as other tools want it."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipelines import options
from pipelines.datasets.catalogue import Catalogue, flow_provenance, load_catalogue
from pipelines.errors import MissingError, UsageError
from pipelines.jobs.attributes import options_difference
from pipelines.jobs.dry_run import estimate
from pipelines.jobs.resume import Division
from pipelines.jobs.run import dry_run_result, extract
from pipelines.jobs.task import ExtractResult
from pipelines.layouts.names import FLOW_LAYOUTS, LayoutName
from pipelines.options import Option
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.sources.videos import VideoList, VideoProblem, VideoSource
from pipelines.storage.atomic import read_json, write_json
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.layouts.writing import ExportTask

STAGE = "export-flow"
SCHEMA = "stres/flow-pictures/1"

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `export-flow`."""

    workspace: options.WorkspaceFolder
    output: Annotated[Path, Option(argument=True, metavar="OUT")]
    """The folder to write."""
    layout: LayoutName = "authors"
    """Names of the pictures: u/VIDEO/frame000001 (authors), CLASS/VIDEO/flow_x_00000 (denseflow) or CLASS/VIDEO/x_00001
    (mmaction2)."""
    format: Literal["jpg", "png"] = "jpg"
    """jpg (quality 95), or png, which loses nothing."""
    workers: options.Workers = 0
    overwrite: options.Overwrite = False
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Writes the pictures of all videos that have none yet, and `flow.json`, which says what they are.

    Damaged artifacts, and two of one name where the layout has no folders for classes, are rows of `failures.csv`.
    Raises `MissingError` where there is no flow, `UsageError` where the folder holds pictures of another kind,
    `StorageError` where writing fails.
    """
    from pipelines.layouts.writing import is_done, partial_folder, probe, write_pictures

    workspace = Workspace(config.workspace)
    tasks, problems, about = ranks().broadcast_from_rank0(lambda: _find(config, workspace))
    ranks().broadcast_from_rank0(lambda: _settle(config, about))
    finished = ranks().broadcast_from_rank0(lambda: [not config.overwrite and is_done(task) for task in tasks])
    to_do = [task for task, is_finished in zip(tasks, finished, strict=True) if not is_finished]
    done = [task for task, is_finished in zip(tasks, finished, strict=True) if is_finished]
    workers = config.workers or available_cores()
    if config.dry_run:
        cost = estimate(probe, to_do, workers=workers, stage=STAGE, on_progress=on_progress)
        return dry_run_result(STAGE, "pairs", Division(to_do, done, problems), ignored=0, estimate=cost)
    partial = partial_folder(config.output.absolute())
    result = extract(
        STAGE,
        write_pictures,
        Division(to_do, done, problems),
        workspace=workspace,
        folder=partial,
        workers=workers,
        unit="pairs",
        ignored=0,
        on_progress=on_progress,
    )
    with contextlib.suppress(OSError):  # there is none, another rank was first, or another command is at work
        partial.rmdir()
    return result


def _find(config: Config, workspace: Workspace) -> "tuple[list[ExportTask], list[VideoProblem], dict[str, Any]]":
    """The videos to write, those that cannot be, and what is the same for all."""
    from pipelines.layouts.writing import ExportTask

    catalogue = load_catalogue(workspace)
    found = _videos(catalogue, workspace, one_name=FLOW_LAYOUTS[config.layout].trees is not None)
    if not found.videos and not found.problems:
        raise MissingError(f"no flow in {workspace.flow}: run `stres extract-flow` first")
    made = flow_provenance(catalogue)
    videos = {(video.class_name, video.video): video for video in catalogue.videos}
    tasks = [
        ExportTask(
            source=source,
            target=config.output.absolute(),
            fields=videos[source.class_name, source.video].flow_fields,
            step=videos[source.class_name, source.video].flow_step,
            layout=config.layout,
            format=config.format,
        )
        for source in found.videos
    ]
    kept: dict[str, Any] = dict.fromkeys(("method", "method_parameters", "bound", "step"))  # null where none is sound
    if made is not None:
        kept = {name: made.to_json()[name] for name in kept}
    first = FLOW_LAYOUTS[config.layout].first
    return (
        tasks,
        found.problems,
        {
            "schema": SCHEMA,
            "layout": config.layout,
            "format": config.format,
            "first": first,
            "flow_folder": os.path.realpath(workspace.flow),
            **kept,
        },
    )


def _videos(catalogue: Catalogue, workspace: Workspace, *, one_name: bool) -> VideoList:
    """`one_name`: videos of several classes must not have the same name."""
    videos, by_name = [], dict[str, VideoSource]()
    problems = [
        VideoProblem(row.class_name, row.video, Path(row.path), row.reason)
        for row in catalogue.problems
        if Path(row.path).is_relative_to(workspace.flow)
    ]
    for video in catalogue.videos:
        if video.flow_file is None:
            continue
        source = VideoSource(video.class_name, video.video, video.flow_file)
        first = by_name.setdefault(source.video, source)
        if one_name and first is not source:
            reason = f"{first.id} has the same name, and --layout authors has no folders for classes: use another"
            problems.append(VideoProblem(source.class_name, source.video, source.path, reason))
        else:
            videos.append(source)
    return VideoList(videos, problems=problems)


def _settle(config: Config, about: dict[str, Any]) -> None:
    """Writes `flow.json`. Raises `UsageError` where there is one that says otherwise."""
    path = config.output / "flow.json"
    if path.exists() and not config.overwrite:
        document = read_json(path)
        before = document if isinstance(document, dict) else {}
        before.setdefault("flow_folder", about["flow_folder"])  # stres 0.1 did not tell whose flow it was
        difference = options_difference(before, about)
        if difference:
            raise UsageError(
                f"{config.output} holds flow of another kind ({difference}): give another folder, or --overwrite"
            )
    if not config.dry_run:
        write_json(path, about)
