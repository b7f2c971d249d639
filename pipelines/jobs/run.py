"""Runs a job: every video in a worker process, every outcome recorded as it comes."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pipelines.datasets.catalogue import flow_provenance, load_catalogue
from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.jobs.dry_run import estimate
from pipelines.jobs.resume import Division
from pipelines.jobs.task import ExtractResult, Job, Probe, Task, by_video, what_are
from pipelines.runtime.parallel_map import parallel_map
from pipelines.runtime.progress import OnProgress, Progress, note
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Report, share_tasks
from pipelines.sources.segments import video_of
from pipelines.sources.videos import Account
from pipelines.storage.atomic import (
    create_folder,
    is_locked,
    locked,
    remove_left_over_temporary_files,
    require_place,
    require_writable,
    storage_errors,
)
from pipelines.storage.failures import Failure, FailureLog, read_failures, record_outcomes
from pipelines.storage.hdf5 import peek_if_sound
from pipelines.storage.workspace import KINDS


def report_account(account: Account | None, on_progress: OnProgress) -> None:
    """Reports how VIDEOS was read, before any work on it."""
    if account is not None and ranks().is_first:
        for sentence in account.sentences():
            on_progress(note(sentence))


def run_job(
    job: Job[Task],
    division: Division[Task],
    *,
    ignored: int = 0,
    account: Account | None = None,
    on_probe: Callable[[Probe], None] = lambda probe: None,
) -> ExtractResult:
    """Processes every task of `division` that is to do and records each outcome in `failures.csv` as it comes; for a
    dry run, estimates that.

    Under torchrun the ranks share the tasks, the same list on each; rank 0 records, and its result is everybody's.

    Args:
        ignored: Number of files skipped when the tasks were found, for the result.
        account: How VIDEOS was read, for the result.
        on_probe: Receives each probe of a dry run.

    Raises:
        StorageError: Writing fails, which ends the job; or a dry run finds that the workspace cannot be made.
    """
    what = what_are([*division.to_do, *division.done])
    refused = [job.failure(video, video.problem) for video in division.problems]

    def result(failures: list[Failure], **figures: Any) -> ExtractResult:
        return ExtractResult(
            stage=job.stage,
            unit=job.unit,
            skipped=len(division.done),
            failed=len(failures),
            ignored=ignored,
            changed=division.changed,
            unlisted=division.unlisted,
            misfits=division.misfits,
            failures=failures,
            found=account,
            what=what,
            **figures,
        )

    if job.dry_run:
        if division.to_do:
            require_place(job.workspace.root)
        cost = ranks().broadcast_from_rank0(lambda: estimate(job, division.to_do, on_probe))
        return result([*refused, *cost.failures], estimate=cost)
    create_folder(job.workspace.root)
    _remove_left_overs(job)
    if division.to_do and ranks().local_rank == 0:  # each machine has permissions of its own
        folders = (job.folder / task.source.class_name for task in division.to_do)
        require_writable(job.workspace.root, job.folder, *folders)
    meter = _Meter(job, division)
    mark = _unfinished_file(job)
    with contextlib.ExitStack() as held:
        if division.to_do and mark is not None:
            ranks().broadcast_from_rank0(lambda: _begin(job, mark, held))
        if ranks().is_first:
            _record_known_outcomes(job, division, refused)
        try:
            _process(job, division.to_do, meter)
        finally:
            if ranks().size == 1:
                remove_left_over_temporary_files(job.folder)  # of processes that died or were stopped

    def final() -> ExtractResult:
        if mark is not None:
            with locked(job.workspace.root), storage_errors(mark):
                if not is_locked(mark):  # by another process that stores the same kind
                    mark.unlink(missing_ok=True)
        catalogue = load_catalogue(job.workspace, meter.on_progress)  # so that `train` need not open what is new
        if job.folder == job.workspace.flow:
            try:  # where other flow was stored at the same time, or --overwrite was given with some of the videos
                flow_provenance(catalogue)
            except MissingError as error:
                meter.on_progress(note(str(error)))
        return result([row for row in read_failures(job.workspace) if row.stage == job.stage], **meter.figures())

    finished = ranks().broadcast_from_rank0(final)
    _remove_left_overs(job)
    return finished


def _unfinished_file(job: Job[Task]) -> Path | None:
    """What says that a job has not ended, and is locked while it works, by which `status` tells one that was stopped;
    None where it stores neither frames nor flow of the workspace."""
    kinds = (kind for kind in KINDS if job.folder == job.workspace.root / kind)
    return next(map(job.workspace.unfinished_file, kinds), None)


def _begin(job: Job[Task], mark: Path, held: contextlib.ExitStack) -> None:
    """Marks a job as running while `held` is open. Raises `UsageError` where another one stores pictures of another
    size, which what is stored may not show yet."""
    with locked(job.workspace.root), storage_errors(mark):
        for kind in KINDS:
            running = job.workspace.unfinished_file(kind)
            size = running.read_text() if is_locked(running) else ""
            if job.size and size not in ("", job.size):
                raise UsageError(
                    f"another command is storing {kind} in {job.workspace.root} ({size}), beside which others must not "
                    f"be stored at another size ({job.size}): give the same, or another --workspace"
                )
        if job.size or not is_locked(mark):
            mark.write_text(job.size)
        held.enter_context(locked(mark, wait=False, shared=True))


def _remove_left_overs(job: Job[Task]) -> None:
    """Removes what processes left that died or were stopped. Each machine knows its own; and while one looks, no rank
    writes, since machines may have the same name."""
    if ranks().local_rank == 0:
        remove_left_over_temporary_files(job.workspace.root, below=False)
        remove_left_over_temporary_files(job.folder)
    ranks().gather(None)


def _record_known_outcomes(job: Job[Task], division: Division[Task], refused: Sequence[Failure]) -> None:
    """Records the videos that are refused; drops the rows of videos that are done, that have another name by now, or
    whose file no longer exists. A file has as many names as it has segments."""
    to_do, done = ({job.failure(task.source, "").key for task in tasks} for tasks in (division.to_do, division.done))
    others = [row for row in read_failures(job.workspace) if row.stage == job.stage and row.key not in to_do]
    named: set[str] = set()  # the videos' paths and all folders that they lie in
    for task in (*division.to_do, *division.done) if others else ():
        path = task.source.path.parent if task.source.segment else task.source.path
        while str(path) not in named:
            named.add(str(path))
            path = path.parent
    renamed = {row for row in others if row.path in named and video_of(row.video) != Path(row.path).stem}
    gone = {row.key for row in others if row in renamed or not os.path.exists(row.path)}
    record_outcomes(job.workspace, failed=refused, succeeded=done | gone)


def _process(job: Job[Task], to_do: Sequence[Task], meter: "_Meter") -> None:
    """Processes this rank's share of the tasks; on rank 0 records the outcomes of all."""
    with FailureLog(job.workspace) as recorded:

        def on_units(units: int) -> None:
            meter.add(units)
            recorded.write_when_due()

        store = functools.partial(store_together, job.store, job.store_segments)
        running = share_tasks(store, by_video(to_do), job.growth or job.workers, on_units=on_units, limits=job.limits)
        before = {task.target: _version(task.target) for task in to_do if task.source.segment}
        with contextlib.closing(running) as outcomes:
            for rank, tasks, made in outcomes:
                of_each = [made] * len(tasks) if isinstance(made, VideoError) else made
                for task, outcome in zip(tasks, of_each, strict=True):
                    # The process may have died behind segments that it had finished.
                    is_stored = task.target in before and _version(task.target) not in (None, before[task.target])
                    if isinstance(outcome, VideoError) and not is_stored:
                        recorded.fail(job.failure(task.source, str(outcome)))
                        meter.finish_video(f"{task.source.id}: {outcome}")
                        continue
                    recorded.succeed((job.stage, task.source.class_name, task.source.video))
                    # Units of other ranks were reported where they were done.
                    if rank != ranks().rank and isinstance(outcome, int):
                        meter.add(outcome)
                    meter.finish_video()


