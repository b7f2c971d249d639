"""The stage `report`: from saved scores to tables, pictures and one HTML page.

Reads only `scores/<run>/<protocol>/`; leaves its files in `reports/<run>-<protocol>/`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError
from pipelines.progress import OnProgress, Progress, ignore_progress
from pipelines.reporting.result import Result, SplitNumbers
from pipelines.workspace import Workspace, remove_left_over_temporary_files, write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipelines.reporting.evaluations import Evaluation


@dataclass(frozen=True)
class Config:
    """What to report.

    workspace: the folder with the scores.
    run: name of the run; None: the newest evaluated. With `splits` a pattern holding `{split}`; None: `split{split}`.
    protocol: folder name of the evaluation's protocol; None: the newest.
    splits: the splits whose numbers are averaged; empty: the one run, alone.
    output: folder for the files; None: `reports/<run>-<protocol>` in the workspace.
    """

    workspace: Path
    run: str | None = None
    protocol: str | None = None
    splits: tuple[int, ...] = ()
    output: Path | None = None

    def __post_init__(self) -> None:
        for flag, name in (("--run", self.run), ("--protocol", self.protocol)):
            if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
                raise UsageError(f"{flag} {name!r} is not a name: give the name of a folder under scores/, not a path")
        if len(set(self.splits)) != len(self.splits):
            raise UsageError(f"--splits {','.join(map(str, self.splits))} names a split twice: give each once")
        if self.splits and self.run is not None and "{split}" not in self.run:
            raise UsageError(
                f"--run {self.run!r} names one run, but --splits asks for several: put {{split}} in the place of the "
                "split's number, as in --run my-run-{split}"
            )


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Measures the scores and writes the report's files.

    Raises `MissingError` where nothing was evaluated, `ArtifactError` where scores are damaged, `UsageError` where
    splits cannot be averaged, `StorageError` where writing fails.
    """
    from pipelines.reporting.evaluations import find_evaluations

    workspace = Workspace(config.workspace)
    evaluations = find_evaluations(workspace, config.run, config.protocol, config.splits)
    result = _measure(evaluations, config)
    if workspace.reports.is_dir():
        remove_left_over_temporary_files(workspace.reports)
    writers = _writers(result)
    for done, (name, write) in enumerate(writers.items()):
        on_progress(Progress("report", done, len(writers), unit="files"))
        write(Path(result.files[name]))
    on_progress(Progress("report", len(writers), len(writers), unit="files"))
    return result


def _measure(evaluations: "Sequence[Evaluation]", config: Config) -> Result:
    from pipelines.evaluation.metrics import class_metrics, confused_pairs, confusion_matrix, stream_metrics

    first = evaluations[0]
    scores = [evaluation.scores for evaluation in evaluations]
    headline = first.scores.headline
    matrix = confusion_matrix(scores, headline)
    name = _report_name(evaluations, config)
    output = config.output or Workspace(config.workspace).reports / f"{name}-{first.protocol_name}"
    return Result(
        name=name,
        protocol_name=first.protocol_name,
        protocol=first.protocol,
        videos=sum(len(one.videos) for one in scores),
        unscored=sum(len(evaluation.unscored) for evaluation in evaluations),
        classes=tuple(first.scores.classes),
        headline=headline,
        streams={stream: stream_metrics(scores, stream) for stream in first.scores.streams},
        splits=tuple(_split_numbers(evaluation) for evaluation in evaluations),
        per_class=class_metrics(scores, headline),
        confused=confused_pairs(matrix, first.scores.classes),
        confusion=tuple(tuple(int(count) for count in row) for row in matrix),
        provenance={str(e.folder / "scores.h5"): _without_classes(e.attributes) for e in evaluations},
        output=str(output),
        files={file: str(output / file) for file in FILES},
    )


def _report_name(evaluations: "Sequence[Evaluation]", config: Config) -> str:
    if not config.splits:
        return evaluations[0].run
    return (config.run or "split{split}").replace("{split}", "+".join(map(str, config.splits)))


def _split_numbers(evaluation: "Evaluation") -> SplitNumbers:
    from pipelines.evaluation.metrics import stream_metrics

    streams = {stream: stream_metrics([evaluation.scores], stream) for stream in evaluation.scores.streams}
    return SplitNumbers(evaluation.split, evaluation.run, len(evaluation.scores.videos), streams)


def _without_classes(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != "classes"}


# ------------------------------------------------------------------ files

FILES = (
    "summary.csv",
    "per_class.csv",
    "confusion_matrix.csv",
    "confused_pairs.csv",
    "confusion_matrix.png",
    "per_class.png",
    "report.html",
)


def _writers(result: Result) -> "dict[str, Callable[[Path], None]]":
    """For each file the function that writes it, whole, under the path it is given; in the order of writing."""
    from pipelines.reporting import html, plots, tables

    pictures: dict[str, bytes] = {}

    def write_picture(path: Path, draw: "Callable[[Result], bytes]") -> None:
        pictures[path.name] = draw(result)
        write_bytes(path, pictures[path.name])

    return {
        "summary.csv": lambda path: write_text(path, tables.summary(result)),
        "per_class.csv": lambda path: write_text(path, tables.per_class(result)),
        "confusion_matrix.csv": lambda path: write_text(path, tables.confusion_matrix(result)),
        "confused_pairs.csv": lambda path: write_text(path, tables.confused_pairs(result)),
        "confusion_matrix.png": lambda path: write_picture(path, plots.confusion_matrix),
        "per_class.png": lambda path: write_picture(path, plots.per_class),
        "report.html": lambda path: write_text(
            path, html.page(result, pictures["confusion_matrix.png"], pictures["per_class.png"])
        ),
    }
