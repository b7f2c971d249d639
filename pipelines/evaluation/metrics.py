"""The numbers made of a run's scores: accuracies with intervals, per class figures, the confusion matrix.

Letters: V videos, C classes. All accuracies are fractions, 0..1. Where several splits are
given, a number is the mean of the splits' numbers, as the papers report it; counts are summed.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from pipelines.datasets.class_balance import ClassBalance
from pipelines.evaluation.intervals import Interval, combined, methods, of_mean
from pipelines.evaluation.protocols import IMPORTED
from pipelines.evaluation.scores import Scores
from pipelines.interface.wording import fraction, percent
from pipelines.storage.provenance import made_by
from pipelines.training.run_config import digest

TOP = 5
"""The best classes in which top-5 looks for the true one: a number only where there are more."""
RESULTS_SCHEMA = "stres/results/1"
PROTOCOL_KEYS = ("frames", "views", "mirror", "temporal")
OPTIONAL_PROTOCOL_KEYS = ("recalibrate_bn", "checkpoint", "fusion_weight")  # there only where not as usual


@dataclass(frozen=True)
class Table:
    """`Scores` with the streams of another program beside them: logits, floats [V, C], the headline stream last."""

    videos: list[str]
    labels: np.ndarray
    classes: list[str]
    streams: dict[str, np.ndarray]


Scored = Scores | Table
"""What numbers are made of."""


@dataclass(frozen=True)
class StreamMetrics:
    """Accuracies of one stream, each with its 95 % interval (`intervals`, which never are points).

    `top5` is None unless there are more than 5 classes. `mean_class_accuracy` averages over the classes that occur.
    """

    top1: float
    top1_interval: Interval
    top5: float | None
    top5_interval: Interval | None
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

    @property
    def figures(self) -> "list[tuple[ClassFigure, float | None]]":
        """Those of `CLASS_FIGURES` with their values."""
        return [(figure, getattr(self, name)) for name, figure in CLASS_FIGURES.items()]


@dataclass(frozen=True)
class ClassFigure:
    """What a figure of the classes is called, and how its values are written."""

    title: str
    short: str
    """The title in few letters."""
    is_share: bool = True
    """Shown in percent; else, as a median rank would be, as the number that it is."""

    def shown(self, value: float | None) -> str:
        """A value as tables show it."""
        if self.is_share or value is None:
            return percent(value)
        return f"{round(value, 3):g}"

    def with_unit(self, value: float | None) -> str:
        """A value as a sentence has it."""
        return self.shown(value) + (" %" if self.is_share and value is not None else "")

    def in_csv(self, value: float | None) -> str:
        """A value as files hold it."""
        return fraction(value) if self.is_share or value is None else f"{round(value, 3):g}"


CLASS_FIGURES = {
    "precision": ClassFigure("precision", "prec."),
    "recall": ClassFigure("recall", "recall"),
    "f1": ClassFigure("F1", "F1"),
}
"""The headline stream's figures of `ClassMetrics`: every table, page and sentence has those that stand here."""


@dataclass(frozen=True)
class ConfusedPair:
    """`count` videos of class `true`, a `share` of that class, were taken for `predicted`."""

    true: str
    predicted: str
    count: int
    share: float


def results_document(protocol: Mapping[str, Any], split: int, run: str, scores: Scores) -> dict[str, Any]:
    """Makes the content of `results.json`.

    Args:
        protocol: With the keys `frames`, `views`, `mirror`, `temporal`, and maybe `OPTIONAL_PROTOCOL_KEYS`; or with
            `imported`.
        split: Number of the split.
        run: The run's name.
        scores: Those that the numbers are made of.

    Returns:
        JSON types only. A stream that was not evaluated is absent, top-5 of 5 classes or fewer is null.
        `interval_method` says how each interval was made, `balance` how the videos are spread over the classes;
        `scores_sha256` is the `content_sha256` of the `scores.h5` beside it, `videos_sha256` the same for the same
        videos in any order.
    """
    if IMPORTED not in protocol and set(protocol) - set(OPTIONAL_PROTOCOL_KEYS) != set(PROTOCOL_KEYS):
        raise ValueError(f"a protocol has the keys {', '.join(PROTOCOL_KEYS)}, not {', '.join(protocol)}")
    document: dict[str, Any] = {
        "protocol": dict(protocol),
        "split": split,
        "run": run,
        "videos": len(scores.videos),
        "videos_sha256": digest(sorted(scores.videos)),
        "interval_method": methods(),
        "balance": asdict(class_balance([scores])),
    }
    for stream in scores.streams:
        metrics = asdict(stream_metrics([scores], stream))
        document[stream] = {key: list(value) if isinstance(value, tuple) else value for key, value in metrics.items()}
    return document | made_by(RESULTS_SCHEMA, "numpy") | {"scores_sha256": scores.digest()}