def store_together(
    store: Callable[[Task, Report], int],
    store_segments: Callable[[Sequence[Task], Report], list[int | VideoError]] | None,
    tasks: Sequence[Task],
    report: Report,
) -> list[int | VideoError]:
    """What a worker process does, as a `functools.partial`: one video, or segments of one."""
    if store_segments is not None and tasks[0].source.segment:
        return store_segments(tasks, report)
    return [store(task, report) for task in tasks]


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def attributes_made(
    job: Job[Task], division: Division[Task], schema: str, names: Collection[str]
) -> list[dict[str, Any]]:
    """Those attributes of each artifact that the job has made; {} for one that is not there."""
    look = functools.partial(peek_if_sound, schema=schema, names=names)
    paths, phase = [task.target for task in division.to_do], f"{job.stage} (what was made)"
    made = ranks().broadcast_from_rank0(lambda: parallel_map(look, paths, phase, job.on_progress))
    return [attributes for attributes in made if isinstance(attributes, dict)]


class _Meter:
    """Counts videos and units, and reports both."""

    def __init__(self, job: Job[Task], division: Division[Task]) -> None:
        self.stage, self.unit = job.stage, job.unit
        self.what = what_are([*division.to_do, *division.done]) + "s"
        self.on_progress = ranks().speaker(job.on_progress)
        self.started = time.monotonic()
        self.skipped = self.finished = len(division.done)
        self.total = len(division.done) + len(division.to_do)
        self.failed = self.units = 0
        self._report()

    def add(self, units: int) -> None:
        self.units += units
        self._report()

    def finish_video(self, failure: str = "") -> None:
        self.finished += 1
        self.failed += bool(failure)
        self._report(failure)

    def figures(self) -> dict[str, Any]:
        """Those of the result."""
        return {
            "done": self.finished - self.skipped - self.failed,
            "units": self.units,
            "units_per_second": self._rate() if self.units else 0.0,
            "seconds": time.monotonic() - self.started,
        }

    def _rate(self) -> float:
        return self.units / max(time.monotonic() - self.started, 1e-9)

    def _report(self, message: str = "") -> None:
        metrics = {f"{self.unit}/s": round(self._rate(), 1), "failed": self.failed}
        self.on_progress(Progress(self.stage, self.finished, self.total, self.what, metrics, message))
