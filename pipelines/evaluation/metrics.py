"""The numbers made of a run's scores: accuracies with intervals, per class figures, the confusion matrix.

Letters: V videos, C classes, R resamples of the bootstrap. All accuracies are fractions, 0..1. Where several splits are
given, a number is the mean of the splits' numbers, as the papers report it; counts are summed.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.evaluation.scores import Scores
from pipelines.provenance import made_by

RESAMPLES = 2000  # the ends of a 95 % interval then move by less than a tenth of its width from seed to seed
SEED = 0
RESULTS_SCHEMA = "stres/results/1"
PROTOCOL_KEYS = ("frames", "views", "mirror", "temporal")
OPTIONAL_PROTOCOL_KEYS = ("recalibrate_bn",)  # there only where it was done

Interval = tuple[float, float]


class Scored(Protocol):
    """What numbers are made of: `Scores`, or `Scores` with the streams of another program beside them.

    `labels`: int64 [V], indices into `classes`; `streams`: logits, floats [V, C], that which a single number stands for
    last.
    """

    @property
    def videos(self) -> list[str]: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def streams(self) -> Mapping[Any, np.ndarray]: ...


@dataclass(frozen=True)
class StreamMetrics:
    """Accuracies of one stream, each with its 95 % percentile bootstrap interval over videos.

    `top5` counts a hit among the best min(5, C) classes. `mean_class_accuracy` averages over the classes that occur.
    A stream without a single error has the interval [1, 1]: resampling cannot invent one.
    """

    top1: float
    top1_interval: Interval
    top5: float
    top5_interval: Interval
    mean_class_accuracy: float
    mean_class_accuracy_interval: Interval


@dataclass(frozen=True)
class ClassMetrics:
    """One class: its number of videos, the headline stream's figures, and the share each stream recognises.

    None where a figure is not defined: recall of a class without videos, precision of one that was never predicted.
    """

    class_name: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    accuracy: dict[str, float | None]


@dataclass(frozen=True)
class ConfusedPair:
    """`count` videos of class `true`, a `share` of that class, were taken for `predicted`."""

    true: str
    predicted: str
    count: int
    share: float


def results_document(protocol: Mapping[str, Any], split: int, run: str, scores: Scores) -> dict[str, Any]:
    """The content of `results.json`: JSON types only; a stream that was not evaluated is absent.

    Its `scores_sha256` is the `content_sha256` of the `scores.h5` beside it. `protocol` has the keys `frames`, `views`,
    `mirror`, `temporal`, and may have `recalibrate_bn`.
    """
    if set(protocol) - set(OPTIONAL_PROTOCOL_KEYS) != set(PROTOCOL_KEYS):
        raise ValueError(f"a protocol has the keys {', '.join(PROTOCOL_KEYS)}, not {', '.join(protocol)}")
    document: dict[str, Any] = {
        "protocol": {key: protocol[key] for key in (*PROTOCOL_KEYS, *OPTIONAL_PROTOCOL_KEYS) if key in protocol},
        "split": split,
        "run": run,
        "videos": len(scores.videos),
    }
    for stream in scores.streams:
        metrics = asdict(stream_metrics([scores], stream))
        document[stream] = {key: list(value) if isinstance(value, tuple) else value for key, value in metrics.items()}
    return document | made_by(RESULTS_SCHEMA, "numpy") | {"scores_sha256": scores.digest()}


# ------------------------------------------------------------------ accuracies and their intervals


def stream_metrics(splits: Sequence[Scored], stream: str, seed: int = SEED) -> StreamMetrics:
    """Accuracies of `stream`, averaged over `splits` (often one), whose videos are resampled independently."""
    return _mean_metrics([_count_cells(scores, stream) for scores in splits], seed)


def pooled_metrics(splits: Sequence[Scored], stream: str, seed: int = SEED) -> StreamMetrics:
    """Accuracies of `stream` over the tests of all `splits` thrown together: large splits count for more."""
    return _mean_metrics([np.sum([_count_cells(scores, stream) for scores in splits], axis=0)], seed)


def _mean_metrics(cells: Sequence[np.ndarray], seed: int) -> StreamMetrics:
    values = np.mean([_accuracies(cell[None])[0] for cell in cells], axis=0)
    samples = np.mean(
        [_accuracies(_resample(cell, np.random.default_rng((seed, index)))) for index, cell in enumerate(cells)], axis=0
    )
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    top1, top5, mean_class = (float(value) for value in values)
    return StreamMetrics(top1, intervals[0], top5, intervals[1], mean_class, intervals[2])


def ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes stand before the true one: int [V]; 0 exactly where arg-max is right.

    Of equal logits the earlier class stands first, as `argmax` has it.
    """
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > true) | ((logits == true) & earlier)).sum(axis=1)


