"""Which files a report has, and how they are written."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pipelines.reporting import plots
from pipelines.reporting.compute import ReportInputs
from pipelines.reporting.result import Result
from pipelines.reporting.tables import tables
from pipelines.reporting.training_log import Curves
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.storage.atomic import storage_errors, write_bytes, write_text

_OPTIONAL = (
    "motion_effect.csv", "fusion_weight.csv", "published.csv", "comparison.csv", "training.csv",
    "motion_effect.png", "fusion_weight.png", "training.png",
)  # fmt: skip

Make = Callable[[], str | bytes]


def contents(
    result: Result, inputs: ReportInputs, curves: Sequence[Curves], make_page: Callable[[], str]
) -> dict[str, Make]:
    """What makes the content of each file, in the order of writing: tables, figures, the page."""
    made: dict[str, Make] = {name: partial(str, text) for name, text in tables(result, inputs, curves).items()}
    made["confusion_matrix.png"] = lambda: plots.confusion_matrix(result)
    made["per_class.png"] = lambda: plots.per_class(result)
    made["calibration.png"] = lambda: plots.calibration(result).png()
    if result.fusion:
        made["motion_effect.png"] = lambda: plots.motion_effect(result)
        made["fusion_weight.png"] = lambda: plots.fusion_weight(result).png()
    if curves:
        made["training.png"] = lambda: plots.training(result, curves).png()
    return made | {"report.html": make_page}


def write(output: Path, files: Mapping[str, Make], on_progress: OnProgress) -> dict[str, str]:
    """Writes the files into the folder, and removes what an earlier report left there and this one does not have.

    Returns:
        The path of each file, by its name.
    """
    for done, (name, make) in enumerate(files.items()):
        on_progress(Progress("report", done, len(files), unit="files", even=False))
        content = make()
        if isinstance(content, str):
            write_text(output / name, content)
        else:
            write_bytes(output / name, content)
    for name in _OPTIONAL:
        if name not in files:  # such as the curves of a run that is gone
            with storage_errors(output / name):
                (output / name).unlink(missing_ok=True)
    on_progress(Progress("report", len(files), len(files), unit="files", even=False))
    return {name: str(output / name) for name in files}
