"""The stage `report`: from saved scores to tables, pictures and one HTML page.

Every number is of `scores/<run>/<protocol>/`; training curves and configuration come from `runs/`, the page's
thumbnails from `frames/` and `flow/`, where these are there. Leaves its files in `reports/<run>-<protocol>/`.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipelines import options
from pipelines.errors import UsageError
from pipelines.options import Option
from pipelines.reporting.result import Result
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress, note
from pipelines.storage.atomic import remove_left_over_temporary_files, require_writable
from pipelines.workspace import Workspace, is_plain_name

if TYPE_CHECKING:
    from pipelines.analysis.fusion import Space
    from pipelines.reporting.measuring import Material
    from pipelines.reporting.training_log import Curves

THUMBNAILS = 400  # clips with pictures on the page, unless told otherwise: of UCF101 4.5 kB each, 1.8 MB
OTHERS = "Other runs and programs"


def _numbers(texts: Sequence[str]) -> tuple[int, ...]:
    """`["1,2", "3"]` as numbers. Raises `ValueError`."""
    return tuple(int(part) for text in texts for part in text.replace(",", " ").split())


@dataclass(frozen=True)
class Config:
    """Settings of `report`."""

    workspace: options.WorkspaceFolder
    run: Annotated[
        str | None, Option(metavar="NAME", default="the newest finished, or with --splits those named split{split}")
    ] = None
    """The run, by its name or folder; with --splits a pattern with {split}."""
    protocol: Annotated[str | None, Option(metavar="NAME", default="the paper's of the last step, else the newest")] = (
        None
    )
    """Folder name of the evaluation."""
    splits: Annotated[
        tuple[int, ...],
        Option(
            metavar="N N N",
            repeated=True,
            read=_numbers,
            wanted="whole numbers, such as 1,2,3",
            distinct=True,
            trailing="name a run with --run, splits with --splits 1 2 3",
        ),
    ] = ()
    """Average several splits as the papers do: 1 2 3 or 1,2,3."""
    compare: Annotated[str | None, Option(metavar="RUN[/STEP]", group=OTHERS)] = None
    """Compare with another run, or a step or protocol of one, on the same videos (McNemar's exact test)."""
    with_file: Annotated[Path | None, Option(flag="--with", metavar="FILE", group=OTHERS)] = None
    """Fuse in another program's scores: CSV or npz, a row a video; the name may hold {split}."""
    with_weight: Annotated[float, Option(metavar="SHARE", minimum=0, maximum=1, group=OTHERS)] = 0.5
    """Weight of these scores, 0 to 1."""
    with_space: Annotated[Literal["auto", "logits", "softmax"], Option(group=OTHERS)] = "auto"
    """What is averaged: logits, softmax, or auto: softmax where the file holds probabilities."""
    thumbnails: Annotated[int, Option(metavar="N", minimum=0)] = THUMBNAILS
    """Clips with pictures on the page, at most."""
    output: Annotated[Path | None, Option(metavar="DIR", default="a folder in reports/ of the workspace")] = None
    """Folder for the report."""

    def __post_init__(self) -> None:
        options.check(self)
        is_folder = self.run is not None and (Path(self.run) / "config.json").is_file()
        names = [("--run", None if is_folder else self.run), ("--protocol", self.protocol)]
        names += [("--compare", name) for name in (self.compare or "").split("/", 1) if self.compare is not None]
        for flag, name in names:
            if name is not None and not is_plain_name(name):
                raise UsageError(f"{flag} {name!r} is not a name: give the name of a folder under scores/, not a path")
        for flag, pattern in (("--run", self.run), ("--compare", self.compare)):
            if self.splits and pattern is not None and "{split}" not in pattern:
                raise UsageError(
                    f"{flag} {pattern!r} names one run, but --splits asks for several: put {{split}} in the place of "
                    f"the split's number, as in {flag} my-run-{{split}}"
                )


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Measures the scores and writes the report's files.

    Raises `MissingError` where nothing was evaluated or other scores are missing, `ArtifactError` where scores are
    damaged, `UsageError` where splits cannot be averaged or runs not be compared, `StorageError` where writing fails.
    """
    from pipelines.reporting.files import remove_other_files, writers
    from pipelines.reporting.measuring import measure
    from pipelines.reporting.training_log import read_curves, with_base_runs

    workspace = Workspace(config.workspace)
    material = _gather(workspace, config, lambda text: on_progress(note(text)))
    curves = read_curves(workspace, with_base_runs(workspace, [one.run for one in material.evaluations]))
    result = measure(material, _report_name(material, config), config.output or _folder(workspace, material, config))
    output = Path(result.output)
    require_writable(output)
    if workspace.reports.is_dir():
        remove_left_over_temporary_files(workspace.reports)
    files = writers(result, material, curves, lambda: _page(result, material, curves, config, on_progress))
    for done, (file, write) in enumerate(files.items()):
        on_progress(Progress("report", done, len(files), unit="files", even=False))
        write(output / file)
    remove_other_files(output, files)
    on_progress(Progress("report", len(files), len(files), unit="files", even=False))
    return dataclasses.replace(result, files={file: str(output / file) for file in files})


def _gather(workspace: Workspace, config: Config, tell: "Callable[[str], None]") -> "Material":
    from pipelines.reporting.evaluations import find_compared, find_evaluations, require_current
    from pipelines.reporting.measuring import gather

    evaluations = find_evaluations(workspace, config.run, config.protocol, config.splits, tell)
    compared = find_compared(workspace, config.compare, evaluations) if config.compare else []
    require_current(workspace, [*evaluations, *compared])
    space: Space | None = None if config.with_space == "auto" else config.with_space
    return gather(evaluations, compared, config.with_file, config.with_weight, space)


def _report_name(material: "Material", config: Config) -> str:
    if not config.splits:
        return material.evaluations[0].run
    return (config.run or "split{split}").replace("{split}", "+".join(map(str, config.splits)))


def _folder(workspace: Workspace, material: "Material", config: Config) -> Path:
    """Named after the runs and what was fused in or compared: reports of different content do not overwrite another."""
    name = _report_name(material, config)
    if material.external is not None:
        name += f"+{_plain(material.external.name)}"
    if config.compare:
        name += f"-vs-{_plain(config.compare)}"
    return workspace.reports / f"{name}-{material.evaluations[0].protocol_name}"


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text.replace("{split}", "N")).strip("-")


def _sources(material: "Material") -> dict[str, str]:
    scores = [one.scores for one in material.evaluations]
    return {video: source for one in scores for video, source in zip(one.videos, one.sources or [], strict=False)}


def _page(
    result: Result, material: "Material", curves: "Sequence[Curves]", config: Config, on_progress: OnProgress
) -> str:
    from pipelines.reporting.html import PageNotes, page
    from pipelines.reporting.page_data import page_data
    from pipelines.reporting.thumbnails import thumbnails
    from pipelines.reporting.training_log import read_configurations, with_base_runs

    def on_clip(done: int, total: int) -> None:
        on_progress(Progress("thumbnails", done, total))

    workspace = Workspace(config.workspace)
    pictures = thumbnails(workspace, material.tables, config.thumbnails, on_clip, _sources(material))
    runs = with_base_runs(workspace, [one.run for one in (*material.evaluations, *material.compared)])
    notes = PageNotes(len(pictures), result.videos, read_configurations(workspace, runs))
    return page(result, page_data(result, material, pictures, curves), notes)
