"""How a video is tested (paper.md 4), by name."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from pipelines.errors import UsageError
from pipelines.options import TemporalName, ViewName
from pipelines.wording import plural


@dataclass(frozen=True)
class Protocol:
    """How a video is tested (paper.md 4).

    step      which of the run's networks: a training step, or `late` for the two base streams side by side
    frames    centers spaced evenly over the video
    views     "full": whole frames, fully convolutional; "center", "3", "5": crops; "10": 5 and their mirrors
    mirror    every view also mirrored
    temporal  "sequence": all frames as one sequence; "windows": windows of the T frames of training
    recalibrate_bn  number of training videos that batch norm's statistics are taken from anew; 0: those of training
    """

    step: str
    frames: int
    views: ViewName
    mirror: bool
    temporal: TemporalName
    recalibrate_bn: int = 0

    @property
    def name(self) -> str:
        """The folder under `scores/<run>/`: every part of the protocol, so that no two share one."""
        mirror = "mirror" if self.mirror else "plain"
        statistics = f"-bn{self.recalibrate_bn}" if self.recalibrate_bn else ""
        return f"{self.step}-{self.frames}frames-{self.views}-{mirror}-{self.temporal}{statistics}"

    @classmethod
    def of_paper(cls, step: str) -> Self:
        """The paper's, by which `evaluate` tests where it is told nothing else; a run's headline number."""
        return cls(step, 25, "full", True, "sequence")

    def windows(self, trained_on: int, shortest: int, run: str) -> list[list[int]]:
        """Which of the video's frames go through the network together; it was trained on `trained_on` at once.

        Raises `UsageError` where they are fewer than the `shortest` that the network can take.
        """
        from pipelines.datasets.sampling import windows

        cuts = windows(self.frames, trained_on if self.temporal == "windows" else self.frames)
        if len(cuts[0]) < shortest:
            raise UsageError(
                f"--crops {self.frames}: {self.step} of run {run} pools over {plural(shortest, 'frame')}, give at "
                "least as many"
            )
        return cuts

    def document(self) -> dict[str, Any]:
        """All of it but the step; `recalibrate_bn` only where it was done."""
        parts = asdict(self)
        del parts["step"]
        if not self.recalibrate_bn:
            del parts["recalibrate_bn"]
        return parts
