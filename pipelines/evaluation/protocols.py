"""How a video is tested (paper.md 4), by name."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from pipelines.errors import UsageError
from pipelines.interface.options import EQUAL_WEIGHTS, CheckpointName, HeldOut, TemporalName, ViewName
from pipelines.interface.wording import plural
from pipelines.training.recipes import Step


def default_temporal(step: str) -> TemporalName:
    """How the frames of a test lie in time where it is not told: the student sees motion only between close frames."""
    return "clips" if step == "student" else "sequence"


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
        return cls(step, 25, "full", mirrored, default_temporal(step))

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
        """All of it but the step; `recalibrate_bn` only where it was done, `checkpoint` only where it is not the last,
        `fusion_weight` only where both streams do not have the same."""
        parts = asdict(self)
        del parts["step"]
        if not self.recalibrate_bn:
            del parts["recalibrate_bn"]
        if self.checkpoint == "last":
            del parts["checkpoint"]
        if self.fusion_weight == EQUAL_WEIGHTS:
            del parts["fusion_weight"]
        return parts
