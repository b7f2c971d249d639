"""Two streams fused with one weight, and what every other weight would have given.

Letters: V videos, C classes. The fused score is `w * first + (1 - w) * second`; the paper's is w = 0.5 of the logits
(paper.md 4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.fusion_weight import WEIGHTS
from pipelines.evaluation.metrics import Scored, log_probabilities, softmax, true_class_ranks
from pipelines.interface.options import Space

AVERAGED: dict[Space, str] = {
    "logits": "logits, before softmax",
    "softmax": "class probabilities",
    "l2": "L2-normalised scores",
}
"""What is averaged, in words."""


@dataclass(frozen=True)
class WeightSweep:
    """Top-1 (mean over splits) of `w * first + (1 - w) * second` for each weight w of `first`."""

    first: str
    second: str
    space: Space
    used: tuple[float, ...]
    """The weight of the reported fused stream in each split, set before the test."""
    used_top1: float
    weights: tuple[float, ...]
    top1: tuple[float, ...]
    """Its best was found on the test videos themselves and is therefore no test result."""
    chosen_on: tuple[int, ...] = ()
    """On how many held-out videos the weight of each split was chosen, if it was."""

    @property
    def averaged(self) -> str:
        """`space` in words."""
        return AVERAGED[self.space]

    @property
    def used_mean(self) -> float:
        """The mean of `used`."""
        return float(np.mean(self.used))

    @property
    def used_in_words(self) -> str:
        """`weight 0.3, chosen on 12 held-out videos`."""
        weights, videos = (", ".join(f"{number:g}" for number in numbers) for numbers in (self.used, self.chosen_on))
        if len(set(self.used)) == 1:
            weights = f"{self.used[0]:g}"
        return f"weight {weights}" + (f", chosen on {videos} held-out videos" if videos else "")

    @property
    def best(self) -> tuple[float, float]:
        """The weight of the highest top-1, the nearest to `used` among equals, and that top-1."""
        top1, _, weight = max(
            (top1, -abs(w - self.used_mean), w) for w, top1 in zip(self.weights, self.top1, strict=True)
        )
        return weight, top1


def fuse(first: np.ndarray, second: np.ndarray, weight: float, space: Space) -> np.ndarray:
    """Fuses the logits [V, C] of two streams.

    Args:
        first: Logits of the stream that has the share `weight`, 0 to 1.
        second: Logits of the other.
        weight: Share of `first`.
        space: What is averaged: the logits; in "softmax" the class probabilities; in "l2" the logits of each video
            divided by their Euclidean norm, as ST-ResNet and IDT were fused (Feichtenhofer et al. 2016).
    """
    if space == "l2":
        first, second = _unit_rows(first), _unit_rows(second)
    if space == "softmax":
        return log_probabilities(weight * softmax(first) + (1 - weight) * softmax(second))
    return weight * first + (1 - weight) * second


def _unit_rows(scores: np.ndarray) -> np.ndarray:
    """Each row divided by its Euclidean norm; zeros stay zeros."""
    scores = scores.astype(np.float64)
    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    return scores / np.where(norms > 0, norms, 1)


def weight_sweep(
    splits: Sequence[Scored],
    first: str,
    second: str,
    used: Sequence[float],
    space: Space = "logits",
    chosen_on: Sequence[int] = (),
) -> WeightSweep:
    """Fuses the streams `first` and `second` of each split with every weight of `WEIGHTS`, and with that of `used`."""

    def top1(weights: Sequence[float]) -> float:
        pairs = zip(splits, weights, strict=True)
        fused = [fuse(s.streams[first], s.streams[second], weight, space) for s, weight in pairs]
        hits = [true_class_ranks(logits, s.labels) == 1 for logits, s in zip(fused, splits, strict=True)]
        return float(np.mean([hit.mean() for hit in hits]))

    swept = tuple(top1([weight] * len(splits)) for weight in WEIGHTS)
    return WeightSweep(first, second, space, tuple(used), top1(used), WEIGHTS, swept, tuple(chosen_on))
