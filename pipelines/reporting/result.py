"""What a report shows, before it is drawn: the terminal, the tables, the figures and the page all draw from this."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.datasets.split_lists import NO_GROUPS
from pipelines.interface.wording import plural

if TYPE_CHECKING:
    from pipelines.analysis.calibration import Calibration, MotionEffect
    from pipelines.analysis.comparison import Comparison
    from pipelines.analysis.external import External
    from pipelines.analysis.fusion import WeightSweep
    from pipelines.analysis.label_issues import LabelIssue
    from pipelines.analysis.near_duplicates import NearDuplicate
    from pipelines.analysis.published import Published
    from pipelines.datasets.class_balance import ClassBalance
    from pipelines.evaluation.metrics import ClassFigure, ClassMetrics, ConfusedPair, StreamMetrics

ACCURACIES = {"top1": "top-1", "top5": "top-5", "mean_class_accuracy": "mean class"}
"""The accuracies of `StreamMetrics`, and what they are called."""
_TEMPORAL = {
    "sequence": "one sequence",
    "windows": "windows as long as in training",
    "clips": "clips of frames as close together as in training",
}


@dataclass(frozen=True)
class SplitNumbers:
    """The accuracies of one split's run."""

    split: int
    run: str
    videos: int
    streams: "dict[str, StreamMetrics]"


class AccuracyRow(NamedTuple):
    """A row of the table of accuracies; `split` is its number, "mean" or "pooled"."""

    split: str
    run: str
    stream: str
    videos: int
    metrics: "StreamMetrics"


