"""Progress reports of a stage to its caller."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report of a running stage. The last report of a phase that succeeds has `done` = `total`."""

    phase: str
    """What is going on: "extract-flow", "train joint1"."""
    done: int
    total: int
    unit: str = "videos"
    """What `done` and `total` count."""
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    """Values to show beside the bar: loss, accuracy, failed videos."""
    message: str = ""
    """A line to keep: a failed video, a warning."""
    even: bool = True
    """Whether units take about equally long, so that the remaining time follows from the rate."""


def note(message: str) -> Progress:
    """A line to keep, whatever is going on."""
    return Progress("", 0, 0, message=message)


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The `on_progress` of a caller who needs none."""
