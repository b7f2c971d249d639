"""How far things move in the flow of a video, counted before it is clipped, and so which bound would suit.

Letters: N fields, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch

from pipelines.jobs.task import Clipping

BOUNDS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 128)
"""Pixels: the bounds that are proposed."""
CLIPPED = 0.001
"""The share of vectors that a proposed bound may clip: 99.9 % are stored as they are."""
_EVERY = 4  # of the columns and of the rows: of a field of 340x256 5,440 vectors, 0.15 ms rather than 2.4

SHARE, LARGEST, BEYOND = "clipped_share", "largest_displacement", "displacement_beyond"
ATTRIBUTES = (SHARE, LARGEST, BEYOND, "source_frames", "width", "height")


def clipping(files: Sequence[Mapping[str, Any]], bound: float) -> Clipping | None:
    """How much `bound` clips in flow files with these attributes; None if none says anything about it."""
    parts = [
        (float(made["source_frames"] * made["width"] * made["height"]), moved)
        for made in files
        if (moved := Displacement.of(made)) is not None
    ]
    together = Displacement.together(parts)
    return None if together is None else together.clipping(bound)


@dataclass(frozen=True)
class Displacement:
    """How long the vectors of some flow are, by their longer component (which is what a bound clips), in pixels."""

    clipped_share: float
    """The share of vectors that the flow's bound clips."""
    largest: float
    beyond: tuple[float, ...]
    """The share longer than each of `BOUNDS`."""

    @property
    def suitable_bound(self) -> float:
        """The least of `BOUNDS` that clips at most 0.1 % of the vectors; the largest if none does."""
        enough = (bound for bound, share in zip(BOUNDS, self.beyond, strict=True) if share <= CLIPPED)
        return float(next(enough, BOUNDS[-1]))

    def clipping(self, bound: float) -> Clipping:
        """What `bound`, which the flow was clipped to, does to it."""
        return Clipping(bound, self.clipped_share, self.largest, self.suitable_bound)

    def attributes(self) -> dict[str, Any]:
        """What a flow file stores."""
        return {SHARE: self.clipped_share, LARGEST: self.largest, BEYOND: self.beyond}

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Self | None:
        """Reads the attributes of a flow file; None if it has none of this: of stres 0.1, or imported."""
        try:
            beyond = tuple(float(share) for share in attributes[BEYOND])
            displacement = cls(float(attributes[SHARE]), float(attributes[LARGEST]), beyond)
        except (KeyError, TypeError, ValueError):
            return None
        return displacement if len(beyond) == len(BOUNDS) else None

    @classmethod
    def together(cls, parts: "Sequence[tuple[float, Self]]") -> Self | None:
        """The mean of all parts, each weighted by its number of vectors; None without any."""
        total = sum(weight for weight, _ in parts)
        if not total:
            return None
        return cls(
            sum(weight * part.clipped_share for weight, part in parts) / total,
            max(part.largest for _, part in parts),
            tuple(sum(weight * part.beyond[index] for weight, part in parts) / total for index in range(len(BOUNDS))),
        )


def count_lengths(flow: torch.Tensor, bound: float) -> torch.Tensor:
    """Counts every 16th vector of fields on their own device, by its longer component.

    Args:
        flow: float [N, 2, H, W], pixels.
        bound: Of the flow, pixels.

    Returns:
        float64 [N, len(BOUNDS) + 3]: of each field how many vectors are between each two of `BOUNDS`, how many the
        bound clips, and how long the longest is.
    """
    lengths = flow[..., ::_EVERY, ::_EVERY].float().abs().amax(1).flatten(1)
    bins = torch.bucketize(lengths, _bounds_on(flow.device))
    between = torch.zeros((len(flow), len(BOUNDS) + 1), dtype=torch.float64, device=flow.device)
    between.scatter_add_(1, bins, torch.ones_like(lengths, dtype=torch.float64))
    clipped = (lengths > bound).sum(1, keepdim=True).double()
    return torch.cat([between, clipped, lengths.amax(1, keepdim=True).double()], 1)


@lru_cache
def _bounds_on(device: torch.device) -> torch.Tensor:
    return torch.tensor(BOUNDS, dtype=torch.float32, device=device)


class DisplacementMeter:
    """Adds up what `count_lengths` gives of the fields of a video."""

    def __init__(self) -> None:
        self._counts = torch.zeros(len(BOUNDS) + 2, dtype=torch.float64)
        self._largest = 0.0

    def add(self, lengths: torch.Tensor) -> None:
        """Counts fields by their [N, len(BOUNDS) + 3], on the CPU."""
        self._counts += lengths[:, :-1].sum(0)
        self._largest = max(self._largest, float(lengths[:, -1].max()))

    def result(self) -> Displacement | None:
        """What was counted; None if nothing was."""
        *counts, clipped = self._counts.tolist()
        total = sum(counts)
        if not total:
            return None
        beyond = tuple(sum(counts[index + 1 :]) / total for index in range(len(BOUNDS)))
        return Displacement(clipped / total, self._largest, beyond)
