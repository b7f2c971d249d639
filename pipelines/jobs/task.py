"""What the stages that process many videos share: the task of one video, the job of all, and its result."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pipelines.errors import VideoError
from pipelines.runtime.growth import Growth
from pipelines.runtime.progress import OnProgress
from pipelines.runtime.worker_pool import Limits, Report, memory_share
from pipelines.sources.videos import Account, VideoSource
from pipelines.storage.failures import Failure
from pipelines.storage.workspace import Workspace


class VideoTask(Protocol):
    """One video to process: its source, the file to make, and what its stage needs."""

    @property
    def source(self) -> VideoSource: ...

    @property
    def target(self) -> Path: ...


Task = TypeVar("Task", bound=VideoTask)


@dataclass(frozen=True)
class Probe:
    """What was learned from a part of one video."""

    frames: int
    """Frames, or pairs, of the whole video."""
    seconds: float = 0.0
    """What the whole video would take one process; 0: not measured."""
    bytes: float = 0.0
    """What the whole video would take on disk."""


@dataclass(frozen=True)
class Job(Generic[Task]):
    """One call of a stage that processes many videos, each in a worker process."""

    stage: str
    unit: str
    """What is counted within a video: frames or pairs."""
    workspace: Workspace
    folder: Path
    """Where the results go."""
    store: Callable[[Task, Report], int]
    """Processes one video and returns its number of units. Importable by name, as is `probe`."""
    probe: Callable[[Task, float | None, Report], Probe]
    """Measures a part of one video for a dry run. The number says where in the video, from 0 to 1; None: only count
    its units."""
    workers: int
    dry_run: bool
    on_progress: OnProgress
    store_segments: Callable[[Sequence[Task], Report], list[int | VideoError]] | None = None
    """Processes segments of one video in one pass; what `store` returns or raises, for each. None: none come."""
    patience: float = Limits.patience
    """Seconds without progress after which a video fails."""
    uses_gpu: bool = False
    decodes: bool = False
    """Whether sources are video files, of which only the container says how many frames they have."""
    short_side: int | None = None
    """Of the pictures, pixels; None: the default rule of `stored_size`, or size is not a matter of options."""
    growth: Growth | None = None
    """How it is found how many of the workers are best; None: all of them."""

    @property
    def size(self) -> str:
        """What was said of the pictures' size, which has to be the same of all that is stored at one time; "" where the
        size is not a matter of options."""
        return f"--short-side {self.short_side or 'not given'}" if self.decodes else ""

    @property
    def limits(self) -> Limits:
        """What one video may take."""
        # A GPU's driver maps more memory than anything takes.
        return Limits(self.patience, None if self.uses_gpu else memory_share(self.workers))

    def failure(self, video: VideoSource, reason: str) -> Failure:
        """The row of `failures.csv` for a video that cannot be processed."""
        return Failure(self.stage, video.class_name, video.video, str(video.path), reason)


def by_video(tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
    """Tasks as they are shared: all segments of one video together, and any other task by itself."""
    together: dict[Path | str, list[Task]] = {}
    for task in tasks:
        together.setdefault(task.source.path if task.source.segment else task.source.id, []).append(task)
    return [tuple(each) for each in together.values()]


def what_are(tasks: Iterable[VideoTask]) -> str:
    """What these are tasks of, in a word: video or segment."""
    return "segment" if any(task.source.segment for task in tasks) else "video"


# ------------------------------------------------------------------ results


@dataclass(frozen=True)
class Estimate:
    """What a run would cost."""

    videos: int
    frames: int
    gigabytes: float
    hours: float
    measured_videos: int
    """Videos from which the time and size of a frame were taken; 0: none could be, and both are unknown."""
    free_gigabytes: float = 0.0
    """Of the disk that the result goes to; 0: not known."""
    frames_are_exact: bool = False
    """Whether all were counted: none is what a container says, or the mean of other videos'."""
    failures: list[Failure] = field(default_factory=list)
    """The videos looked at that would fail; recorded nowhere."""


@dataclass(frozen=True)
class Clipping:
    """What a bound does to the flow that was made."""

    bound: float
    """Pixels."""
    clipped_share: float
    """Of the vectors."""
    largest: float
    """The longest component of any vector, pixels."""
    suitable_bound: float
    """Clips no more than 0.1 % of the vectors."""


@dataclass(frozen=True)
class Proposal:
    """Settings of `extract-flow` that suit the videos looked at."""

    videos: int
    """Number of videos looked at, spread over all."""
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


@dataclass(frozen=True, kw_only=True)
class ExtractResult:
    """What a job did."""

    stage: str
    done: int = 0
    skipped: int
    """Videos that were already done."""
    failed: int
    ignored: int
    """Files without a video's or picture's name."""
    unit: str
    """frames or pairs"""
    units: int = 0
    units_per_second: float = 0.0
    seconds: float = 0.0
    changed: list[str] = field(default_factory=list)
    """Ids of videos whose file is no longer what was stored: they are made again."""
    unlisted: list[str] = field(default_factory=list)
    """Ids of stored segments of these videos that VIDEOS does not list, as after a start or an end was corrected."""
    misfits: int = 0
    """Videos whose flow is of another size than their new frames, or whose frames than their new flow."""
    failures: list[Failure] = field(default_factory=list)
    """All rows of the stage in `failures.csv`; of a dry run, which records none, the videos that would fail."""
    clipping: Clipping | None = None
    """Of the flow that was made now."""
    proposal: Proposal | None = None
    """Of a dry run of `extract-flow`."""
    estimate: Estimate | None = None
    """Of a dry run."""
    gpu_waited: float | None = None
    """The least share of the time in which a GPU had nothing to compute; None where none computes."""
    gpu_processes: int | None = None
    """That shared a GPU at last; None where none computes. Under torchrun rank 0's, and so are the rates."""
    process_rates: dict[int, float] = field(default_factory=dict)
    """Units a second by number of processes, of the numbers that were measured; the highest rate's was kept."""
    gpu_mixed: bool = False
    """Whether they did not compute at last, but one more for all of them."""
    mixed_rate: float | None = None
    """Units a second with that one, where it was measured."""
    broken_times: int = 0
    """Of the videos made now, those whose timestamps cannot be true: their frames have the times of the container's
    average rate."""
    what: str = "video"
    """What is counted as done, skipped and failed: video or segment."""
    found: Account | None = None
    """How VIDEOS was read; None for folders of pictures."""
