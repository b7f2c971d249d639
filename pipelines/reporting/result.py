"""What a report shows, before it is drawn."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.analysis.calibration import Calibration, MotionEffect
    from pipelines.analysis.comparison import Comparison
    from pipelines.analysis.external import External
    from pipelines.analysis.fusion import WeightSweep
    from pipelines.analysis.published import Published
    from pipelines.evaluation.metrics import ClassMetrics, ConfusedPair, StreamMetrics


@dataclass(frozen=True)
class SplitNumbers:
    """The accuracies of one split's run."""

    split: int
    run: str
    videos: int
    streams: "dict[str, StreamMetrics]"


@dataclass(frozen=True)
class Mistake:
    """A video whose class the headline stream got wrong: probabilities of the class it named and of the true one."""

    split: int
    video: str
    true: str
    predicted: str
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Result:
    """Everything a report shows. Fractions are 0..1; `confusion` counts videos, rows true, columns predicted.

    `videos` were scored; `unscored` others of the same splits were missing or failed, and do not count; `excluded` are
    classes of the data set that the run left out. `streams` are
    means over `splits` of the evaluated streams, in the order appearance, motion, fused, another program's, fused with
    it; `pooled` the same over the videos of several splits together, empty for one split. `confusion`, `confused` (all
    pairs, the most confused first), `mistakes` (the most confident first) and precision, recall and F1 of `per_class`
    are of the `headline` stream. `fusion`, `motion_effects`: empty without two streams. `calibration`: of our own
    streams. `published`, `external`, `comparison`: None where there is nothing of the kind. `files` maps a file's name
    to its path, `provenance` a score file's path to its attributes. `interval_method` says how the intervals of
    `streams` were made.
    """

    name: str
    protocol_name: str
    protocol: dict[str, Any]
    videos: int
    unscored: int
    excluded: tuple[str, ...]
    classes: "tuple[str, ...]"
    headline: str
    streams: "dict[str, StreamMetrics]"
    pooled: "dict[str, StreamMetrics]"
    splits: tuple[SplitNumbers, ...]
    per_class: "tuple[ClassMetrics, ...]"
    confused: "tuple[ConfusedPair, ...]"
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
    motion_effects: "tuple[MotionEffect, ...]"
    fusion: "tuple[WeightSweep, ...]"
    calibration: "dict[str, Calibration]"
    published: "Published | None"
    external: "External | None"
    comparison: "Comparison | None"
    provenance: dict[str, dict[str, Any]]
    output: str
    files: dict[str, str]
    test_set: str = ""
    """In words, what was tested where that is another data set than the run's split."""
    interval_method: "dict[str, str]" = field(default_factory=dict)
