"""Whether a stream's confidence is its accuracy, and what motion changes in each class.

Confidence is the largest class probability, the softmax of a video's mean logits. The reliability curve and the
expected calibration error are those of Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML
2017: 15 bins of equal width, each without its lower end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.metrics import Scored, softmax

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Videos whose confidence lies in (`low`, `high`]: how many, mean confidence and accuracy (None: no video)."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Reliability of one stream; `confidence` and `accuracy` are means over all videos."""

    ece: float
    """Expected calibration error: the mean over all videos of their bin's |accuracy - confidence| (eq. 3)."""
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]


def calibration(splits: Sequence[Scored], stream: str) -> Calibration:
    """Computes the calibration of `stream` over the videos of all splits together."""
    confidence = np.concatenate([softmax(scores.streams[stream]).max(axis=1) for scores in splits])
    # Of the logits, not the probabilities: rounding makes equals of near ones.
    hit = np.concatenate([scores.streams[stream].argmax(axis=1) == scores.labels for scores in splits])
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    bins, ece = [], 0.0
    for index, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = bin_of == index
        count = int(inside.sum())
        mean = (float(confidence[inside].mean()), float(hit[inside].mean())) if count else (None, None)
        bins.append(Bin(low, high, count, *mean))
        ece += count * abs((mean[1] or 0) - (mean[0] or 0))
    return Calibration(ece / len(hit), float(confidence.mean()), float(hit.mean()), tuple(bins))


@dataclass(frozen=True)
class MotionEffect:
    """What adding motion to appearance changes in one class."""

    class_name: str
    support: int
    """Videos of the class."""
    helped: int
    """Videos that are right only with motion."""
    hurt: int
    """Videos that are right only without it."""
    difference: float
    """The change of the class's accuracy: (helped - hurt) / support."""


def motion_effects(splits: Sequence[Scored]) -> tuple[MotionEffect, ...]:
    """Counts what motion changes over all splits, which hold the streams appearance and fused.

    Returns:
        The classes that occur: the one that gains most first, equals in class order.
    """
    number = len(splits[0].classes)
    counts = np.zeros((3, number), dtype=np.int64)  # support, helped and hurt of each class
    for scores in splits:
        without, fused = (scores.streams[name].argmax(axis=1) == scores.labels for name in ("appearance", "fused"))
        for row, videos in zip(counts, (np.ones_like(fused), fused & ~without, without & ~fused), strict=True):
            row += np.bincount(scores.labels[videos], minlength=number)
    effects = [
        MotionEffect(name, support, helped, hurt, (helped - hurt) / support)
        for name, (support, helped, hurt) in zip(splits[0].classes, counts.T.tolist(), strict=True)
        if support
    ]
    return tuple(sorted(effects, key=lambda effect: -effect.difference))
