"""What the stage `predict` returns. Letters: C classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.evaluation.intervals import Interval, wilson
from pipelines.storage.atomic import write_text
from pipelines.storage.failures import Failure, csv_text

if TYPE_CHECKING:
    from pipelines.prediction.timeline import Segment

BEST = 5


@dataclass(frozen=True)
class ClassProbability:
    class_name: str
    probability: float


@dataclass(frozen=True)
class TimelineFiles:
    """A summary of a video's class over time; `files` hold all of it: csv, json, png, segments.csv, srt, and
    with `overlay` mp4."""

    segments: "list[Segment]"
    windows: int
    window: str
    """Its length as given: 2 s, or 50 frames."""
    hop: str
    window_frames: int
    """The same in frames, at the video's mean rate."""
    hop_frames: int
    files: dict[str, Path]


@dataclass(frozen=True)
class Prediction:
    """The classes of one video. With a timeline, `logits` are the means of its windows."""

    video: str
    class_name: str | None
    """The class it was given under, if any."""
    frames: int
    fps: float
    """Frames over duration."""
    top: list[ClassProbability]
    """The five best classes of both streams fused, or of the only one."""
    probabilities: dict[str, list[float]]
    """Of each stream and of both fused: the softmax of `logits`, [C] in the order of the result's `classes`."""
    logits: dict[str, list[float]]
    """The scores that `evaluate` stores: means before softmax."""
    pairs: int
    """Pairs of frames whose flow was computed."""
    timeline: TimelineFiles | None = None
    right: bool | None = None
    """Whether the best class is the one it was given under; None if it has none, or one unknown to the run."""
    warning: str = ""
    """What is wrong with the video, though it was predicted: `damaged: 3 of 100 frames`."""

    @property
    def seconds(self) -> float:
        """The video's length."""
        return self.frames / self.fps


@dataclass(frozen=True)
class Truth:
    """The predictions compared with the classes that the videos were given under."""

    right: int
    """Videos whose class was recognised."""
    labelled: int
    """Videos whose class the run knows."""
    accuracy: float
    """`right` / `labelled`."""
    unknown: dict[str, int]
    """The other classes, each with its number of videos; they do not count."""
    accuracy_interval: Interval
    """Wilson's, of 95 %."""
    trained_on: int = 0
    """Those of `labelled` that have the names of videos that the run was trained on."""

    @classmethod
    def of(cls, predictions: "Sequence[Prediction]", trained_on: int = 0) -> "Truth | None":
        """None if no video has a class that the run knows."""
        known = [prediction.right for prediction in predictions if prediction.right is not None]
        if not known:
            return None
        others = [one.class_name for one in predictions if one.right is None and one.class_name is not None]
        right, labelled = sum(known), len(known)
        return cls(right, labelled, right / labelled, dict(Counter(others)), wilson(right, labelled), trained_on)


@dataclass(frozen=True)
class Result:
    """Predictions in the order of the videos given; `failures` lists the others."""

    run: str
    step: str
    protocol: dict[str, object]
    classes: list[str]
    predictions: list[Prediction]
    failures: list[Failure]
    seconds: float
    """Taken by everything after the network was loaded."""
    video_seconds: float
    """The length of all videos predicted."""
    video_seconds_per_second: float
    truth: Truth | None = None
    """The accuracy, if any video has a class that the run knows."""


def write_csv(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Writes a row a video: its path, the class it was given under, the best class with its probability, whether that
    is right, and the probability of each class under the class's name. A cell that is not known is empty.

    Raises:
        StorageError: The file cannot be written.
    """
    rows = []
    for one in predictions:
        numbers = [f"{probability:.6f}" for probability in list(one.probabilities.values())[-1]]
        best, right = one.top[0], "" if one.right is None else str(one.right).lower()
        rows.append([one.video, one.class_name or "", best.class_name, f"{best.probability:.6f}", right, *numbers])
    write_text(path, csv_text(["video", "true", "predicted", "probability", "correct", *classes], rows))
