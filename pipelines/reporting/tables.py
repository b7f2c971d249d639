"""The report's tables as CSV (UTF-8, comma, a header row); a field is empty where no figure is defined."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.evaluation.metrics import StreamMetrics
    from pipelines.reporting.result import Result

MEASURES = ("top1", "top5", "mean_class_accuracy")


def summary(result: "Result") -> str:
    """A row a split and stream, then, of several splits, the rows of their mean."""
    header = ["split", "run", "stream", "videos"]
    for measure in MEASURES:
        header += [measure, f"{measure}_low", f"{measure}_high"]
    rows = [
        [split.split, split.run, stream, split.videos, *_accuracies(metrics)]
        for split in result.splits
        for stream, metrics in split.streams.items()
    ]
    if len(result.splits) > 1:
        for stream, metrics in result.streams.items():
            rows.append(["mean", result.name, stream, result.videos, *_accuracies(metrics)])
    return _csv(header, rows)


def per_class(result: "Result") -> str:
    """A row a class: support; precision, recall and F1 of the headline stream; each stream's accuracy."""
    header = ["class", "support", "precision", "recall", "f1", *result.streams]
    rows = [
        [
            row.class_name,
            row.support,
            *(_fraction(value) for value in (row.precision, row.recall, row.f1)),
            *(_fraction(row.accuracy[stream]) for stream in result.streams),
        ]
        for row in result.per_class
    ]
    return _csv(header, rows)


def confusion_matrix(result: "Result") -> str:
    """Counts; the class names stand in the first row (predicted) and the first column (true)."""
    rows = [[name, *counts] for name, counts in zip(result.classes, result.confusion, strict=True)]
    return _csv(["true \\ predicted", *result.classes], rows)


def confused_pairs(result: "Result") -> str:
    """A row for each pair of classes that was confused, the most confused first."""
    rows = [[pair.true, pair.predicted, pair.count, _fraction(pair.share)] for pair in result.confused]
    return _csv(["true", "predicted", "count", "share"], rows)


def _accuracies(metrics: "StreamMetrics") -> list[str]:
    values = []
    for measure in MEASURES:
        values += [getattr(metrics, measure), *getattr(metrics, f"{measure}_interval")]
    return [_fraction(value) for value in values]


def _fraction(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
