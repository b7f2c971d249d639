"""The flow of the segments of one video, made in one pass: the flow of a pair of frames is computed once, and goes to
every segment that holds both.

Letters: T frames, N pairs of a batch, H W pixels.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.errors import VideoError
from pipelines.jobs.segments import Part, Targets, UnusableStamps, deal, fitting, store_parts
from pipelines.optical_flow.batch import BatchFlow
from pipelines.optical_flow.store import (
    DecodedFrames,
    FlowAccount,
    FlowTask,
    method_of,
    quantised_flow,
    require_pairs,
)
from pipelines.runtime.worker_pool import Report
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowWriter, new_flow_file
from pipelines.video.timing import FrameClock

_Part = Part[FlowTask]


def store_segments(tasks: Sequence[FlowTask], report: Report) -> list[int | VideoError]:
    """Stores the flow of segments of one video; returns F of each, or why it is not stored. Raises `StorageError`."""
    targets = Targets[FlowTask, FlowWriter](lambda task: new_flow_file(task.target, task.compression))

    def store(tasks: Sequence[FlowTask], clock: FrameClock | None) -> None:
        _Pass(tasks, clock, targets, report).run()

    return store_parts(tasks, targets, store, lambda: report(0))


class _Pass:
    """One pass through the video."""

    def __init__(
        self,
        tasks: Sequence[FlowTask],
        clock: FrameClock | None,
        targets: Targets[FlowTask, FlowWriter],
        report: Report,
    ) -> None:
        self.tasks, self.clock, self.targets, self.report = tasks, clock, targets, report
        self.task = tasks[0]  # which differs from the others in the segment only
        self.step = self.task.settings.step
        # Which parts hold each pair, and which end between two, in the order in which the flow comes; filled by the
        # thread that decodes.
        self.events: deque[tuple[_Part, ...] | _Part] = deque()
        self.accounts: dict[_Part, FlowAccount] = {}
        self.problem: VideoError | UnusableStamps | None = None  # for which decoding has ended early

    def run(self) -> None:
        with DecodedFrames(self.task) as frames:
            self.tasks = fitting(frames.reader, self.tasks, self.targets, FLOW_SCHEMA)
            if not self.tasks:
                return
            pictures, method = self._pictures(frames), method_of(self.task)
            flow = quantised_flow(pictures, method, self.task.settings, self.task.device, frames.size, self.task.mixer)
            with contextlib.closing(flow) as batches:
                for made in batches:
                    self._store(made)
            self._finish_ended()
            if self.problem is not None:
                raise self.problem

    def _store(self, made: BatchFlow) -> None:
        """Divides the flow of the next N pairs among the parts that hold them."""
        self._finish_ended()
        start = 0
        while start < len(made.fields):
            parts, stop = self.events[0], start
            while stop < len(made.fields) and self.events[0] == parts:
                self.events.popleft()
                stop += 1
            assert isinstance(parts, tuple)
            piece = made.piece(start, stop)
            for part in parts:
                self.targets.writer(part).append(piece.fields.numpy())
                self.accounts.setdefault(part, FlowAccount()).add(piece)
                piece = piece._replace(gpu_seconds=0.0)  # of which the first has had its share
            self.report((stop - start) * len(parts))
            start = stop
            self._finish_ended()

    def _finish_ended(self) -> None:
        """Finishes the parts that end before the next pair."""
        while self.events and isinstance(part := self.events[0], Part):
            self.events.popleft()
            self._finish(part)

    def _pictures(self, frames: DecodedFrames) -> Iterator[np.ndarray | None]:
        """The frames of all segments, and None where no pair reaches over. A problem of the video ends them and is
        kept: what was decoded before it may be all that a segment needs."""
        run = 0
        try:
            for picture, parts, ended in deal(frames.reader, self.tasks, self.clock, lambda: self.report(0)):
                self.events.extend(ended)
                if picture is None or not parts:
                    yield None  # so that what has ended is stored now, not with the next segment
                    continue
                if all(part.frames == 1 for part in parts):
                    run = 0
                    yield None
                run += 1
                if run > self.step:
                    self.events.append(tuple(part for part in parts if part.frames > self.step))
                yield picture
        except (VideoError, UnusableStamps) as problem:
            self.problem = problem

    def _finish(self, part: _Part) -> None:
        try:
            if part.problem:
                raise VideoError(part.problem)
            require_pairs(part.frames, self.step)
        except VideoError as error:
            self.targets.fail(part, str(error))
            return
        account = self.accounts.pop(part)
        attributes = {**part.attributes, **self.task.settings.attributes(), **account.attributes()}
        self.targets.writer(part).finish(attributes, part.times)
        self.targets.close(part, part.frames - self.step)
