"""What the two extracting stages share: which videos are to do, doing them in processes, and accounting for each."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipelines.datasets.catalogue import load_catalogue
from pipelines.distributed import ranks
from pipelines.errors import UsageError, VideoError
from pipelines.outcomes import Outcomes
from pipelines.progress import OnProgress, Progress, ignore_progress, note
from pipelines.provenance import library_versions
from pipelines.video.estimation import Estimate
from pipelines.video.identity import Division
from pipelines.video.sources import Account, VideoList, VideoSource
from pipelines.workers import Limits, Report, run_tasks, usual_limits
from pipelines.workspace import (
    Failure,
    Workspace,
    json_text,
    read_failures,
    record_outcomes,
    remove_left_over_temporary_files,
    require_writable,
)

if TYPE_CHECKING:
    from pipelines.optical_flow.displacement import Clipping
    from pipelines.optical_flow.proposal import Proposal
    from pipelines.video.decoding import VideoReader
    from pipelines.video.timing import Timing


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


def tell_account(stage: str, found: VideoList, on_progress: OnProgress) -> None:
    """Reports how VIDEOS was read, before any work on it."""
    if found.account is not None and ranks().is_first:
        for sentence in found.account.sentences():
            on_progress(note(sentence))


# ------------------------------------------------------------------ what is to do


def check_workers(workers: int) -> None:
    """Raises `UsageError` for a value of --workers that makes no sense."""
    if not 0 <= workers <= 4096:
        raise UsageError(f"--workers must be 1 or more, or 0 for one for each core, not {workers}")


def check_patience(patience: float) -> None:
    """Raises `UsageError` for a value of --patience that makes no sense."""
    if not patience >= 1:
        raise UsageError(f"--patience must be 1 or more seconds, not {patience:g}")


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
    workspace.create()
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
        with Outcomes(workspace) as recorded, contextlib.closing(ranks().pool(len(to_do), work)) as outcomes:
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

    told = ranks().first_tells(result)
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


# ------------------------------------------------------------------ provenance


def source_attributes(task: ExtractTask, timing: "Timing") -> dict[str, Any]:
    """The attributes both artifacts carry about the file they come from. Raises `VideoError` if it cannot be read."""
    import hashlib

    path = task.source.path
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise VideoError(f"the file cannot be read ({error.strerror})") from error
    split = {"source_split": task.source.split} if task.source.split else {}
    return {
        **split,
        "source": str(path),
        "source_sha256": digest,
        "source_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
        "source_frames": len(timing.times),
        **timing_attributes(timing),
        "library_versions": stored_library_versions(),
    }


def timing_attributes(timing: "Timing") -> dict[str, Any]:
    """The attributes about where the times of the frames come from."""
    attributes: dict[str, Any] = {"fps": timing.fps, "times_from": timing.origin}
    return attributes | ({"times_problem": timing.problem} if timing.problem else {})


def picture_attributes(reader: "VideoReader") -> dict[str, Any]:
    """The attributes about the picture's size, and the marks of a truncated or damaged video."""
    attributes: dict[str, Any] = {
        "short_side": min(reader.width, reader.height),
        "width": reader.width,
        "height": reader.height,
        "source_width": reader.source_width,
        "source_height": reader.source_height,
        "container_frames": reader.container_frames,
    }
    if reader.truncated:
        attributes |= {"truncated": True, "decoded_frames": reader.decoded}
    if reader.tone_mapped_from:
        attributes["tone_mapped_from"] = reader.tone_mapped_from
    if reader.damaged_frames:
        attributes |= {"damaged": True, "damaged_frames": reader.damaged_frames}
    return attributes


def stored_library_versions() -> str:
    """The versions of the libraries that decide what an artifact holds, as JSON."""
    return json_text(library_versions("av", "opencv", "numpy", "torch"))


def options_difference(attributes: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names the attributes that are not as wanted: "bound is 20.0, not 5.0"; "" for none."""
    return "; ".join(
        f"{name} is {attributes.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if attributes.get(name) != value
    )
