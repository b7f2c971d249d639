"""Which files a report has, and what writes each."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from pipelines.reporting import plots, tables
from pipelines.reporting.measuring import Material
from pipelines.reporting.result import Result
from pipelines.reporting.training_log import Curves
from pipelines.storage.atomic import storage_errors, write_bytes, write_text

PAGE = "report.html"
SOMETIMES = (
    "motion_effect.csv", "fusion_weight.csv", "published.csv", "comparison.csv", "training.csv",
    "motion_effect.png", "fusion_weight.png", "training.png",
)  # fmt: skip

Writer = Callable[[Path], None]


def writers(
    result: Result, material: Material, curves: Sequence[Curves], make_page: Callable[[], str]
) -> dict[str, Writer]:
    """For each file the function that writes it, whole, under the path it is given; in the order of writing."""
    texts = _texts(result, material, curves)
    pictures = _pictures(result, curves)
    return (
        {name: _text_writer(make) for name, make in texts.items()}
        | {name: _bytes_writer(make) for name, make in pictures.items()}
        | {PAGE: _text_writer(make_page)}
    )


def _texts(result: Result, material: Material, curves: Sequence[Curves]) -> dict[str, Callable[[], str]]:
    texts: dict[str, Callable[[], str]] = {
        "summary.csv": lambda: tables.summary(result),
        "per_class.csv": lambda: tables.per_class(result),
        "confusion_matrix.csv": lambda: tables.confusion_matrix(result),
        "confused_pairs.csv": lambda: tables.confused_pairs(result),
        "mistakes.csv": lambda: tables.mistakes(result),
        "videos.csv": lambda: tables.videos(material),
        "calibration.csv": lambda: tables.calibration(result),
    }
    if result.fusion:
        texts["motion_effect.csv"] = lambda: tables.motion_effect(result)
        texts["fusion_weight.csv"] = lambda: tables.fusion_weight(result)
    if (published := result.published) is not None:
        texts["published.csv"] = lambda: tables.published(result, published)
    if (comparison := result.comparison) is not None:
        texts["comparison.csv"] = lambda: tables.comparison(comparison)
    if curves:
        texts["training.csv"] = lambda: tables.training(curves)
    return texts


def _pictures(result: Result, curves: Sequence[Curves]) -> dict[str, Callable[[], bytes]]:
    pictures: dict[str, Callable[[], bytes]] = {
        "confusion_matrix.png": lambda: plots.confusion_matrix(result),
        "per_class.png": lambda: plots.per_class(result),
        "calibration.png": lambda: plots.calibration(result),
    }
    if result.fusion:
        pictures["motion_effect.png"] = lambda: plots.motion_effect(result)
        pictures["fusion_weight.png"] = lambda: plots.fusion_weight(result)
    if curves:
        pictures["training.png"] = lambda: plots.training(result, curves)
    return pictures


def _text_writer(make: Callable[[], str]) -> Writer:
    return lambda path: write_text(path, make())


def _bytes_writer(make: Callable[[], bytes]) -> Writer:
    return lambda path: write_bytes(path, make())


def remove_other_files(output: Path, written: Collection[str]) -> None:
    """Removes files that an earlier report left and this one does not have, such as curves of a run that is gone."""
    for name in SOMETIMES:
        if name not in written:
            with storage_errors(output / name):
                (output / name).unlink(missing_ok=True)
