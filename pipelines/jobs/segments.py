"""The segments of one video, made in one pass: each frame is decoded once, and goes to every segment that holds it.

Letters: T frames, H W pixels.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np

from pipelines.errors import VideoError
from pipelines.interface.wording import plural
from pipelines.jobs.attributes import SEGMENT_ATTRIBUTES, video_attributes
from pipelines.jobs.resume import require_imported_size
from pipelines.jobs.task import Task, VideoTask
from pipelines.sources.segments import Segment
from pipelines.video.decoding import VideoReader
from pipelines.video.timing import FrameClock

Writer = TypeVar("Writer")
_REPORTED = 64  # frames between two signs of life where no segment is


@dataclass(eq=False)
class Part(Generic[Task]):
    """What one task takes of a video's frames."""

    task: Task
    first: int
    """The index in the video of its first frame."""
    frames: int = 0
    """How many it has until now."""
    # Of one that has ended:
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Seconds from its first frame."""
    attributes: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why it cannot be stored."""

    @property
    def segment(self) -> Segment:
        assert self.task.source.segment is not None
        return self.task.source.segment


Dealt = tuple[np.ndarray | None, tuple[Part[Task], ...], list[Part[Task]]]
"""A frame, the parts that take it, and those that have ended before it; at the end of the video there is no frame."""


class UnusableStamps(Exception):
    """When frames are shown is known only from all of them."""


def deal(
    reader: VideoReader, tasks: Sequence[Task], clock: FrameClock | None, on_way: Callable[[], None]
) -> Iterator[Dealt[Task]]:
    """Decodes a video until its last segment has ended, and deals out its frames.

    A segment is judged by what is decoded until it ends: damage behind it, and a file that is cut behind it, are no
    concern of it.

    Args:
        reader: The video.
        tasks: Those of its segments.
        clock: When all frames are shown; None: as their timestamps say.
        on_way: Called now and then between segments, which may lie far apart.

    Raises:
        VideoError: The video cannot be decoded, or is damaged or truncated and that is not allowed.
        UnusableStamps: Without `clock`: seconds matter and the timestamps turn out to be no times.
    """
    waiting = {in_frames: deque[Part[Task]]() for in_frames in (False, True)}
    for part in sorted((Part(task, 0) for task in tasks), key=lambda part: part.segment):
        waiting[part.segment.in_frames].append(part)
    going: list[Part[Task]] = []
    ended: list[Part[Task]] = []
    shown = _Shown(reader, clock) if waiting[False] else None

    def wanted(index: int) -> bool:
        """Whether a part takes this frame, or ends before it."""
        nonlocal ended
        if index % _REPORTED == 0:
            on_way()
        now = {True: index, False: shown.milliseconds(index) if shown else 0}
        for in_frames, queue in waiting.items():
            while queue and queue[0].segment.start <= now[in_frames]:
                going.append(queue.popleft())
                going[-1].first = index
        ended = [part for part in going if part.segment.end <= now[part.segment.in_frames]]
        going[:] = [part for part in going if part not in ended]
        for part in going:
            part.frames += 1
        return bool(going or ended)

    def end(parts: list[Part[Task]]) -> None:
        if parts and shown:
            shown.check()
        whole = clock or reader.clock
        for part in parts:
            if not part.frames:
                part.problem = f"no frame is shown within {part.segment}"
                continue
            timing = whole.timing(part.first, part.first + part.frames)
            part.times = timing.times
            part.attributes = video_attributes(part.task, reader, timing)
            start, stop = part.segment.start / 1000, part.segment.end / 1000
            if part.segment.in_frames:
                start = float(whole.timing().times[part.first])
                stop = start + timing.duration
            about = str(part.segment), start, stop, part.first
            part.attributes |= dict(zip(SEGMENT_ATTRIBUTES, about, strict=True))

    for _, picture in reader.pick(wanted):
        if ended:
            reader.judge_until_here()
        end(ended)
        yield picture, tuple(going), ended
        if not going and not any(waiting.values()):
            return
    end(going)
    if waiting[False] and shown:
        shown.check()
    for part in (late := [*waiting[False], *waiting[True]]):
        length = plural(reader.decoded, "frame")
        if not part.segment.in_frames:
            length += f" and {(clock or reader.clock).timing().duration:.3f} s"
        part.problem = f"{part.segment.too_late}, which has {length}"
    yield None, (), [*going, *late]


