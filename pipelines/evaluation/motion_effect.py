"""Where motion helps and where it hurts: what the fused stream gets right that appearance alone does not, by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.metrics import Scored


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
