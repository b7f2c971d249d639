"""Stored flow to compute again, and what came of it: what travels to a worker process and back.

Letters: F fields, W pixels.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_FAULTY_VERSION, _FAULTY_METHOD = "0.1.0", "tvl1"
_SAMPLED_FIELDS = 3


@dataclass(frozen=True)
class FlowOrigin:
    """What a sound flow file says of its making.

    path      the flow file
    source    the video file or the frames artifact that it was computed from
    width     W
    lost      why it cannot be computed again; empty where it can
    """

    path: str
    source: str
    from_video: bool
    method: str
    width: int
    stres_version: str
    lost: str = ""

    @property
    def is_of_faulty_version(self) -> bool:
        """Whether it may be the CPU's TV-L1 of 0.1.0, which was wrong once a process had loaded kernels for two widths.
        That version did not say whether the CPU or a GPU computed."""
        return (self.stres_version, self.method) == (_FAULTY_VERSION, _FAULTY_METHOD)

    @property
    def kernel_width(self) -> int:
        """The widest frames of the kernels that 0.1.0 computed flow of this width with."""
        widest = 176
        while widest < self.width:
            widest = 2 * widest + 16
        return widest


def may_be_mixed_up(origins: Iterable[FlowOrigin]) -> bool:
    """Whether flow of the faulty version among these can be wrong: whether they are of more than one kernel."""
    return len({origin.kernel_width for origin in origins if origin.method == _FAULTY_METHOD}) > 1


@dataclass(frozen=True)
class FlowTask:
    """Flow of one video to compute again: some fields, or all."""

    id: str
    origin: FlowOrigin
    all_fields: bool

    def fields(self, count: int) -> Sequence[int]:
        """Which of F = `count` fields to compute: where not all, one of each third, always the same of a video."""
        if self.all_fields:
            return range(count)
        parts = min(_SAMPLED_FIELDS, count)
        number = int.from_bytes(hashlib.sha256(self.id.encode(errors="surrogateescape")).digest()[:8])
        bounds = [part * count // parts for part in range(parts + 1)]
        return [start + number % (end - start) for start, end in pairwise(bounds)]


@dataclass(frozen=True)
class Recomputed:
    """What came of it.

    fields  how many were compared
    wrong   how the first one that differs does; empty where none does
    lost    why none could be computed after all; empty where they could
    """

    fields: int = 0
    wrong: str = ""
    lost: str = ""