def fitting(reader: VideoReader, tasks: Sequence[Task], targets: "Targets[Task, Writer]", schema: str) -> list[Task]:
    """The tasks whose other artifact was not imported in another size; the others fail."""
    fit = []
    for task in tasks:
        try:
            require_imported_size(task.target, schema, reader.width, reader.height)
        except VideoError as error:
            targets.outcomes[task.target] = error
        else:
            fit.append(task)
    return fit


def announced_frames(task: VideoTask, reader: VideoReader) -> int:
    """The frames that a task will have, as far as the container says."""
    frames, segment = reader.announced_frames, task.source.segment
    if segment is None:
        return frames
    scale = 1.0 if segment.in_frames else reader.fps / 1000
    start, end = round(segment.start * scale), round(segment.end * scale)
    return max(0, min(end, frames or end) - start)


class _Shown:
    """When the frames of a video are shown, as they come."""

    def __init__(self, reader: VideoReader, clock: FrameClock | None) -> None:
        self.reader = reader
        self.known = None if clock is None else _rounded(clock.timing().times)
        self.first: float | None = None
        self.so_far: list[int] = []

    def milliseconds(self, index: int) -> int:
        """Of the frame decoded last."""
        if self.known is not None:
            return int(self.known[min(index, len(self.known) - 1)])
        stamp = self.reader.stamp
        self.first = stamp if index == 0 else self.first
        if stamp is None or self.first is None:
            raise UnusableStamps
        now = round(1000 * (stamp - self.first))
        if self.so_far and now < self.so_far[-1]:
            raise UnusableStamps
        self.so_far.append(now)
        return now

    def check(self) -> None:
        """Raises `UnusableStamps` where what was told is not what the frames until here say together."""
        if self.known is None and not np.array_equal(self.so_far, _rounded(self.reader.timing.times)):
            raise UnusableStamps


def _rounded(times: np.ndarray) -> np.ndarray:
    return np.rint(1000 * times).astype(np.int64)


class Targets(Generic[Task, Writer]):
    """The files of a video's parts. Each takes its final name when it is finished; what is not when the block ends
    early is left out, and a `VideoError` is the outcome of all tasks that have none yet."""

    def __init__(self, new: Callable[[Task], AbstractContextManager[Writer]]) -> None:
        self.new = new
        self.outcomes: dict[Path, int | VideoError] = {}
        self.error = VideoError("the segment was not reached")
        self._open: dict[Part[Task], tuple[Writer, ExitStack]] = {}

    def writer(self, part: Part[Task]) -> Writer:
        """Opens a part's file where that is not open yet. Raises `StorageError`."""
        if part not in self._open:
            opened = ExitStack()
            self._open[part] = opened.enter_context(self.new(part.task)), opened
        return self._open[part][0]

    def close(self, part: Part[Task], units: int) -> None:
        """Gives a part's file its final name. Raises `StorageError`."""
        with self._open.pop(part)[1]:
            pass
        self.outcomes[part.task.target] = units

    def fail(self, part: Part[Task], problem: str) -> None:
        self.outcomes[part.task.target] = VideoError(problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        for _, opened in self._open.values():
            opened.__exit__(kind, error, trace)
        self._open.clear()
        if isinstance(error, VideoError):
            self.error = error
        return isinstance(error, VideoError)


def store_parts(
    tasks: Sequence[Task],
    targets: Targets[Task, Writer],
    store: Callable[[Sequence[Task], FrameClock | None], None],
    on_way: Callable[[], None],
) -> list[int | VideoError]:
    """Stores the segments of one video; returns how many units each task has made, or why none.

    Args:
        tasks: Those of the segments.
        targets: Where they go.
        store: Stores the segments of these tasks, given when the frames are shown (`deal`). Called again for those
            left over where the timestamps turn out to be unusable.
        on_way: Called now and then while nothing is stored.

    Raises:
        StorageError: A file cannot be written.
    """
    try:
        with targets:
            store(tasks, None)
    except UnusableStamps:
        with targets:
            with VideoReader(tasks[0].source.file, allow_truncated=True, allow_damaged=True) as reader:
                for _ in reader.pick(lambda index: index % _REPORTED == 0):
                    on_way()
            store([task for task in tasks if task.target not in targets.outcomes], reader.clock)
    return [targets.outcomes.get(task.target, targets.error) for task in tasks]
