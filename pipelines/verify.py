"""Stage `verify`: reads the whole workspace, and finds what is missing, damaged, inconsistent or wrong.

Each video is checked by a worker process, and its flow recomputed by another one; then the videos are compared with one
another. Nothing is written without `fix`.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from pipelines.datasets.catalogue import Catalogue, artifact_files, unexamined
from pipelines.datasets.dataset_file import ArtifactFile
from pipelines.errors import MissingError, VideoError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Report, share_tasks
from pipelines.storage.atomic import (
    left_over_temporary_files,
    remove_left_over_temporary_files,
    require_writable,
    storage_errors,
)
from pipelines.storage.failures import read_failures
from pipelines.storage.workspace import KINDS, Kind, Workspace
from pipelines.verification.faults import FIXES, CheckLevel, Fault, FaultKind
from pipelines.verification.recomputing import flow_faults, flow_tasks, reasons_against, recompute_all
from pipelines.verification.requeue import Requeued, commands, requeue
from pipelines.verification.runs import FolderTask
from pipelines.verification.tasks import Recomputed, RecomputeTask, VideoReport, VideoTask
from pipelines.verification.whole_set import (
    check_dataset_file,
    check_splits,
    find_duplicates,
    find_missing,
    find_odd_settings,
    in_no_split,
    usual_settings,
)

STAGE = "verify"

Task = VideoTask | FolderTask


@dataclass(frozen=True)
class Config:
    """Settings of `verify`."""

    workspace: options.WorkspaceFolder
    depth: Annotated[
        CheckLevel,
        Option(
            only_switches=True,
            switches=(
                ("--quick", "quick", "Check only attributes and shapes: no pixel is read."),
                ("--full", "full", "Also decode everything, and recompute all flow."),
            ),
        ),
    ] = "stored"
    """How closely to look."""
    fix: bool = False
    """Set aside what is broken, and queue it to be made again."""
    workers: options.Workers = 0

    def __post_init__(self) -> None:
        options.check(self)


@dataclass(frozen=True)
class Result:
    """What was checked and what was found."""

    videos: int
    files: int
    gigabytes: float
    """Of the frames and flow files."""
    seconds: float
    faults: list[Fault]
    """By kind, in the order of `faults.FIXES`, then by subject."""
    counts: dict[FaultKind, int]
    """Faults of each kind that was found."""
    sources_absent: int
    """Videos whose source is gone, so that it could not be compared."""
    not_oriented: int
    """Videos with frames and flow that move too little to see whether the flow's axes and signs are right."""
    requeued: list[Requeued] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """What makes the queued artifacts again."""
    recomputed_videos: int = 0
    """Videos whose flow was recomputed and compared with what is stored."""
    recomputed_fields: int = 0
    """Fields compared, of all of them."""
    not_recomputed: dict[str, int] = field(default_factory=dict)
    """Why flow was not recomputed, and of how many videos."""
    truncated: list[str] = field(default_factory=list)
    """Videos stored in part and marked so (`--allow-truncated`)."""
    damaged: list[str] = field(default_factory=list)
    """Videos with damaged pictures, marked so (`--allow-damaged`)."""
    in_no_split: list[str] = field(default_factory=list)
    """Videos that no split in use names. Not a fault: users' own lists may leave some out."""


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Checks everything in the workspace; under torchrun the ranks share the videos, and rank 0 does the rest.

    Raises:
        MissingError: There is no workspace, or nothing in it.
        StorageError: With `fix`, writing fails.
    """
    started = time.monotonic()
    workspace = Workspace(config.workspace)
    videos, others = ranks().broadcast_from_rank0(lambda: _tasks(workspace, config.depth))
    if config.fix:
        ranks().broadcast_from_rank0(lambda: require_writable(workspace.root, workspace.set_aside))
    on_progress = ranks().speaker(on_progress)
    workers = config.workers or available_cores()
    reports, faults = _check_each([*others, *videos], workers, on_progress)
    tasks = ranks().broadcast_from_rank0(lambda: flow_tasks(reports, config.depth))
    outcomes: dict[str, Recomputed | VideoError] = {}
    fields = 0

    def on_recomputed(task: RecomputeTask, outcome: Recomputed | VideoError) -> None:
        nonlocal fields
        outcomes[task.id] = outcome
        fields += outcome.fields if isinstance(outcome, Recomputed) else 0
        on_progress(Progress(f"{STAGE} (flow)", len(outcomes), len(tasks), "videos", {"fields": fields}))

    recompute_all(tasks, workers, on_recomputed)
    return ranks().broadcast_from_rank0(
        lambda: _conclude(workspace, config, videos, reports, faults, outcomes, started)
    )


def _tasks(workspace: Workspace, depth: CheckLevel) -> tuple[list[VideoTask], list[Task]]:
    """The videos to check, and the runs and scores. Raises `MissingError` if there are none of them."""
    workspace.require()
    artifacts: dict[tuple[str, str], dict[Kind, ArtifactFile]] = {}
    for kind in KINDS:
        for file in artifact_files(kind, workspace.root / kind):
            artifacts.setdefault((file.class_name, file.video), {})[kind] = file
    videos = [VideoTask(*name, files, depth) for name, files in sorted(artifacts.items())]
    runs, scores = workspace.runs.glob("*/config.json"), workspace.scores.glob("*/*/scores.h5")
    others: list[Task] = [FolderTask("run", workspace, path.parent, depth) for path in sorted(runs)]
    others += [FolderTask("scores", workspace, path.parent, depth) for path in sorted(scores)]
    if not videos and not others:
        raise MissingError(f"there is nothing to verify in {workspace.root}: run `stres extract-frames` first")
    return videos, others


def check_one(task: Task, report: Report) -> VideoReport | list[Fault]:
    """What a worker process does."""
    if isinstance(task, VideoTask):
        from pipelines.verification.one_video import check_video

        return check_video(task)
    return task.check()


def _check_each(tasks: Sequence[Task], workers: int, on_progress: OnProgress) -> tuple[list[VideoReport], list[Fault]]:
    """The reports of all videos, in order, and the faults of all tasks; on rank 0, of all ranks."""
    reports: dict[str, VideoReport] = {}
    faults: list[Fault] = []

    def tell(done: int) -> None:
        on_progress(Progress(STAGE, done, len(tasks), "checks", {"faults": len(faults)}))

    tell(0)
    with contextlib.closing(share_tasks(check_one, tasks, workers)) as outcomes:
        for done, (_, task, outcome) in enumerate(outcomes, start=1):
            found = task.died(str(outcome)) if isinstance(outcome, VideoError) else outcome
            if isinstance(found, VideoReport):
                reports[found.task.id] = found
                found = found.faults
            faults += found
            tell(done)
    return [reports[id_] for id_ in sorted(reports)], faults


def _conclude(
    workspace: Workspace,
    config: Config,
    videos: list[VideoTask],
    reports: list[VideoReport],
    faults: list[Fault],
    outcomes: Mapping[str, Recomputed | VideoError],
    started: float,
) -> Result:
    """Adds what only shows when all videos are compared, and fixes. Raises `StorageError`."""
    failures = read_failures(workspace)
    # Splits are looked up among the names of files: a video that is damaged is not absent too.
    listed = [
        replace(
            unexamined(workspace, task.class_name, task.video),
            has_frames="frames" in task.artifacts,
            has_flow="flow" in task.artifacts,
        )
        for task in videos
    ]
    catalogue = Catalogue(sorted({task.class_name for task in videos}), listed, [])
    faults += flow_faults(reports, outcomes)
    faults += find_missing(workspace, videos, failures)
    faults += find_duplicates(reports)
    faults += find_odd_settings(reports)
    faults += check_dataset_file(workspace, reports)
    faults += check_splits(workspace, catalogue, failures)
    for path in left_over_temporary_files(workspace.root):
        faults.append(Fault("temporary files", path.parent.name, str(path), "its process is gone"))
    faults.sort(key=lambda fault: ([*FIXES].index(fault.kind), fault.subject, fault.path))
    requeued: list[Requeued] = []
    if config.fix:
        requeued = requeue(workspace, reports, faults)
        remove_left_over_temporary_files(workspace.root)
        if any(fault.kind == "dataset file" for fault in faults):  # the next command makes it again
            with storage_errors(workspace.dataset_file):
                workspace.dataset_file.unlink(missing_ok=True)
    files = [file for task in videos for file in task.artifacts.values()]
    both = [report for report in reports if len(report.artifacts) == len(KINDS)]
    recomputed = [each for each in outcomes.values() if isinstance(each, Recomputed) and each.fields]
    return Result(
        videos=len(videos),
        files=len(files),
        gigabytes=sum(file.bytes for file in files) / 1e9,
        seconds=time.monotonic() - started,
        faults=faults,
        counts=dict(Counter(fault.kind for fault in faults)),
        sources_absent=sum(report.source_absent for report in reports),
        not_oriented=0 if config.depth == "quick" else sum(not report.oriented for report in both),
        recomputed_videos=len(recomputed),
        recomputed_fields=sum(each.fields for each in recomputed),
        not_recomputed={} if config.depth == "quick" else reasons_against(reports, outcomes),
        truncated=[report.task.id for report in reports if report.truncated],
        damaged=[report.task.id for report in reports if report.damaged],
        in_no_split=in_no_split(workspace, catalogue),
        requeued=requeued,
        commands=commands(workspace, requeued, reports, usual_settings(reports)),
    )
