"""Two runs tested on the same videos: McNemar's exact test on the videos that only one of them gets right.

McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika
1947; exact: under the hypothesis that both are equally good, each such video falls to either side like a fair coin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UsageError
from pipelines.evaluation.intervals import Interval, of_paired_difference
from pipelines.evaluation.metrics import Scored
from pipelines.evaluation.scores import Scores
from pipelines.storage.provenance import same_origin
from pipelines.wording import some


@dataclass(frozen=True)
class StreamComparison:
    """A stream of one run against a stream of the other.

    `both`, `only_first`, `only_second`, `neither`: how many videos they get right. `difference` is the accuracy of the
    first less that of the second over all videos, with its 95 % interval (`intervals`); `p_value` is
    two-sided and exact.
    """

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    difference_interval: Interval
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """This report's run (`first`) and the one it is compared with; the last of `streams` is the headline of both.

    `other_sources`: ids of the videos that were not the same in both tests, where both say what they were made from.
    """

    first: str
    second: str
    second_protocol: str
    videos: int
    streams: tuple[StreamComparison, ...]
    other_sources: tuple[str, ...] = ()


def compare_streams(
    first: Sequence[Scored], second: Sequence[Scored], stream: str, second_stream: str | None = None
) -> StreamComparison:
    """Compares `stream` of `first`, split by split, with `second_stream` (None: the same) of `second`.

    Videos are matched by id. Raises `UsageError` where the two were not tested on the same videos and classes.
    """
    other = stream if second_stream is None else second_stream
    pairs = [_hits(a, b, stream, other) for a, b in zip(first, second, strict=True)]
    ours, theirs = (np.concatenate(hits) for hits in zip(*pairs, strict=True))
    both, only_first, only_second = (int(which.sum()) for which in (ours & theirs, ours & ~theirs, ~ours & theirs))
    cells = (both, only_first, only_second, len(ours) - both - only_first - only_second)
    difference = (only_first - only_second) / len(ours)
    interval = of_paired_difference(only_first, only_second, len(ours))
    p_value = mcnemar(only_first, only_second)
    return StreamComparison(stream, other, *cells, difference, interval, p_value)


def other_sources(first: Sequence[Scores], second: Sequence[Scores]) -> tuple[str, ...]:
    """The videos, by id, that have one name in both tests but come from different sources."""
    found: dict[str, None] = {}
    for ours, theirs in zip(first, second, strict=True):
        known = dict(zip(theirs.videos, theirs.sources or [], strict=False))
        for video, source in zip(ours.videos, ours.sources or [], strict=False):
            other = known.get(video)
            if source and other and not (same_origin(source, other) or same_origin(other, source)):
                found[video] = None
    return tuple(found)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value: how often a fair coin thrown n times falls at least as unevenly; 1 for n = 0."""
    number, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(number, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**number)  # whole numbers up to the division, which rounds once


def _hits(first: Scored, second: Scored, stream: str, second_stream: str) -> tuple[np.ndarray, np.ndarray]:
    """Which videos each gets right, in the order of `first`: bool [V] each."""
    if first.classes != second.classes:
        told = _difference(first.classes, second.classes)
        raise UsageError(f"the two runs cannot be compared, their classes differ: {told}")
    if set(first.videos) != set(second.videos):
        raise UsageError(
            f"the two runs cannot be compared, they were tested on other videos: "
            f"{_difference(first.videos, second.videos)}; evaluate both on the same split"
        )
    place = {video: index for index, video in enumerate(second.videos)}
    order = np.array([place[video] for video in first.videos])
    if not np.array_equal(first.labels, second.labels[order]):
        wrong = int(np.argmax(first.labels != second.labels[order]))
        raise UsageError(f"the two runs cannot be compared: they have other classes for {first.videos[wrong]}")
    ours = first.streams[stream].argmax(axis=1) == first.labels
    return ours, (second.streams[second_stream].argmax(axis=1) == second.labels)[order]


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    """What only one of two lists has, in words."""
    told = [
        f"only the {which} has {some(only)}"
        for which, only in (
            ("first", [name for name in first if name not in set(second)]),
            ("second", [name for name in second if name not in set(first)]),
        )
        if only
    ]
    return " and ".join(told) or "their order"