@dataclass(frozen=True)
class Mistake:
    """A video whose class the headline stream got wrong, with the probabilities of both classes."""

    split: int
    video: str
    true: str
    predicted: str
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Result:
    """Everything a report shows. Fractions are 0 to 1."""

    name: str
    """The run, or the pattern of several splits' runs."""
    protocol_name: str
    protocol: dict[str, Any]
    videos: int
    """How many were scored."""
    unscored: int
    """Other videos of the same splits, which were missing or failed and do not count."""
    excluded: tuple[str, ...]
    """Classes of the data set that the run left out."""
    classes: tuple[str, ...]
    balance: "ClassBalance"
    """Of the test videos, of all splits together."""
    headline: str
    """The headline stream, whose accuracy is given where there is room for one number."""
    streams: "dict[str, StreamMetrics]"
    """Means over `splits`, in the order appearance, motion, fused, another program's, fused with it."""
    pooled: "dict[str, StreamMetrics]"
    """The same over the videos of several splits together; empty for one split."""
    splits: tuple[SplitNumbers, ...]
    per_class: "tuple[ClassMetrics, ...]"
    """In class order; `class_figures` are those of the headline stream."""
    confused: "tuple[ConfusedPair, ...]"
    """All pairs that the headline stream confused, the most confused first."""
    confusion: tuple[tuple[int, ...], ...]
    """Numbers of videos, of the headline stream: rows true, columns predicted."""
    mistakes: tuple[Mistake, ...]
    """Of the headline stream, the most confident first."""
    label_issues: "tuple[LabelIssue, ...]"
    """Videos that the headline stream takes for likely mislabelled, the most suspect first."""
    motion_effects: "tuple[MotionEffect, ...]"
    """The class that gains most first; empty without both streams."""
    fusion: "tuple[WeightSweep, ...]"
    """Empty without both streams."""
    calibration: "dict[str, Calibration]"
    """Of our own streams."""
    published: "Published | None"
    external: "External | None"
    comparison: "Comparison | None"
    provenance: dict[str, dict[str, Any]]
    """The attributes of each score file, by its path."""
    output: str
    files: dict[str, str]
    """The path of each file written, by its name."""
    test_set: str = ""
    """In words, what was tested where that is another data set than the run's split."""
    training: tuple[str, ...] = ()
    """Steps that did not learn, or overfit, as far as the log of their training tells."""
    interval_method: "dict[str, str]" = field(default_factory=dict)
    """How the intervals of `streams` were made."""
    split_set: str = ""
    """The set of splits that these are of; "" for the workspace's first."""
    grouped: bool = True
    """False where splits were made without knowing of groups."""
    near_duplicates: "tuple[NearDuplicate, ...] | None" = None
    """Videos with near-identical frames, those on both sides of a split first; None if nobody looked."""
    near_duplicate_groups: "dict[str, str]" = field(default_factory=dict)
    """The group of each video, by id, where near duplicates have one; empty where there are none."""
    splits_left_out: tuple[int, ...] = ()
    """Those of the set that were not tested, of a report of all."""

    @property
    def several(self) -> bool:
        """Whether these are means of several splits."""
        return len(self.splits) > 1

    @property
    def of_splits(self) -> str:
        """The splits in words."""
        of_set = f" of {self.split_set}" if self.split_set else ""
        return (f"mean of {len(self.splits)} splits" if self.several else f"split {self.splits[0].split}") + of_set

    @property
    def citation(self) -> str:
        """How the numbers came about: a line that can stand below any of them."""
        from pipelines import __version__

        test = self.protocol
        parts = [f"{plural(self.videos, 'test video')}, {self.of_splits}"]
        if "frames" in test:
            views = {"full": "whole frames", "center": "center crops"}.get(test["views"], f"{test['views']} crops")
            mirror = " and their mirror images" if test["mirror"] else ""
            together = _TEMPORAL.get(test["temporal"], test["temporal"])
            number = f"up to {test['frames']}" if test["temporal"] == "clips" else test["frames"]
            parts.append(f"{number} frames a video as {together}, {views}{mirror}")
        other = self.external
        for sweep in self.fusion:
            if other is None or sweep.first != other.name:
                parts.append(f"fused with {sweep.first} at {sweep.used_in_words}")
        if other is not None:
            parts.append(f"fused with {other.name}, whose weight is {other.weight:g}")
        return " · ".join([*parts, f"protocol {self.protocol_name}", f"stres {__version__}"])

    @property
    def accuracies(self) -> dict[str, str]:
        """Those of `ACCURACIES` that are defined, the one for where there is room for one number first: top-1, but of
        unbalanced classes their mean."""
        metrics = self.streams[self.headline]
        defined = [name for name in ACCURACIES if getattr(metrics, name) is not None]
        return {name: ACCURACIES[name] for name in sorted(defined, key=lambda name: name != self.first_accuracy)}

    @property
    def first_accuracy(self) -> str:
        return "mean_class_accuracy" if self.balance.unbalanced else "top1"

    @property
    def class_figures(self) -> "dict[str, ClassFigure]":
        """The figures of `per_class` that are the headline stream's, by name."""
        from pipelines.evaluation.metrics import CLASS_FIGURES

        return CLASS_FIGURES

    @property
    def class_figures_named(self) -> str:
        """`%: precision, recall and F1 of fused`, and which of them are no shares."""
        figures = self.class_figures.values()
        *others, last = (figure.title for figure in figures)
        numbers = ", ".join(figure.title for figure in figures if not figure.is_share)
        unit = f"% but for {numbers}" if numbers else "%"
        return f"{unit}: {', '.join(others)} and {last} of {self.headline}"

    @property
    def accuracy_rows(self) -> list[AccuracyRow]:
        """Every split and stream; then, of several splits, the rows of their mean and of all their videos pooled."""
        groups = [(str(split.split), split.run, split.videos, split.streams) for split in self.splits]
        if self.several:
            groups += [("mean", self.name, self.videos, self.streams), ("pooled", self.name, self.videos, self.pooled)]
        return [
            AccuracyRow(split, run, stream, videos, metrics)
            for split, run, videos, streams in groups
            for stream, metrics in streams.items()
        ]

    @property
    def notices(self) -> list[str]:
        """What a reader has to know before the numbers."""
        notices = [self.test_set] if self.test_set else []
        if left := self.splits_left_out:
            splits = "split" if len(left) == 1 else "splits"
            notices.append(f"without {splits} {', '.join(map(str, left))}, of which no run was tested")
        if self.unscored:
            notices.append(f"{plural(self.unscored, 'test video was', 'test videos were')} not scored and do not count")
        if absent := sum(row.support == 0 for row in self.per_class):
            classes, have = plural(len(self.classes), "class"), "has" if absent == 1 else "have"
            notices.append(f"{absent} of {classes} {have} no test video: mean class is of the others")
        if single := sum(row.support == 1 for row in self.per_class):
            classes = plural(single, "class has", "classes have")
            notices.append(f"{classes} a single test video: right in 0 or 100 %, with as much weight in the mean class")
        if not self.grouped:
            notices.append(NO_GROUPS)
        if self.excluded:
            notices.append(f"without the classes {', '.join(self.excluded)} (--exclude-class)")
        if leaks := len({(one.first, split) for one in self.near_duplicates or () for split in one.leaks}):
            tests = plural(leaks, "test is", "tests are")
            notices.append(f"{tests} of a video whose near duplicate was trained on (near_duplicates.csv)")
        notices += self.training
        return notices

    def motion(self, change: int) -> "list[MotionEffect]":
        """The classes that motion helps (`change` 1) or hurts (-1), the most changed first."""
        return [effect for effect in self.motion_effects[::change] if change * effect.difference > 0]
