"""How a video is tested (paper.md 4): by name, and as it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Self

from pipelines.errors import UsageError
from pipelines.interface import options
from pipelines.interface.options import EQUAL_WEIGHTS, CheckpointName, HeldOut, Option, TemporalName, ViewName
from pipelines.interface.wording import plural
from pipelines.training.recipes import Step
from pipelines.training.runs import Chosen, trained_with_mirrors


def default_temporal(step: str) -> TemporalName:
    """How the frames of a test lie in time where it is not told: the student sees motion only between close frames."""
    return "clips" if step == "student" else "sequence"


CROPS = 25  # frames of a video in the paper's test
IMPORTED = "imported"  # the key of the protocol of another program's scores, of which nothing else is known


@dataclass(frozen=True)
class Protocol:
    """How a video is tested (paper.md 4)."""

    step: str
    """Which of the run's networks: a training step, or `late` for the two base streams side by side."""
    frames: int
    """Centers spaced evenly over the video, or in clips that are."""
    views: ViewName
    """ "full": whole frames, fully convolutional; "center", "3", "5": crops; "10": 5 and their mirror images."""
    mirror: bool
    """Every view also mirrored."""
    temporal: TemporalName
    """ "sequence": all frames as one sequence; "windows": windows of the T frames of training; "clips": clips of T
    frames as close together as in training."""
    recalibrate_bn: int = 0
    """Number of training videos on which batch norm's statistics are re-estimated; 0: those of training are used."""
    checkpoint: CheckpointName = "last"
    """Which of the network's weights."""
    fusion_weight: float | HeldOut = EQUAL_WEIGHTS
    """Weight of appearance in the fused scores; "held-out": chosen on the videos held out of training."""

    @property
    def name(self) -> str:
        """The folder under `scores/<run>/`: every part of the protocol, so that no two share one."""
        mirror = "mirror" if self.mirror else "plain"
        statistics = f"-bn{self.recalibrate_bn}" if self.recalibrate_bn else ""
        best = "-best" if self.checkpoint == "best" else ""
        fusion = ""
        if self.fusion_weight != EQUAL_WEIGHTS:
            chosen = isinstance(self.fusion_weight, str)
            fusion = f"-fusion-{self.fusion_weight}" if chosen else f"-fusion{float(self.fusion_weight)}"
        return f"{self.step}-{self.frames}frames-{self.views}-{mirror}-{self.temporal}{statistics}{best}{fusion}"

    @classmethod
    def of_paper(cls, step: str, *, mirrored: bool = True) -> Self:
        """The paper's, by which `evaluate` tests where it is told nothing else; a run's headline number. Without
        mirrors for a network that was trained without, and of clips for the student."""
        return cls(step, CROPS, "full", mirrored, default_temporal(step))

    def clip(self, trained_as: Step) -> tuple[int, int] | None:
        """The frames of a clip and their distance, for a network that was trained so; None without clips."""
        return (trained_as.frames, sum(trained_as.stride) // 2) if self.temporal == "clips" else None

    def windows(self, trained_on: int, shortest: int, run: str) -> list[list[int]]:
        """Tells which of the video's frames go through the network together.

        Args:
            trained_on: How many frames went through it together in training.
            shortest: The fewest that it can take.
            run: Its run's name, for the message.

        Raises:
            UsageError: They are fewer than `shortest`.
        """
        from pipelines.datasets.sampling import clips_of, windows

        if self.temporal == "clips":
            starts = range(0, clips_of(self.frames, trained_on) * trained_on, trained_on)
            return [list(range(start, start + trained_on)) for start in starts]
        cuts = windows(self.frames, trained_on if self.temporal == "windows" else self.frames)
        if len(cuts[0]) < shortest:
            raise UsageError(
                f"--crops {self.frames}: {self.step} of run {run} pools over {plural(shortest, 'frame')}, give at "
                "least as many"
            )
        return cuts

    def document(self) -> dict[str, Any]:
        """All of it but the step; what has a default only where it is another."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in vars(self).items() if name != "step" and value != usual[name]}


@dataclass(frozen=True, kw_only=True)
class ProtocolSettings:
    """What `evaluate`, `predict` and `extract-features` are asked for of a test."""

    crops: Annotated[int | None, Option(metavar="N", minimum=1)] = None
    """Frames per video, spaced evenly."""
    views: ViewName = "full"
    """full (whole frames), center, 3, 5, or 10 crops (5 and their mirror images)."""
    mirror: options.Mirror = None
    temporal: options.Temporal = None

    def __post_init__(self) -> None:
        options.check(self)
        if "10" in self.all_views and self.mirror is False:
            raise UsageError("--views 10 is five crops and their mirrors: without mirrors it is --views 5")

    @property
    def all_views(self) -> Sequence[ViewName]:
        return (self.views,)

    @property
    def all_temporals(self) -> Sequence[TemporalName | None]:
        return (self.temporal,)

    def protocols(self, step: str, *, mirrored: bool = True, crops: int = CROPS) -> list[Protocol]:
        """Every combination of views and cuts over time: whole frames and ten crops come with mirrors unless told
        otherwise.

        Args:
            step: The network to test.
            mirrored: Whether it was trained with mirrors; without them it is not tested with them either.
            crops: How many frames where the settings do not say.

        Raises:
            UsageError: `--views 10`, which are mirrors by half, of a network that was trained without.
        """
        if "10" in self.all_views and self.mirror is None and not mirrored:
            raise UsageError(
                f"--views 10 is five crops and their mirrors, and {step} was trained without mirrors: give --views 5, "
                "or --mirror yes"
            )
        return [
            Protocol(
                step,
                crops if self.crops is None else self.crops,
                views,
                self.mirror if self.mirror is not None else mirrored and views in ("full", "10"),
                temporal or default_temporal(step),
            )
            for views in self.all_views
            for temporal in self.all_temporals
        ]

    def protocol_for(self, chosen: Chosen, crops: int) -> Protocol:
        """The first of them for a run's network and its weights, by how that was trained."""
        mirrored = trained_with_mirrors(chosen.run.config(), chosen.step)
        found = self.protocols(chosen.step, mirrored=mirrored, crops=crops)
        return replace(found[0], checkpoint=chosen.run.checkpoint)
