"""Stage `extract-frames`: every frame of every video, resized and stored as JPEG."""

import functools
from dataclasses import dataclass, replace
from typing import Any

from pipelines.interface import options
from pipelines.jobs.attributes import options_difference
from pipelines.jobs.resume import Comparison, Sources, divide, require_workspace_size, size_conflict, size_misfit
from pipelines.jobs.run import attributes_made, report_account, run_job
from pipelines.jobs.task import ExtractResult, Job
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Limits
from pipelines.sources.videos import AS_IT_SAYS, ReadAs, find_videos
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.jpeg import JPEG_QUALITY
from pipelines.storage.workspace import Workspace

STAGE = "extract-frames"

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `extract-frames`."""

    workspace: options.WorkspaceFolder
    videos: options.Videos
    short_side: options.ShortSide = None
    workers: options.Workers = 0
    patience: options.Patience = Limits.patience
    overwrite: options.Overwrite = False
    allow_truncated: options.AllowTruncated = False
    allow_damaged: options.AllowDamaged = False
    read_as: ReadAs = AS_IT_SAYS
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Stores the frames of all videos that are not stored yet.

    Failed videos are rows of `failures.csv` and counted in the result.

    Raises:
        MissingError: There are no videos.
        UsageError: Frames were stored with other settings, or flow at another size.
        StorageError: Writing fails.
    """
    from pipelines.jobs.frames import FrameTask, probe, store_frames, store_segments

    workspace = Workspace(config.workspace)
    found = ranks().broadcast_from_rank0(
        lambda: find_videos(config.videos, workspace=config.workspace, read_as=config.read_as)
    )
    report_account(found.account, on_progress)
    tasks = [
        FrameTask(
            source,
            workspace.frames_file(source.class_name, source.video),
            config.short_side,
            config.allow_truncated,
            config.allow_damaged,
        )
        for source in found.videos
    ]
    job = Job(
        STAGE,
        unit="frames",
        workspace=workspace,
        folder=workspace.frames,
        store=store_frames,
        store_segments=store_segments,
        probe=probe,
        workers=config.workers or available_cores(),
        patience=config.patience,
        decodes=True,
        short_side=config.short_side,
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    conflict = functools.partial(_conflict, config.short_side)
    misfit = functools.partial(size_misfit, config.short_side)
    comparison = Comparison(FRAMES_SCHEMA, Sources(), conflict, misfit)
    division = divide(job, tasks, found.problems, comparison, overwrite=config.overwrite)
    if not config.overwrite:
        ranks().broadcast_from_rank0(lambda: require_workspace_size(job, division))
    result = run_job(job, division, ignored=found.ignored, account=found.account)
    if config.dry_run:
        return result
    made = attributes_made(job, division, FRAMES_SCHEMA, ("times_problem",))
    return replace(result, broken_times=sum("times_problem" in attributes for attributes in made))


def _conflict(short_side: int | None, attributes: dict[str, Any]) -> str:
    return options_difference(attributes, {"jpeg_quality": JPEG_QUALITY}) or size_conflict(attributes, short_side)
