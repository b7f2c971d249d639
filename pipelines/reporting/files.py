"""Which files a report has, and how they are written."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from pipelines.drawing.figures import for_print, png
from pipelines.reporting import plots
from pipelines.reporting.compute import ReportInputs
from pipelines.reporting.latex import PRINTED, latex_table
from pipelines.reporting.result import Result
from pipelines.reporting.tables import tables
from pipelines.reporting.training_log import Curves
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.storage.atomic import storage_errors, write_bytes, write_text

FigureKind = Literal["png", "svg", "pdf"]
_KINDS: tuple[FigureKind, ...] = ("png", "svg", "pdf")
_OPTIONAL_TABLES = (
    "motion_effect", "fusion_weight", "published", "comparison", "comparison_videos", "near_duplicates",
    "near_duplicate_groups", "training",
)  # fmt: skip
_FIGURES = ("confusion_matrix", "per_class", "calibration", "motion_effect", "fusion_weight", "training")
_OPTIONAL = [
    *(f"{name}.csv" for name in _OPTIONAL_TABLES),
    *(f"{name}.{kind}" for name in _FIGURES for kind in _KINDS),
    *(f"{name}.tex" for name in PRINTED),
]
"""What some reports have and others not."""
Make = Callable[[], str | bytes]


def contents(
    result: Result,
    inputs: ReportInputs,
    curves: Sequence[Curves],
    make_page: Callable[[Collection[str]], str],
    publication: bool,
) -> dict[str, Make]:
    """What makes the content of each file, in the order of writing: tables, figures, the page, which is given the names
    of the others. For a `publication` each figure is there as SVG and PDF, too."""
    texts = tables(result, inputs, curves)
    made: dict[str, Make] = {name: partial(str, text) for name, text in texts.items()}
    figures: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: plots.confusion_matrix(result),
        "per_class": lambda: plots.per_class(result),
        "calibration": lambda: plots.calibration(result).figure(),
    }
    if result.motion_effects:
        figures["motion_effect"] = lambda: plots.motion_effect(result)
    if result.fusion:
        figures["fusion_weight"] = lambda: plots.fusion_weight(result).figure()
    if curves:
        figures["training"] = lambda: plots.training(result, curves).figure()
    for kind in _KINDS if publication else _KINDS[:1]:
        made |= {f"{name}.{kind}": partial(_drawn, draw, kind, result.citation) for name, draw in figures.items()}
    for name in PRINTED:
        if f"{name}.csv" in texts:
            made[f"{name}.tex"] = partial(
                latex_table, texts[f"{name}.csv"], result.citation, intervals=name != "confusion_matrix"
            )
    return made | {"report.html": partial(make_page, list(made))}


def _drawn(draw: Callable[[], Figure], kind: FigureKind, about: str) -> bytes:
    return png(draw(), about=about) if kind == "png" else for_print(draw(), kind, about)


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
