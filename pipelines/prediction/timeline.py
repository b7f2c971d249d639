"""Class over time: a window slides over a video, and each is tested as if it were a clip of its own.

Letters: C classes, T frames.
"""

import contextlib
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from pipelines.prediction.inputs import FlowOnDemand
from pipelines.prediction.predictor import Logits, OnFrames, Predictor, probabilities, warning_about
from pipelines.prediction.windows import Duration, Span, Windows
from pipelines.runtime.prefetch import prefetch
from pipelines.video.timing import Timing

_AHEAD = 16  # decoded frames that wait while flow and network compute


@dataclass(frozen=True)
class Window:
    """The frames start..end-1 of a video, and each stream's probabilities: [C]."""

    start: int
    end: int
    probabilities: dict[str, list[float]]

    @property
    def headline(self) -> list[float]:
        """Of both streams fused, or of the only one."""
        return list(self.probabilities.values())[-1]

    @property
    def winner(self) -> int:
        return int(np.argmax(self.headline))


@dataclass(frozen=True)
class Segment:
    """Neighbouring windows with one winner. Segments follow one another without gaps: each window stands for the time
    that is nearer to its middle than to another's."""

    start: float
    """Seconds."""
    end: float
    class_name: str
    probability: float
    """The mean of its windows'."""


@dataclass(frozen=True)
class Timeline:
    """All windows of a video, and when its frames are shown."""

    classes: list[str]
    windows: list[Window]
    timing: Timing
    window: Duration
    hop: Duration
    pairs: int
    """Flow fields computed."""
    mean: Logits
    """The mean logits of all windows."""
    warning: str = ""
    """What is wrong with the video."""

    @property
    def frames(self) -> int:
        return len(self.timing.times)

    @property
    def window_frames(self) -> int:
        """At the mean rate."""
        return self.window.frames(self.timing.fps)

    @property
    def hop_frames(self) -> int:
        return self.hop.frames(self.timing.fps)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.timing.duration

    def time(self, frame: int) -> float:
        """When the frame is shown, in seconds from the first; of the one after the last, when the video ends."""
        return float(self.timing.times[frame]) if frame < self.frames else self.duration

    def edges(self) -> list[float]:
        """When one window gives way to the next, in seconds, both ends included: one more than windows."""
        middles = [(self.time(window.start) + self.time(window.end)) / 2 for window in self.windows]
        return [0.0, *((a + b) / 2 for a, b in pairwise(middles)), self.duration]

    def segments(self) -> list[Segment]:
        """The video's time from beginning to end."""
        segments: list[Segment] = []
        edges, first = self.edges(), 0
        for winner, run in groupby(self.windows, key=lambda window: window.winner):
            shares = [window.headline[winner] for window in run]
            stop = first + len(shares)
            segments.append(Segment(edges[first], edges[stop], self.classes[winner], float(np.mean(shares))))
            first = stop
        return segments


def slide(predictor: Predictor, path: Path, window: Duration, hop: Duration, on_frames: OnFrames) -> Timeline:
    """Predicts each window of a video.

    Args:
        predictor: What predicts a window.
        path: The video.
        window: The length of a window.
        hop: From one window to the next.
        on_frames: Receives the number of decoded frames.

    Raises:
        VideoError: The video cannot be decoded or is too short.
    """
    timeline = _slide(predictor, path, window, hop, on_frames, None)
    if timeline is None:  # when the frames are shown is known only from all of them
        with predictor.open(path) as reader:
            for _ in reader.pick(lambda index: False):
                pass
        timeline = _slide(predictor, path, window, hop, on_frames, reader.timing.times)
        assert timeline is not None
    return timeline


def _slide(
    predictor: Predictor, path: Path, window: Duration, hop: Duration, on_frames: OnFrames, times: np.ndarray | None
) -> Timeline | None:
    """`times`: when the frames are shown; None: as their timestamps say. Returns None if seconds matter and those turn
    out not to be usable."""
    by_number = window.in_frames and hop.in_frames
    slider = _Slider(predictor, Windows(window, hop, predictor.flow.settings.step + 1))
    scored: list[Window] = []
    first, shown = None, list[float]()
    with predictor.open(path) as reader:
        announced = reader.announced_frames
        with contextlib.closing(prefetch(((frame, reader.stamp) for frame in reader), _AHEAD)) as frames:
            for index, (frame, stamp) in enumerate(frames):
                first = stamp if index == 0 else first
                if by_number:
                    shown.append(float(index))
                elif times is not None:
                    shown.append(float(times[min(index, len(times) - 1)]))
                elif stamp is None or first is None or (shown and stamp - first < shown[-1]):
                    return None
                else:
                    shown.append(stamp - first)
                scored += slider.add(frame, shown[-1])
                on_frames(slider.count, announced)
    timing = reader.timing
    if not by_number and times is None and not np.allclose(shown, timing.times, rtol=0, atol=1e-6):
        return None
    scored += slider.finish(float(slider.count) if by_number else timing.duration)
    mean = {name: values / len(scored) for name, values in slider.sums.items()}
    return Timeline(predictor.classes, scored, timing, window, hop, slider.flow.computed, mean, warning_about(reader))


class _Slider:
    """Takes a video frame by frame and scores each window when its frames have come.

    It holds the frames and fields of one window, whatever the length of the video.
    """

    def __init__(self, predictor: Predictor, windows: Windows) -> None:
        self.predictor, self.windows = predictor, windows
        self.frames: dict[int, np.ndarray] = {}
        self.flow = FlowOnDemand(predictor.flow, self.frames)
        self.sums: Logits = {}
        self.count = self.kept_from = 0

    def add(self, frame: np.ndarray, time: float) -> list[Window]:
        """Adds the frame shown at `time`; returns the windows that this settles."""
        self.frames[self.count] = frame
        self.count += 1
        scored = [self._score(span) for span in self.windows.add(time)]
        oldest = self.windows.oldest()
        for index in range(self.kept_from, oldest):
            del self.frames[index]
        self.kept_from = oldest
        self.flow.forget(oldest)
        return scored

    def finish(self, end: float) -> list[Window]:
        """The remaining windows of a video that ends at `end` seconds."""
        return [self._score(span) for span in self.windows.finish(end)]

    def _score(self, span: Span) -> Window:
        start, end = span
        plan = self.predictor.plan(start, end - start)
        logits = self.predictor.logits(plan.pixels(self.frames, self.flow))
        for name, values in logits.items():
            self.sums[name] = self.sums.get(name, 0) + values
        return Window(start, end, probabilities(logits))
