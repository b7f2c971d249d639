"""The report's tables as CSV (UTF-8, comma, a header row); a field is empty where no figure is defined.

A name that a spreadsheet would take for a formula begins with an apostrophe.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pipelines.evaluation.metrics import ranks
from pipelines.storage.failures import spreadsheet_text

if TYPE_CHECKING:
    from pipelines.analysis.comparison import Comparison
    from pipelines.analysis.published import Published
    from pipelines.evaluation.metrics import StreamMetrics
    from pipelines.reporting.measuring import Material
    from pipelines.reporting.result import Result
    from pipelines.reporting.training_log import Curves

MEASURES = ("top1", "top5", "mean_class_accuracy")


def summary(result: "Result") -> str:
    """A row a split and stream, then, of several splits, the rows of their mean and of all their videos pooled."""
    header = ["split", "run", "stream", "videos"]
    for measure in MEASURES:
        header += [measure, f"{measure}_low", f"{measure}_high"]
    rows = [
        [split.split, split.run, stream, split.videos, *_accuracies(metrics)]
        for split in result.splits
        for stream, metrics in split.streams.items()
    ]
    if len(result.splits) > 1:
        for what, streams in (("mean", result.streams), ("pooled", result.pooled)):
            rows += [[what, result.name, name, result.videos, *_accuracies(one)] for name, one in streams.items()]
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


def mistakes(result: "Result") -> str:
    """A row for each video that the headline stream got wrong, the most confident first."""
    header = ["split", "video", "true", "predicted", "probability", "true_probability"]
    rows = [
        [one.split, one.video, one.true, one.predicted, _fraction(one.probability), _fraction(one.true_probability)]
        for one in result.mistakes
    ]
    return _csv(header, rows)


def motion_effect(result: "Result") -> str:
    """A row a class, the one that motion helps most first."""
    rows = [[e.class_name, e.support, e.helped, e.hurt, _fraction(e.difference)] for e in result.motion_effects]
    return _csv(["class", "support", "helped", "hurt", "difference"], rows)


def fusion_weight(result: "Result") -> str:
    """A row for each pair of streams and each weight of the first."""
    rows = [
        [sweep.first, sweep.second, sweep.space, f"{weight:.2f}", _fraction(top1)]
        for sweep in result.fusion
        for weight, top1 in zip(sweep.weights, sweep.top1, strict=True)
    ]
    return _csv(["first", "second", "space", "weight_of_first", "top1"], rows)


def calibration(result: "Result") -> str:
    """A row for each stream and bin of confidence."""
    rows = [
        [stream, f"{one.low:.4f}", f"{one.high:.4f}", one.count, _fraction(one.confidence), _fraction(one.accuracy)]
        for stream, values in result.calibration.items()
        for one in values.bins
    ]
    return _csv(["stream", "above", "up_to", "videos", "confidence", "accuracy"], rows)


def published(result: "Result", published: "Published") -> str:
    """A row for each published method, then this report's streams."""
    rows = [[published.dataset, method.name, _fraction(method.top1)] for method in published.methods]
    rows += [[published.dataset, f"{result.name}, {name}", _fraction(one.top1)] for name, one in result.streams.items()]
    return _csv(["dataset", "method", "top1"], rows)


def comparison(comparison: "Comparison") -> str:
    """A row for each pair of streams that were compared."""
    header = ["first", "first_stream", "second", "second_stream", "both", "only_first", "only_second", "neither"]
    header += ["difference", "difference_low", "difference_high", "p_value"]
    rows = [
        [
            *(comparison.first, one.first, comparison.second, one.second),
            *(one.both, one.only_first, one.only_second, one.neither),
            *(_fraction(value) for value in (one.difference, *one.difference_interval)),
            f"{one.p_value:.6g}",
        ]
        for one in comparison.streams
    ]
    return _csv(header, rows)


def videos(material: "Material") -> str:
    """A row a test of a video: for each stream its prediction, and the place of the true class, 1 for a hit."""
    streams = list(material.tables[0].streams)
    header = ["split", "video", "true", *(f"{stream}{what}" for stream in streams for what in ("", "_rank"))]
    rows = []
    for evaluation, table in zip(material.evaluations, material.tables, strict=True):
        guesses = {stream: logits.argmax(axis=1) for stream, logits in table.streams.items()}
        places = {stream: ranks(logits, table.labels) + 1 for stream, logits in table.streams.items()}
        for index, video in enumerate(table.videos):
            row: list[object] = [evaluation.split, video, table.classes[table.labels[index]]]
            for stream in streams:
                row += [table.classes[guesses[stream][index]], int(places[stream][index])]
            rows.append(row)
    return _csv(header, rows)


def training(curves: "Sequence[Curves]") -> str:
    """A row for each line that training logged."""
    lines = [(each.run, step, record) for each in curves for step, records in each.steps.items() for record in records]
    names = list(dict.fromkeys(name for _, _, record in lines for name in record))
    rows = [[run, step, *(_logged(record.get(name)) for name in names)] for run, step, record in lines]
    return _csv(["run", "step", *names], rows)


def _accuracies(metrics: "StreamMetrics") -> list[str]:
    values = []
    for measure in MEASURES:
        values += [getattr(metrics, measure), *(getattr(metrics, f"{measure}_interval") or (None, None))]
    return [_fraction(value) for value in values]


def _logged(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _fraction(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([spreadsheet_text(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()
