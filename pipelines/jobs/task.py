"""What the stages share that work through many videos: one video's task, and the result of all."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from pipelines.jobs.dry_run import Estimate
from pipelines.sources.videos import Account, VideoSource
from pipelines.storage.failures import Failure


class ExtractTask(Protocol):
    """One video to extract: where from and where to, beside whatever its stage needs."""

    @property
    def source(self) -> VideoSource: ...

    @property
    def target(self) -> Path: ...


Task = TypeVar("Task", bound=ExtractTask)


@dataclass(frozen=True)
class ExtractResult:
    """What an extracting stage did. `failures` are all rows of the stage that remain in `failures.csv`."""

    stage: str
    done: int
    skipped: int
    failed: int
    ignored: int
    unit: str
    """frames or pairs"""
    units: int
    units_per_second: float
    seconds: float
    changed: list[str] = field(default_factory=list)
    """Ids of videos whose file is no longer what was stored: they are made again."""
    failures: list[Failure] = field(default_factory=list)
    clipping: "Clipping | None" = None
    """Of the flow that was made now."""
    proposal: "Proposal | None" = None
    """Of a dry run of `extract-flow`."""
    estimate: Estimate | None = None
    """Of a dry run, which does nothing and records no failure: `failures` are those of videos that a run would fail."""
    found: Account | None = None
    """How VIDEOS was read; None for folders of pictures."""


@dataclass(frozen=True)
class Clipping:
    """What a bound does to the flow that was made."""

    bound: float
    """Pixels."""
    clipped_share: float
    """Of the vectors."""
    largest: float
    """The longest component of any, pixels."""
    suitable_bound: float
    """Clips no more than 0.1 % of the vectors."""


@dataclass(frozen=True)
class Proposal:
    """Settings of `extract-flow` that suit the videos looked at."""

    videos: int
    """From how many, spread over all."""
    method: str
    bound: float
    """Pixels."""
    short_side: int
    """Pixels: of most of the videos as they would be stored."""
    short_sides: tuple[int, int]
    """The smallest and the largest of them."""
    clipping: Clipping
    """What the bound asked for does."""
    hours: dict[str, float]
    """What the method asked for would take, and the faster one where it was measured."""
