"""Whether a stream's confidence is its accuracy: the reliability curve and the expected calibration error.

Confidence is the largest class probability, the softmax of a video's mean logits. After Guo, Pleiss, Sun, Weinberger,
"On calibration of modern neural networks", ICML 2017: 15 bins of equal width, each without its lower end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.metrics import Scored, softmax

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Videos whose confidence lies in (`low`, `high`]: how many, mean confidence and accuracy (None: none)."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """`ece`: the mean over all videos of their bin's |accuracy - confidence| (eq. 3 of the paper)."""

    ece: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]


def calibration(splits: Sequence[Scored], stream: str) -> Calibration:
    """Calibration of `stream` over the videos of all splits together."""
    probabilities = [softmax(scores.streams[stream]) for scores in splits]
    confidence = np.concatenate([each.max(axis=1) for each in probabilities])
    # Of the logits, not the probabilities: rounding makes equals of near ones.
    hit = np.concatenate([scores.streams[stream].argmax(axis=1) == scores.labels for scores in splits])
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    bins = tuple(_bin(edges[i], edges[i + 1], confidence[place == i], hit[place == i]) for i in range(BINS))
    ece = sum(one.count * abs((one.accuracy or 0) - (one.confidence or 0)) for one in bins) / len(hit)
    return Calibration(float(ece), float(confidence.mean()), float(hit.mean()), bins)


def _bin(low: float, high: float, confidence: np.ndarray, hit: np.ndarray) -> Bin:
    if not len(hit):
        return Bin(float(low), float(high), 0, None, None)
    return Bin(float(low), float(high), len(hit), float(confidence.mean()), float(hit.mean()))


@dataclass(frozen=True)
class MotionEffect:
    """Of a class's `support` videos, `helped` are right only when motion is added, `hurt` only without it.

    `difference` is the change of the class's accuracy: (helped - hurt) / support.
    """

    class_name: str
    support: int
    helped: int
    hurt: int
    difference: float


def motion_effects(splits: Sequence[Scored]) -> tuple[MotionEffect, ...]:
    """Of each class that occurs, counts of all splits; the class that gains most first, then in class order.

    Every split holds the streams appearance and fused.
    """
    counts = np.sum([_counts(scores) for scores in splits], axis=0)
    effects = [
        MotionEffect(name, int(support), int(helped), int(hurt), float((helped - hurt) / support))
        for name, (support, helped, hurt) in zip(splits[0].classes, counts, strict=True)
        if support
    ]
    return tuple(sorted(effects, key=lambda effect: -effect.difference))


def _counts(scores: Scored) -> np.ndarray:
    """Support, helped and hurt of each class: int [C, 3]."""
    without, with_motion = (scores.streams[name].argmax(axis=1) == scores.labels for name in ("appearance", "fused"))
    counted = (np.ones_like(without), with_motion & ~without, without & ~with_motion)
    number = len(scores.classes)
    return np.stack([np.bincount(scores.labels[which], minlength=number) for which in counted], axis=1)
