"""Class over time: a window slides over a video, and each is tested as if it had been cut out as a clip of its own.

Letters: C classes, W frames of a window.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipelines.prediction.flow import FlowOnDemand
from pipelines.prediction.lengths import USUAL_FPS, Length
from pipelines.prediction.predictor import Logits, OnFrames, Predictor, probabilities, warning_about
from pipelines.prefetch import prefetch

_AHEAD = 16  # decoded frames that wait while flow and network compute


@dataclass(frozen=True)
class Window:
    """The frames start..end-1 of a video, and each stream's probabilities: [C]."""

    start: int
    end: int
    probabilities: dict[str, list[float]]

    @property
    def headline(self) -> list[float]:
        """Of the stream a single number stands for: fused, otherwise the only one."""
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
    """All windows of a video. `frames` and `fps` are the video's; `fps` is 25 where the container knows none."""

    classes: list[str]
    windows: list[Window]
    frames: int
    fps: float
    window_frames: int
    hop_frames: int
    pairs: int
    """Flow fields computed."""
    mean: Logits
    """The mean logits of all windows."""
    warning: str = ""
    """What is wrong with the video."""

    def edges(self) -> list[float]:
        """When one window gives way to the next, in seconds, both ends included: one more than windows."""
        middles = [(window.start + window.end) / 2 for window in self.windows]
        return [frame / self.fps for frame in (0, *((a + b) / 2 for a, b in pairwise(middles)), self.frames)]

    def segments(self) -> list[Segment]:
        """The video's time from beginning to end."""
        found: list[Segment] = []
        edges = self.edges()
        for first, stop in _runs([window.winner for window in self.windows]):
            winner = self.windows[first].winner
            mean = np.mean([window.headline[winner] for window in self.windows[first:stop]])
            found.append(Segment(edges[first], edges[stop], self.classes[winner], float(mean)))
        return found


def _runs(values: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, stop) of each run of equal values."""
    first = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[first]:
            yield first, place
            first = place


def slide(predictor: Predictor, path: Path, window: Length, hop: Length, on_frames: OnFrames) -> Timeline:
    """Raises `VideoError` where the video cannot be decoded or is too short."""
    with predictor.open(path) as reader:
        fps, announced = reader.fps or USUAL_FPS, reader.announced_frames
        length = max(window.frames(fps), predictor.flow.step + 1)
        slider = _Slider(predictor, length, min(hop.frames(fps), length))
        scored: list[Window] = []
        with contextlib.closing(prefetch((frame for frame in reader), _AHEAD)) as frames:
            for frame in frames:
                scored += slider.add(frame)
                on_frames(slider.count, announced)
        scored += slider.finish()
    mean = {name: values / len(scored) for name, values in slider.sums.items()}
    return Timeline(
        predictor.classes,
        scored,
        slider.count,
        fps,
        length,
        slider.hop,
        slider.flow.computed,
        mean,
        warning_about(reader),
    )


class _Slider:
    """Takes a video frame by frame and scores each window when its last frame has come.

    It holds the frames and fields of one window, whatever the length of the video.
    """

    def __init__(self, predictor: Predictor, length: int, hop: int) -> None:
        self.predictor, self.length, self.hop = predictor, length, hop
        self.frames: dict[int, np.ndarray] = {}
        self.flow = FlowOnDemand(predictor.flow, self.frames)
        self.sums: Logits = {}
        self.count = self.next_start = self.covered = 0

    def add(self, frame: np.ndarray) -> list[Window]:
        """The window that ends with this frame, if one does."""
        self.frames[self.count] = frame
        self.count += 1
        self.frames.pop(self.count - 1 - self.length, None)
        self.flow.forget(self.count - self.length)
        if self.count < self.next_start + self.length:
            return []
        self.next_start += self.hop
        return [self._score(self.count - self.length)]

    def finish(self) -> list[Window]:
        """The window that ends with the video, unless there has been one."""
        return [] if self.covered == self.count else [self._score(max(0, self.count - self.length))]

    def _score(self, start: int) -> Window:
        self.covered = self.count
        needs = self.predictor.needs(start, self.count - start)
        logits = self.predictor.logits(needs.pixels(self.frames, self.flow))
        for name, values in logits.items():
            self.sums[name] = self.sums.get(name, 0) + values
        return Window(start, self.count, probabilities(logits))