def _count_cells(scores: Scored, stream: str) -> np.ndarray:
    """Videos by class and by hit at 1, hit at 5 only, miss: int [C, 3]. All three accuracies are functions of it."""
    rank = ranks(scores.streams[stream], scores.labels)
    cells = np.zeros((len(scores.classes), 3), dtype=np.int64)
    np.add.at(cells, (scores.labels, np.where(rank == 0, 0, np.where(rank < 5, 1, 2))), 1)
    return cells


def _resample(cells: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """R draws of V videos with replacement, counted in the same cells: int [R, C, 3].

    Counts of a draw with replacement are multinomial, so that no index of a video has to be drawn.
    """
    total = int(cells.sum())
    return generator.multinomial(total, cells.ravel() / total, size=RESAMPLES).reshape(RESAMPLES, *cells.shape)


def _accuracies(cells: np.ndarray) -> np.ndarray:
    """Top-1, top-5 and mean class accuracy for cells [R, C, 3]: float64 [R, 3]."""
    support = cells.sum(axis=2)
    total = support.sum(axis=1)
    top1 = cells[:, :, 0].sum(axis=1) / total
    top5 = cells[:, :, :2].sum(axis=(1, 2)) / total
    class_accuracy = cells[:, :, 0] / np.maximum(support, 1)
    mean_class = class_accuracy.sum(axis=1) / (support > 0).sum(axis=1)
    return np.stack([top1, top5, mean_class], axis=1)


# ------------------------------------------------------------------ classes and their confusion


def confusion_matrix(splits: Sequence[Scored], stream: str) -> np.ndarray:
    """Counts summed over `splits`: int64 [C, C], rows true, columns predicted (scikit-learn)."""
    return np.sum([_confusion(scores, stream) for scores in splits], axis=0)


def _confusion(scores: Scored, stream: str) -> np.ndarray:
    from sklearn.metrics import confusion_matrix as count

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A single label was found")  # with one class that is all there is
        return count(scores.labels, scores.streams[stream].argmax(axis=1), labels=np.arange(len(scores.classes)))


def class_metrics(splits: Sequence[Scored], headline: str) -> tuple[ClassMetrics, ...]:
    """Per class figures in class order: the mean over the splits in which a figure is defined; support is summed."""
    classes = splits[0].classes
    figures = {stream: _mean_defined([_class_figures(s, stream) for s in splits]) for stream in splits[0].streams}
    support = np.sum([np.bincount(scores.labels, minlength=len(classes)) for scores in splits], axis=0)
    return tuple(
        ClassMetrics(
            class_name=name,
            support=int(support[index]),
            precision=_defined(figures[headline][0, index]),
            recall=_defined(figures[headline][1, index]),
            f1=_defined(figures[headline][2, index]),
            accuracy={stream: _defined(values[1, index]) for stream, values in figures.items()},
        )
        for index, name in enumerate(classes)
    )


def _class_figures(scores: Scored, stream: str) -> np.ndarray:
    """Precision, recall and F1 by scikit-learn: float64 [3, C], NaN where not defined."""
    from sklearn.metrics import precision_recall_fscore_support

    predictions = scores.streams[stream].argmax(axis=1)
    figures = precision_recall_fscore_support(
        scores.labels, predictions, labels=np.arange(len(scores.classes)), zero_division=np.nan
    )
    return np.stack(figures[:3])


def _mean_defined(figures: list[np.ndarray]) -> np.ndarray:
    stacked = np.stack(figures)
    defined = ~np.isnan(stacked)
    number = defined.sum(axis=0)
    total = np.where(defined, stacked, 0).sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def confused_pairs(matrix: np.ndarray, classes: Sequence[str]) -> tuple[ConfusedPair, ...]:
    """Every pair of classes that was confused, by falling count, then falling share, then class order."""
    support = matrix.sum(axis=1)
    pairs = [
        ConfusedPair(
            classes[true], classes[guess], int(matrix[true, guess]), float(matrix[true, guess] / support[true])
        )
        for true, guess in np.argwhere(matrix)
        if true != guess
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.count, -pair.share)))
