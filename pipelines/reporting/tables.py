"""The report's tables as CSV (UTF-8, comma, a header row); a field is empty where no figure is defined.

A name that a spreadsheet would take for a formula begins with an apostrophe.
"""

from collections.abc import Sequence

from pipelines.evaluation.metrics import true_class_ranks
from pipelines.interface.wording import fraction
from pipelines.reporting.compute import ReportInputs
from pipelines.reporting.result import ACCURACIES, Result
from pipelines.reporting.training_log import Curves
from pipelines.storage.failures import csv_text


def tables(result: Result, inputs: ReportInputs, curves: Sequence[Curves]) -> dict[str, str]:
    """Every table that the report has, by the name of its file.

    Args:
        inputs: The scores, for the table of single videos.
        curves: What training logged.
    """
    classes = [
        [
            *(row.class_name, row.support),
            *(figure.in_csv(value) for figure, value in row.figures),
            *map(fraction, row.accuracy.values()),
        ]
        for row in result.per_class
    ]
    mistakes = [
        [one.split, one.video, one.true, one.predicted, *map(fraction, (one.probability, one.true_probability))]
        for one in result.mistakes
    ]
    bins = [
        [stream, f"{one.low:.4f}", f"{one.high:.4f}", one.count, *map(fraction, (one.confidence, one.accuracy))]
        for stream, values in result.calibration.items()
        for one in values.bins
    ]
    made = {
        "summary.csv": _summary(result),
        "per_class.csv": csv_text(["class", "support", *result.class_figures, *result.streams], classes),
        "confusion_matrix.csv": csv_text(  # class names in the first row (predicted) and the first column (true)
            ["true \\ predicted", *result.classes],
            ([name, *counts] for name, counts in zip(result.classes, result.confusion, strict=True)),
        ),
        "confused_pairs.csv": csv_text(
            ["true", "predicted", "count", "share"],
            ([pair.true, pair.predicted, pair.count, fraction(pair.share)] for pair in result.confused),
        ),
        "mistakes.csv": csv_text(["split", "video", "true", "predicted", "probability", "true_probability"], mistakes),
        "videos.csv": _videos(inputs),
        "calibration.csv": csv_text(["stream", "above", "up_to", "videos", "confidence", "accuracy"], bins),
    }
    made["label_issues.csv"] = csv_text(
        ["video", "label", "likely", "label_probability", "likely_probability"],
        (
            [one.video, one.label, one.likely, *map(fraction, (one.label_probability, one.likely_probability))]
            for one in result.label_issues
        ),
    )
    if result.near_duplicates is not None:
        made["near_duplicates.csv"] = csv_text(
            ["leaks_in_splits", "video", "near_duplicate", "same_class", "gray_levels"],
            (
                [" ".join(map(str, one.leaks)), one.first, one.second, str(one.same_class).lower(), one.difference]
                for one in result.near_duplicates
            ),
        )
    if result.near_duplicate_groups:
        made["near_duplicate_groups.csv"] = csv_text(["video", "group"], result.near_duplicate_groups.items())
    if result.motion_effects:
        made["motion_effect.csv"] = csv_text(
            ["class", "support", "helped", "hurt", "difference"],
            ([e.class_name, e.support, e.helped, e.hurt, fraction(e.difference)] for e in result.motion_effects),
        )
    if result.fusion:
        made["fusion_weight.csv"] = csv_text(
            ["first", "second", "space", "weight_of_first", "top1"],
            (
                [sweep.first, sweep.second, sweep.space, f"{weight:.2f}", fraction(top1)]
                for sweep in result.fusion
                for weight, top1 in zip(sweep.weights, sweep.top1, strict=True)
            ),
        )
    if (published := result.published) is not None:
        methods = [(method.name, method.top1) for method in published.methods]
        methods += [(f"{result.name}, {stream}", metrics.top1) for stream, metrics in result.streams.items()]
        made["published.csv"] = csv_text(
            ["dataset", "method", "top1"], ([published.dataset, name, fraction(top1)] for name, top1 in methods)
        )
    if result.comparison is not None:
        made["comparison.csv"] = _comparison(result)
        splits = [one.split for one in result.splits for _ in range(one.videos)]
        made["comparison_videos.csv"] = csv_text(
            ["split", "video", "true", "this", "other", "right"],
            (
                [splits[one.clip], one.video, one.true, one.first, one.second, "this" if one.won else "other"]
                for one in result.comparison.changed
            ),
        )
    if curves:
        logged = [
            (one.run, step, record) for one in curves for step, records in one.steps.items() for record in records
        ]
        names = list(dict.fromkeys(name for _, _, record in logged for name in record))
        lines = [
            [run, step, *(f"{record[name]:g}" if name in record else "" for name in names)]
            for run, step, record in logged
        ]
        made["training.csv"] = csv_text(["run", "step", *names], lines)
    return made


def _summary(result: Result) -> str:
    """A row for each of `Result.accuracy_rows`, each accuracy with both ends of its interval."""
    header = ["split", "run", "stream", "videos"]
    header += [f"{name}{end}" for name in ACCURACIES for end in ("", "_low", "_high")]
    rows = []
    for row in result.accuracy_rows:
        values: list[float | None] = []
        for name in ACCURACIES:
            values += [getattr(row.metrics, name), *(getattr(row.metrics, f"{name}_interval") or (None, None))]
        rows.append([row.split, row.run, row.stream, row.videos, *map(fraction, values)])
    return csv_text(header, rows)


def _videos(inputs: ReportInputs) -> str:
    """A row for each test of a video: each stream's prediction, and the rank of the true class, 1 for a hit."""
    header = ["split", "video", "true"]
    header += [f"{stream}{what}" for stream in inputs.tables[0].streams for what in ("", "_rank")]
    rows = []
    for evaluation, table in zip(inputs.evaluations, inputs.tables, strict=True):
        columns: list[list[object]] = []
        for logits in table.streams.values():
            columns.append([table.classes[guess] for guess in logits.argmax(axis=1)])
            columns.append(true_class_ranks(logits, table.labels).tolist())
        for video, label, *others in zip(table.videos, table.labels, *columns, strict=True):
            rows.append([evaluation.split, video, table.classes[label], *others])
    return csv_text(header, rows)


def _comparison(result: Result) -> str:
    """A row for each pair of streams that were compared."""
    comparison = result.comparison
    assert comparison is not None
    header = ["first", "first_stream", "second", "second_stream", "both", "only_first", "only_second", "neither"]
    rows = [
        [comparison.first, one.first, comparison.second, one.second]
        + [one.both, one.only_first, one.only_second, one.neither]
        + [fraction(value) for value in (one.difference, *one.difference_interval)]
        + [f"{one.p_value:.6g}"]
        for one in comparison.streams
    ]
    return csv_text([*header, "difference", "difference_low", "difference_high", "p_value"], rows)
