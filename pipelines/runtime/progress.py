"""How a stage tells its caller where it stands, without knowing whether anybody draws a bar."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report of a running stage.

    `phase` names what is going on ("extract-flow", "train joint1"); `done` of `total` are counted in `unit`;
    `metrics` are values to show beside the bar (loss, accuracy, failed videos); `message`, where set, is a line worth
    keeping: a failed video, a warning. `even`: whether units take about equally long, so that the time that remains
    follows from the rate. The last report of a phase that succeeds has `done` = `total`.
    """

    phase: str
    done: int
    total: int
    unit: str = "videos"
    metrics: Mapping[str, float | int | str] = field(default_factory=dict)
    message: str = ""
    even: bool = True


def note(message: str) -> Progress:
    """A line worth keeping, whatever is under way."""
    return Progress("", 0, 0, message=message)


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The `on_progress` of a caller who does not want to know."""
