"""What an extracting stage would cost: some videos counted, fewer measured, by the processes of a real run."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pipelines.errors import MissingError
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Limits, Report, run_tasks, usual_limits
from pipelines.sources.videos import VideoSource
from pipelines.storage.failures import Failure


class _OfOneVideo(Protocol):
    @property
    def source(self) -> VideoSource: ...


Task = TypeVar("Task", bound=_OfOneVideo)

NOT_THERE = "the file does not exist"
_COUNTED = 200
# Time and size of a pair differ by a factor of two between videos: of 24, the mean is known to about a tenth.
_MEASURED = 24
_MEASURED_A_WORKER = 2  # so that most of the time all work at once, as they will
_FEWEST, _SECONDS = 6, 90.0  # where flow is slow, no more are measured than these once this long has passed
_ORDER, _PLACE = 0.618, 0.414  # the multiples of either, modulo 1, are spread evenly and know nothing of the other's


@dataclass(frozen=True)
class Estimate:
    """What a run would cost, from the containers of some videos and pieces of fewer."""

    videos: int
    frames: int
    gigabytes: float
    hours: float
    measured_videos: int
    """From how many videos the time and size of a frame were taken; 0: none could be, and both are unknown."""
    failures: list[Failure] = field(default_factory=list)
    """The videos looked at that a run would fail, and those under which a process died; recorded nowhere."""


@dataclass(frozen=True)
class Probe:
    """What was learnt from one video."""

    frames: int
    seconds: float = 0.0
    """What all of it would take one process, from what was measured of it; 0: not measured."""
    bytes: float = 0.0
    """What all of it would take on disk."""


def estimate(
    function: Callable[[tuple[Task, float | None], Report], Probe],
    to_do: Sequence[Task],
    *,
    workers: int,
    limits: Limits | None = None,
    stage: str,
    on_probe: Callable[[Probe], None] = lambda probe: None,
    on_progress: OnProgress,
) -> Estimate:
    """Counts the frames of up to 200 of the videos, spread evenly, and measures 24 or more; writes nothing.

    `function((task, place), report)` probes one video, in a process as a real run would; `place`, from 0 to 1, says
    where in the video to measure, None to count only. Before anything else it is to report 0 units: what passes until
    then is the start of the processes, which counts once and not for every video. `on_probe` is given what each
    measured. Videos that do not exist are failures, and not sampled; raises `MissingError` where there are no others.
    Under torchrun rank 0 probes, and
    the estimate is that of all ranks, each on cores and GPU of its own.
    """
    limits = limits or usual_limits(workers)
    return ranks().broadcast_from_rank0(
        lambda: _estimate(function, to_do, workers, limits, stage, on_probe, on_progress)
    )


def _estimate(
    function: Callable[[tuple[Task, float | None], Report], Probe],
    to_do: Sequence[Task],
    workers: int,
    limits: Limits,
    stage: str,
    on_probe: Callable[[Probe], None],
    on_progress: OnProgress,
) -> Estimate:
    failures = [_failure(stage, task, NOT_THERE) for task in to_do if not os.path.exists(task.source.path)]
    if failures:
        if len(failures) == len(to_do):
            raise MissingError(
                f"none of the {len(to_do)} videos to do exists, for example {failures[0].path}: check VIDEOS, and the "
                "folder that the paths of a list are relative to"
            )
        to_do = [task for task in to_do if os.path.exists(task.source.path)]
    measured = _spread(range(len(to_do)), max(_MEASURED, _MEASURED_A_WORKER * workers))
    counted = sorted(set(_spread(range(len(to_do)), _COUNTED)).difference(measured))
    tasks: list[tuple[Task, float | None]] = [(to_do[i], None) for i in counted]
    tasks += [(to_do[measured[k]], k * _PLACE % 1) for k in sorted(range(len(measured)), key=lambda k: k * _ORDER % 1)]
    clock = _Clock()
    probes: list[Probe] = []
    with contextlib.closing(
        run_tasks(function, tasks, workers, on_units=clock.first_report, limits=limits)
    ) as outcomes:
        for number, ((task, _), outcome) in enumerate(outcomes, start=1):
            message = ""
            if isinstance(outcome, Probe):
                probes.append(outcome)
                on_probe(outcome)
            else:
                failures.append(_failure(stage, task, str(outcome)))
                message = f"{task.source.id}: {outcome}"
            on_progress(Progress(f"{stage} (dry run)", number, len(tasks), message=message))
            if number - len(counted) >= _FEWEST and clock.passed() > _SECONDS:
                on_progress(Progress(f"{stage} (dry run)", number, number))
                break
    return _summary(probes, failures, len(to_do), workers * ranks().size, clock.start)


def _failure(stage: str, task: _OfOneVideo, reason: str) -> Failure:
    source = task.source
    return Failure(stage, source.class_name, source.video, str(source.path), reason)


def _summary(probes: Sequence[Probe], failures: list[Failure], videos: int, workers: int, start: float) -> Estimate:
    """Videos that could not be probed count as average ones."""
    frames = round(sum(probe.frames for probe in probes) / max(len(probes), 1) * videos)
    timed = [probe for probe in probes if probe.seconds]
    scale = frames / max(sum(probe.frames for probe in timed), 1)
    work = scale * sum(probe.seconds for probe in timed)
    # Videos are never divided between processes, so these do not end together: later than an even share of the work by
    # up to (1 - 1 / processes) of the longest video (Graham 1969). Half of that is taken.
    longest = max((probe.seconds for probe in timed), default=0.0)
    processes = max(min(workers, videos), 1)
    seconds = start + max(work / processes + (1 - 1 / processes) * longest / 2, longest)
    return Estimate(
        videos=videos,
        frames=frames,
        gigabytes=scale * sum(probe.bytes for probe in timed) / 1e9,
        hours=seconds / 3600 if timed else 0.0,
        measured_videos=len(timed),
        failures=failures,
    )


class _Clock:
    """How much time has passed, and how much until the first process reported."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self.start = 0.0

    def passed(self) -> float:
        return time.monotonic() - self._since

    def first_report(self, units: int) -> None:
        self.start = self.start or self.passed()


def _spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spaced."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
