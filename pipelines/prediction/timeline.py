"""Class over time: a window slides over a video, and each is tested as if it were a clip of its own.

Letters: C classes, T frames.
"""

from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from pipelines.prediction.attention import Attention, AttentionWriter
from pipelines.prediction.predictor import Logits, OnFrames, Predictor, Reader, probabilities, warning_about
from pipelines.prediction.sliding import WindowSlider, slide
from pipelines.prediction.windows import Duration
from pipelines.video.timing import Timing


@dataclass(frozen=True)
class Window:
    """The frames start..end-1 of a video, and each stream's probabilities: [C]."""

    start: int
    end: int
    probabilities: dict[str, list[float]]
    attention: Attention | None = None
    """Where its best class was seen, if that was asked for."""

    @property
    def headline(self) -> list[float]:
        """Of both streams fused, or of the only one."""
        return list(self.probabilities.values())[-1]

    @property
    def winner(self) -> int:
        return int(np.argmax(self.headline))

    @property
    def best(self) -> float:
        """The winner's probability."""
        return self.headline[self.winner]


@dataclass(frozen=True)
class Segment:
    """Neighbouring windows with one winner. Each window stands for the time that is nearer to its middle than to
    another's, so that segments never overlap, however much the windows do."""

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
    threshold: float = 0.0
    """The probability below which a window is part of no segment."""

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
        """In order of time; they follow one another without gaps, except where windows are below `threshold`."""
        segments: list[Segment] = []
        edges, first = self.edges(), 0
        for (winner, is_sure), run in groupby(
            self.windows, key=lambda each: (each.winner, each.best >= self.threshold)
        ):
            shares = [window.best for window in run]
            stop = first + len(shares)
            if is_sure:
                segments.append(Segment(edges[first], edges[stop], self.classes[winner], float(np.mean(shares))))
            first = stop
        return segments


def timeline_of(
    predictor: Predictor,
    path: Path,
    window: Duration,
    hop: Duration,
    on_frames: OnFrames,
    attention: AttentionWriter | None = None,
    threshold: float = 0.0,
) -> Timeline:
    """Predicts each window of a video.

    Args:
        window: The length of a window; the result has that which flow needs where this is less.
        hop: From one window to the next.
        on_frames: Receives the number of decoded frames.
        attention: Stores what the network looks at; None for not.
        threshold: The probability below which a window is part of no segment.

    Raises:
        VideoError: The video cannot be decoded or is too short.
        StorageError: The attention cannot be stored.
    """
    warnings: list[str] = []

    def make() -> WindowSlider[tuple[Logits, Attention | None]]:
        if attention is not None:
            attention.restart()
            return WindowSlider(predictor, attention.look, window, hop)
        return WindowSlider(predictor, lambda plan, pixels: (predictor.logits(pixels), None), window, hop)

    def at_end(reader: Reader) -> None:
        warnings.append(warning_about(reader))

    by_number = window.in_frames and hop.in_frames
    slider, timing = slide(predictor, path, make, on_frames, by_number=by_number, at_end=at_end)
    windows = [
        Window(start, end, probabilities(logits), seen)
        for (start, end), (logits, seen) in zip(slider.spans, slider.values, strict=True)
    ]
    if window.frames(timing.fps) < predictor.least_frames:
        window = Duration(predictor.least_frames, in_frames=True)
    mean = {name: np.mean([logits[name] for logits, _ in slider.values], axis=0) for name in slider.values[0][0]}
    return Timeline(
        predictor.classes, windows, timing, window, hop, slider.flow.computed, mean, warnings[-1], threshold
    )
