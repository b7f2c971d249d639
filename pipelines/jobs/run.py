"""Works through videos in worker processes; every outcome is recorded as it comes."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.datasets.catalogue import load_catalogue
from pipelines.errors import VideoError
from pipelines.jobs.dry_run import Estimate
from pipelines.jobs.resume import Division
from pipelines.jobs.task import ExtractResult, ExtractTask, Task
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Limits, Report, run_tasks, usual_limits
from pipelines.sources.videos import VideoList, VideoSource
from pipelines.storage.atomic import create_folder, remove_left_over_temporary_files, require_writable
from pipelines.storage.failures import Failure, FailureLog, read_failures, record_outcomes
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    pass


def tell_account(stage: str, found: VideoList, on_progress: OnProgress) -> None:
    """Reports how VIDEOS was read, before any work on it."""
    if found.account is not None and ranks().is_first:
        for sentence in found.account.sentences():
            on_progress(note(sentence))


# ------------------------------------------------------------------ doing it


def extract(
    stage: str,
    function: Callable[[Task, Report], int],
    division: Division[Task],
    *,
    workspace: Workspace,
    folder: Path,
    workers: int,
    limits: Limits | None = None,
    unit: str,
    ignored: int,
    on_progress: OnProgress,
) -> ExtractResult:
    """Runs `function` on every task of `division` that is to do and records each outcome in `failures.csv` as it comes.

    `limits`: of one video; None: the usual ones.

    Under torchrun the ranks share the tasks, the same list on each; rank 0 records, and its result is everybody's.
    Raises `StorageError` where writing fails: that ends the stage.
    """
    if not ranks().is_first:
        on_progress = ignore_progress
    limits = limits or usual_limits(workers)
    to_do, done = division.to_do, division.done
    create_folder(workspace.root)
    _remove_left_overs(workspace, folder)
    if to_do and ranks().local_rank == 0:  # each machine has permissions of its own
        require_writable(workspace.root, folder, *(folder / task.source.class_name for task in to_do))
    meter = _Meter(stage, unit, done=len(done), total=len(done) + len(to_do), on_progress=on_progress)
    if ranks().is_first:
        _record_what_is_known(stage, workspace, to_do, done, _refused(stage, division))

    def on_units(units: int) -> None:
        meter.add(units)
        recorded.write_when_due()

    def work(numbers: Iterator[int]) -> "Generator[tuple[VideoSource, int | VideoError]]":
        tasks = (to_do[number] for number in numbers)
        with contextlib.closing(run_tasks(function, tasks, workers, on_units=on_units, limits=limits)) as outcomes:
            for task, outcome in outcomes:
                yield task.source, outcome

    try:
        with FailureLog(workspace) as recorded, contextlib.closing(ranks().pool(len(to_do), work)) as outcomes:
            for rank, (source, outcome) in outcomes:
                if isinstance(outcome, VideoError):
                    failure = Failure(stage, source.class_name, source.video, str(source.path), str(outcome))
                    recorded.fail(failure)
                    meter.finish_video(f"{source.id}: {outcome}")
                    continue
                recorded.succeed((stage, source.class_name, source.video))
                if rank != ranks().rank:  # its units were reported where they were done
                    meter.add(outcome)
                meter.finish_video()
    finally:
        if ranks().size == 1:
            remove_left_over_temporary_files(folder)  # of processes that died or were stopped

    def result() -> ExtractResult:
        load_catalogue(workspace, on_progress)  # so that `train` finds `dataset.json` and need not open what is new
        remaining = [row for row in read_failures(workspace) if row.stage == stage]
        return meter.result(division, ignored=ignored, failures=remaining)

    told = ranks().broadcast_from_rank0(result)
    _remove_left_overs(workspace, folder)
    return told


def _remove_left_overs(workspace: Workspace, folder: Path) -> None:
    """Removes what processes left that died or were stopped. Each machine knows its own; and while one looks, no rank
    writes, since machines may have the same name."""
    if ranks().local_rank == 0:
        remove_left_over_temporary_files(workspace.root, below=False)
        remove_left_over_temporary_files(folder)
    ranks().gather(None)


def _record_what_is_known(
    stage: str,
    workspace: Workspace,
    to_do: Sequence[ExtractTask],
    done: Sequence[ExtractTask],
    refused: Iterable[Failure],
) -> None:
    """Enters the videos refused unopened; drops the rows of videos that are done, that stand under another name by now,
    or whose file no longer exists."""
    wanted = {(stage, task.source.class_name, task.source.video) for task in to_do}
    stored = {(stage, task.source.class_name, task.source.video) for task in done}
    others = [row for row in read_failures(workspace) if row.stage == stage and row.key not in wanted]
    named = _with_parents(task.source.path for task in (*to_do, *done)) if others else set()
    gone = {row.key for row in others if row.path in named or not Path(row.path).exists()}
    record_outcomes(workspace, failed=refused, succeeded=stored | gone)


def _refused(stage: str, division: Division[Any]) -> list[Failure]:
    return [Failure(stage, p.class_name, p.video, str(p.path), p.reason) for p in division.problems]


def _with_parents(paths: Iterable[Path]) -> set[str]:
    """The paths and all folders that they lie in."""
    found: set[str] = set()
    for path in paths:
        while str(path) not in found:
            found.add(str(path))
            path = path.parent
    return found


class _Meter:
    """Counts videos and units, and reports both."""

    def __init__(self, stage: str, unit: str, *, done: int, total: int, on_progress: OnProgress) -> None:
        self.stage, self.unit, self.total, self.on_progress = stage, unit, total, on_progress
        self.started = time.monotonic()
        self.skipped = self.finished = done
        self.failed = self.units = 0
        self._report()

    def add(self, units: int) -> None:
        self.units += units
        self._report()

    def finish_video(self, failure: str = "") -> None:
        self.finished += 1
        self.failed += bool(failure)
        self._report(failure)

    def rate(self) -> float:
        return self.units / max(time.monotonic() - self.started, 1e-9)

    def _report(self, message: str = "") -> None:
        metrics = {f"{self.unit}/s": round(self.rate(), 1), "failed": self.failed}
        self.on_progress(Progress(self.stage, self.finished, self.total, "videos", metrics, message))

    def result(self, division: Division[Any], *, ignored: int, failures: list[Failure]) -> ExtractResult:
        return ExtractResult(
            stage=self.stage,
            done=self.finished - self.skipped - self.failed,
            skipped=len(division.done),
            changed=division.changed,
            failed=len(failures),
            ignored=ignored,
            unit=self.unit,
            units=self.units,
            units_per_second=self.rate() if self.units else 0.0,
            seconds=time.monotonic() - self.started,
            failures=failures,
        )


def dry_run_result(
    stage: str, unit: str, division: Division[Any], *, ignored: int, estimate: Estimate
) -> ExtractResult:
    failures = [*_refused(stage, division), *estimate.failures]
    return ExtractResult(
        stage,
        done=0,
        skipped=len(division.done),
        failed=len(failures),
        ignored=ignored,
        unit=unit,
        units=0,
        units_per_second=0.0,
        seconds=0.0,
        changed=division.changed,
        failures=failures,
        estimate=estimate,
    )