def class_balance(splits: Sequence[Scored]) -> ClassBalance:
    """How the test videos of all `splits` together are spread over the classes."""
    counts = Counter(split.classes[label] for split in splits for label in split.labels)
    return ClassBalance.of(counts, len(splits[0].classes))


# ------------------------------------------------------------------ accuracies and their intervals


def stream_metrics(splits: Sequence[Scored], stream: str) -> StreamMetrics:
    """Computes the accuracies of `stream`, averaged over `splits` (often one), which are taken to be independent."""
    return _mean_metrics([_count_cells(scores, stream) for scores in splits])


def pooled_metrics(splits: Sequence[Scored], stream: str) -> StreamMetrics:
    """Computes the accuracies of `stream` over the tests of all `splits` together: large splits count for more."""
    return _mean_metrics([np.sum([_count_cells(scores, stream) for scores in splits], axis=0)])


def _mean_metrics(cells: Sequence[np.ndarray]) -> StreamMetrics:
    """Of cells [C, 3], one array a split."""
    top1 = [(int(cell[:, 0].sum()), int(cell.sum())) for cell in cells]
    top5 = [(int(cell[:, :2].sum()), int(cell.sum())) for cell in cells]
    by_class = [[(int(row[0]), int(row.sum())) for row in cell if row.any()] for cell in cells]
    mean_class = [_mean(counts) for counts in by_class]
    has_top5 = len(cells[0]) > TOP
    return StreamMetrics(
        top1=_mean(top1),
        top1_interval=of_mean(top1),
        top5=_mean(top5) if has_top5 else None,
        top5_interval=of_mean(top5) if has_top5 else None,
        mean_class_accuracy=float(np.mean(mean_class)),
        mean_class_accuracy_interval=combined(mean_class, [of_mean(counts) for counts in by_class]),
    )


def _mean(counts: Sequence[tuple[int, int]]) -> float:
    return math.fsum(right / videos for right, videos in counts) / len(counts)


def true_class_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ranks the true class of each video: int [V], 1 exactly where arg-max is right.

    Of equal logits the earlier class comes first, as `argmax` has it.
    """
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return 1 + ((logits > true) | ((logits == true) & earlier)).sum(axis=1)


def _count_cells(scores: Scored, stream: str) -> np.ndarray:
    """Videos by class and by hit at 1, hit at 5 only, miss: int [C, 3]. All three accuracies are functions of it."""
    rank = true_class_ranks(scores.streams[stream], scores.labels)
    cells = np.zeros((len(scores.classes), 3), dtype=np.int64)
    np.add.at(cells, (scores.labels, np.where(rank == 1, 0, np.where(rank <= TOP, 1, 2))), 1)
    return cells


# ------------------------------------------------------------------ classes and their confusion


def confusion_matrix(splits: Sequence[Scored], stream: str) -> np.ndarray:
    """Counts videos by class: int64 [C, C], rows true, columns predicted, summed over `splits`."""
    counts = np.zeros((len(splits[0].classes),) * 2, dtype=np.int64)
    for scores in splits:
        np.add.at(counts, (scores.labels, scores.streams[stream].argmax(axis=1)), 1)
    return counts


def class_metrics(splits: Sequence[Scored], headline: str) -> tuple[ClassMetrics, ...]:
    """Figures of each class, in class order: the mean over the splits in which a figure is defined.

    Args:
        splits: Scores of each split; `support` is summed over them.
        headline: The stream whose figures are given.
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = splits[0].classes
    figures: dict[str, np.ndarray] = {}  # of each stream precision, recall and F1: float64 [3, C], NaN: not defined
    for stream in splits[0].streams:
        of_splits = [
            precision_recall_fscore_support(
                scores.labels,
                scores.streams[stream].argmax(axis=1),
                labels=np.arange(len(classes)),
                zero_division=np.nan,
            )[:3]
            for scores in splits
        ]
        figures[stream] = np.ma.masked_invalid(of_splits).mean(axis=0).filled(np.nan)
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of logits [V, C]: float64 [V, C], each row of sum 1."""
    return special.softmax(logits.astype(np.float64), axis=1)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logits [V, C] whose softmax gives back `probabilities` [V, C]; zeros become 1e-30."""
    return np.log(np.maximum(probabilities, 1e-30))
