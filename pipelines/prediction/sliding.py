"""Goes through a video once, frame by frame, and has the network look at each window as soon as its frames have come.

Memory is that of one window, whatever the length of the video.
"""

import contextlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from pipelines.datasets.artifact_reader import DecodedClip
from pipelines.prediction.inputs import FlowOnDemand, FramePlan
from pipelines.prediction.predictor import OnFrames, Predictor, Reader
from pipelines.prediction.windows import Duration, Span, Windows
from pipelines.runtime.prefetch import prefetch
from pipelines.video.timing import Timing

Value = TypeVar("Value")
_AHEAD = 16  # decoded frames that wait while flow and network compute


class Slider(Generic[Value]):
    """Takes a video frame by frame, and keeps the frames and fields that are still to be looked at.

    `spans` are the frames start..end-1 that have been looked at, and `values` what `look` made of each.
    """

    def __init__(self, predictor: Predictor, look: Callable[[FramePlan, DecodedClip], Value]) -> None:
        self.predictor, self.look = predictor, look
        self.frames: dict[int, np.ndarray] = {}
        self.flow = FlowOnDemand(predictor.flow, self.frames)
        self.spans: list[Span] = []
        self.values: list[Value] = []
        self.count = self.kept_from = 0

    def add(self, frame: np.ndarray, time: float) -> None:
        """Adds the frame shown at `time`, seconds, and looks at what this completes."""
        self.frames[self.count] = frame
        self.count += 1
        self.advance(time)
        oldest = self.oldest()
        for index in range(self.kept_from, oldest):
            self.frames.pop(index, None)
        self.kept_from = max(self.kept_from, oldest)
        self.flow.forget(oldest)

    def advance(self, time: float) -> None:
        """Looks at what the frame added last, shown at `time`, completes."""
        raise NotImplementedError

    def finish(self, end: float) -> None:
        """Looks at the rest of a video that ends at `end` seconds."""
        raise NotImplementedError

    def oldest(self) -> int:
        """The first frame that is still needed."""
        raise NotImplementedError

    def seen(self, plan: FramePlan) -> Value:
        """What `look` makes of the frames and fields of `plan`."""
        return self.look(plan, plan.pixels(self.frames, self.flow))


class WindowSlider(Slider[Value]):
    """Looks at windows, each as if it were a clip of its own."""

    def __init__(
        self,
        predictor: Predictor,
        look: Callable[[FramePlan, DecodedClip], Value],
        window: Duration,
        hop: Duration,
    ) -> None:
        super().__init__(predictor, look)
        self.windows = Windows(window, hop, predictor.least_frames)

    def advance(self, time: float) -> None:
        self._look_at(self.windows.add(time))

    def finish(self, end: float) -> None:
        self._look_at(self.windows.finish(end))

    def oldest(self) -> int:
        return self.windows.oldest()

    def _look_at(self, spans: list[Span]) -> None:
        for start, end in spans:
            self.values.append(self.seen(self.predictor.plan(start, end - start)))
            self.spans.append((start, end))


def slide(
    predictor: Predictor,
    path: Path,
    make: Callable[[], Slider[Value]],
    on_frames: OnFrames,
    *,
    by_number: bool = False,
    at_end: Callable[[Reader], None] = lambda reader: None,
    most: int | None = None,
) -> tuple[Slider[Value], Timing]:
    """Goes through a video.

    Args:
        predictor: What looks at it.
        path: The video.
        make: Makes a slider; called again where the video has to be gone through once more, because its timestamps turn
            out not to be usable.
        on_frames: Receives the number of decoded frames, and how many the container announces.
        by_number: Whether `time` and `end` of the slider are to be the number of the frame, not seconds.
        at_end: Receives the reader after the last frame.
        most: Frames after which the video is taken to end; None for no limit.

    Returns:
        The slider, finished, and when the frames are shown.

    Raises:
        VideoError: The video cannot be decoded or is too short.
    """

    def through(times: np.ndarray | None) -> tuple[Slider[Value], Timing] | None:
        """`times`: when the frames are shown; None: as their timestamps say. Returns None if seconds matter and those
        turn out not to be usable."""
        slider, first, shown = make(), None, list[float]()
        with predictor.open(path) as reader:
            announced = reader.announced_frames
            decoded = ((frame, reader.stamp) for frame in reader)
            with contextlib.closing(prefetch(decoded, _AHEAD)) as frames:
                for index, (frame, stamp) in enumerate(islice(frames, most)):
                    first = stamp if index == 0 else first
                    if by_number:
                        shown.append(float(index))
                    elif times is not None:
                        shown.append(float(times[min(index, len(times) - 1)]))
                    elif stamp is None or first is None or (shown and stamp - first < shown[-1]):
                        return None
                    else:
                        shown.append(stamp - first)
                    slider.add(frame, shown[-1])
                    on_frames(slider.count, announced)
            at_end(reader)
            timing = reader.timing
        if not by_number and times is None and not np.allclose(shown, timing.times[: len(shown)], rtol=0, atol=1e-6):
            return None
        slider.finish(float(slider.count) if by_number else timing.duration)
        return slider, timing

    found = through(None)
    if found is None:  # when the frames are shown is known only from all of them
        with predictor.open(path) as reader:
            for _ in reader.pick(lambda index: False):
                pass
            times = reader.timing.times
        found = through(times)
        assert found is not None
    return found
