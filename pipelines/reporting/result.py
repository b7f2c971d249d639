"""What a report shows, before it is drawn."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.evaluation.metrics import ClassMetrics, ConfusedPair, StreamMetrics
    from pipelines.evaluation.scores import Stream


@dataclass(frozen=True)
class SplitNumbers:
    """The accuracies of one split's run."""

    split: int
    run: str
    videos: int
    streams: "dict[Stream, StreamMetrics]"


@dataclass(frozen=True)
class Result:
    """Everything a report shows. Fractions are 0..1; `confusion` counts videos, rows true, columns predicted.

    `videos` were scored; `unscored` others of the same splits were missing or failed, and do not count. `streams` are
    means over `splits` of the evaluated streams, in the order appearance, motion, fused. `confusion`, `confused` (all
    pairs, the most confused first) and precision, recall and F1 of `per_class` are of the `headline` stream. `files`
    maps a file's name to its path, `provenance` a score file's path to its attributes.
    """

    name: str
    protocol_name: str
    protocol: dict[str, Any]
    videos: int
    unscored: int
    classes: "tuple[str, ...]"
    headline: "Stream"
    streams: "dict[Stream, StreamMetrics]"
    splits: tuple[SplitNumbers, ...]
    per_class: "tuple[ClassMetrics, ...]"
    confused: "tuple[ConfusedPair, ...]"
    confusion: tuple[tuple[int, ...], ...]
    provenance: dict[str, dict[str, Any]]
    output: str
    files: dict[str, str]
