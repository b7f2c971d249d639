"""Two runs tested on the same videos: McNemar's exact test on the videos that only one of them gets right.

McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika
1947; exact: under the hypothesis that both are equally good, each such video falls to either side like a fair coin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pipelines.errors import UsageError
from pipelines.evaluation.intervals import Interval, of_paired_difference
from pipelines.evaluation.metrics import Scored
from pipelines.evaluation.scores import Scores
from pipelines.interface.wording import plural, some
from pipelines.storage.provenance import same_origin


@dataclass(frozen=True)
class StreamComparison:
    """A stream of one run against a stream of the other, in numbers of videos that they get right."""

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    """Accuracy of the first less that of the second, over all videos."""
    difference_interval: Interval
    """Its 95 % interval."""
    p_value: float
    """Of McNemar's test: two-sided, exact."""

    @property
    def streams(self) -> str:
        """What is compared, in words."""
        return self.first if self.second == self.first else f"{self.first} against {self.second}"


@dataclass(frozen=True)
class ChangedVideo:
    """A test of a video that only one of two runs gets right: what each took it for."""

    clip: int
    """Counted through all splits."""
    video: str
    true: str
    first: str
    second: str

    @property
    def won(self) -> bool:
        """Whether the first is right."""
        return self.first == self.true


@dataclass(frozen=True)
class Comparison:
    """This report's run (`first`) and the one it is compared with."""

    first: str
    second: str
    second_protocol: str
    videos: int
    streams: tuple[StreamComparison, ...]
    """The last is the headline of both."""
    changed: "tuple[ChangedVideo, ...]" = ()
    """What only one of the two gets right, of the last of `streams`."""
    other_sources: tuple[str, ...] = ()
    """Ids of the videos that were not the same in both tests, where both say what they were made from."""

    @property
    def warning(self) -> str:
        """What a reader has to know of `other_sources`; empty without any."""
        if not self.other_sources:
            return ""
        others = plural(len(self.other_sources), "video was another one", "videos were others")
        difference = "in the other test (the sources' SHA-256 differ), and what differs may be theirs"
        return f"{others} {difference}: {some(self.other_sources)}"


def compare_streams(
    first: Sequence[Scored], second: Sequence[Scored], stream: str, second_stream: str
) -> StreamComparison:
    """Compares a stream of two runs video by video, over all splits together.

    Args:
        first: Scores of one run, one for each split. Videos are matched by id.
        second: Scores of the other run, of the same splits.
        stream: The stream of `first`.
        second_stream: The stream of `second`.

    Raises:
        UsageError: The two were not tested on the same videos and classes.
    """
    labels = np.concatenate([table.labels for table in first])
    ours, theirs = (guesses == labels for guesses in _guesses(first, second, stream, second_stream))
    both, only_first, only_second = (int(which.sum()) for which in (ours & theirs, ours & ~theirs, ~ours & theirs))
    cells = (both, only_first, only_second, len(ours) - both - only_first - only_second)
    difference = (only_first - only_second) / len(ours)
    interval = of_paired_difference(only_first, only_second, len(ours))
    return StreamComparison(stream, second_stream, *cells, difference, interval, mcnemar(only_first, only_second))


def changed_videos(
    first: Sequence[Scored], second: Sequence[Scored], stream: str, second_stream: str
) -> tuple[ChangedVideo, ...]:
    """The videos that only one of two streams gets right, those of the first run first. Arguments and errors are those
    of `compare_streams`."""
    ours, theirs = _guesses(first, second, stream, second_stream)
    classes = first[0].classes
    videos = [(id_, int(label)) for table in first for id_, label in zip(table.videos, table.labels, strict=True)]
    changed = [
        ChangedVideo(clip, video, classes[label], classes[ours[clip]], classes[theirs[clip]])
        for clip, (video, label) in enumerate(videos)
        if (ours[clip] == label) != (theirs[clip] == label)
    ]
    return tuple(sorted(changed, key=lambda one: not one.won))


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
    """McNemar's exact two-sided p-value; 1 where no video is right in only one of the two runs.

    Args:
        only_first: Videos that only the first run gets right.
        only_second: Videos that only the second run gets right.
    """
    number = only_first + only_second
    return float(binomtest(only_first, number).pvalue) if number else 1.0


def _guesses(
    first: Sequence[Scored], second: Sequence[Scored], stream: str, second_stream: str
) -> tuple[np.ndarray, np.ndarray]:
    """What each takes the videos of all splits for, in the order of `first`: int [V] each."""
    orders = [_same_videos(*tables) for tables in zip(first, second, strict=True)]
    ours = [table.streams[stream].argmax(axis=1) for table in first]
    theirs = [table.streams[second_stream].argmax(axis=1)[rows] for table, rows in zip(second, orders, strict=True)]
    return np.concatenate(ours), np.concatenate(theirs)


def _same_videos(first: Scored, second: Scored) -> np.ndarray:
    """The rows of `second` in the order of `first`: int [V]. Raises `UsageError` where they differ."""
    if first.classes != second.classes:
        difference = _difference(first.classes, second.classes)
        raise UsageError(f"the two runs cannot be compared, their classes differ: {difference}")
    if set(first.videos) != set(second.videos):
        raise UsageError(
            "the two runs cannot be compared, they were tested on other videos: "
            f"{_difference(first.videos, second.videos)}; evaluate both on the same split"
        )
    row = {video: index for index, video in enumerate(second.videos)}
    order = np.array([row[video] for video in first.videos])
    if not np.array_equal(first.labels, second.labels[order]):
        wrong = int(np.argmax(first.labels != second.labels[order]))
        raise UsageError(f"the two runs cannot be compared: they have other classes for {first.videos[wrong]}")
    return order


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    """What only one of two lists has, in words."""
    parts = []
    for which, names, others in (("first", first, set(second)), ("second", second, set(first))):
        if only := [name for name in names if name not in others]:
            parts.append(f"only the {which} has {some(only)}")
    return " and ".join(parts) or "their order"
