"""What a job would cost: the frames of some videos counted, fewer videos measured, by the processes of a real run."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pipelines.errors import MissingError, VideoError
from pipelines.interface.wording import plural
from pipelines.jobs.task import Estimate, Job, Probe, Task, what_are
from pipelines.runtime.progress import Progress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Report, run_tasks
from pipelines.storage.atomic import free_gigabytes
from pipelines.storage.failures import Failure

_COUNTED = 200  # videos
# Time and size of a pair differ by a factor of two between videos: of 24, the mean is known to about a tenth.
_MEASURED = 24
_MEASURED_A_WORKER = 2  # so that most of the time all work at once, as they will
_FEWEST, _SECONDS = 6, 90.0  # where flow is slow, no more are measured than these once this long has passed
_ORDER, _PLACE = 0.618, 0.414  # the multiples of either, modulo 1, are spread evenly and independent of the other's


def estimate(job: Job[Task], to_do: Sequence[Task], on_probe: Callable[[Probe], None]) -> Estimate:
    """Counts the frames of up to 200 of the videos, spread evenly, and measures 24 or more; writes nothing.

    Videos that do not exist are failures, and not sampled. Under torchrun rank 0 probes, and the estimate is that of
    all ranks, each on cores and a GPU of its own.

    Args:
        on_probe: Receives each probe.

    Raises:
        MissingError: None of the videos exists.
    """
    failures = [
        job.failure(task.source, task.source.problem or "the file does not exist")
        for task in to_do
        if not os.path.exists(task.source.path)
    ]
    if failures:
        if len(failures) == len(to_do):
            raise MissingError(
                f"none of the {plural(len(to_do), 'video')} to do exists, for example {failures[0].path}: "
                f"{failures[0].reason}"
            )
        to_do = [task for task in to_do if os.path.exists(task.source.path)]
    measured = _spread(len(to_do), max(_MEASURED, _MEASURED_A_WORKER * job.workers))
    counted = sorted(set(_spread(len(to_do), _COUNTED)).difference(measured))
    tasks: list[tuple[Task, float | None]] = [(to_do[i], None) for i in counted]
    tasks += [(to_do[measured[k]], k * _PLACE % 1) for k in sorted(range(len(measured)), key=lambda k: k * _ORDER % 1)]
    started, startup = time.monotonic(), 0.0

    def on_units(units: int) -> None:
        nonlocal startup
        startup = startup or time.monotonic() - started

    phase, unit = f"{job.stage} (dry run)", what_are(to_do) + "s"
    probes: list[Probe] = []
    probe = functools.partial(probe_task, job.probe)
    with contextlib.closing(run_tasks(probe, tasks, job.workers, on_units=on_units, limits=job.limits)) as outcomes:
        for number, ((task, _), outcome) in enumerate(outcomes, start=1):
            message = ""
            if isinstance(outcome, Probe) and task.source.segment and not outcome.frames:
                outcome = VideoError(task.source.segment.too_late)
            if isinstance(outcome, Probe):
                probes.append(outcome)
                on_probe(outcome)
            else:
                failures.append(job.failure(task.source, str(outcome)))
                message = f"{task.source.id}: {outcome}"
            job.on_progress(Progress(phase, number, len(tasks), unit, message=message))
            if number - len(counted) >= _FEWEST and time.monotonic() - started > _SECONDS:
                job.on_progress(Progress(phase, number, number, unit))
                break
    cost = _extrapolated(probes, failures, len(to_do), job.workers * ranks().size, startup)
    exact = not job.decodes and len(probes) == len(to_do)
    return replace(cost, free_gigabytes=free_gigabytes(job.folder), frames_are_exact=exact)


def probe_task(
    probe: Callable[[Task, float | None, Report], Probe], task_and_place: tuple[Task, float | None], report: Report
) -> Probe:
    """What `run_tasks` runs, as a `functools.partial`, to probe a video."""
    report(0)  # what passes until then is the start of the processes, which counts once and not for every video
    return probe(*task_and_place, report)


def _extrapolated(
    probes: Sequence[Probe], failures: list[Failure], videos: int, processes: int, startup: float
) -> Estimate:
    """The estimate for all videos; those that could not be probed count as average ones."""
    frames = round(sum(probe.frames for probe in probes) / max(len(probes), 1) * videos)
    timed = [probe for probe in probes if probe.seconds]
    scale = frames / max(sum(probe.frames for probe in timed), 1)
    work = scale * sum(probe.seconds for probe in timed)
    # Videos are never divided between processes, so these do not end together: later than an even share of the work by
    # up to (1 - 1 / processes) of the longest video (Graham 1969). Half of that is taken.
    longest = max((probe.seconds for probe in timed), default=0.0)
    processes = max(min(processes, videos), 1)
    seconds = startup + max(work / processes + (1 - 1 / processes) * longest / 2, longest)
    return Estimate(
        videos=videos,
        frames=frames,
        gigabytes=scale * sum(probe.bytes for probe in timed) / 1e9,
        hours=seconds / 3600 if timed else 0.0,
        measured_videos=len(timed),
        failures=failures,
    )


def _spread(length: int, count: int) -> list[int]:
    """At most `count` of the numbers below `length`, evenly spaced."""
    count = min(count, length)
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]
