"""Stage `extract-frames`: every frame of every video, resized and stored as JPEG.

Letters: T frames, H W pixels.
"""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import options
from pipelines.jobs.attributes import options_difference, picture_attributes, source_attributes
from pipelines.jobs.resume import Comparison, VideoFiles, divide, size_conflict, size_misfit
from pipelines.jobs.run import report_account, run_job
from pipelines.jobs.task import ExtractResult, Job, Probe
from pipelines.runtime.devices import available_cores
from pipelines.runtime.parallel_map import parallel_map
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Limits, Report
from pipelines.sources.videos import AS_IT_SAYS, ReadAs, VideoSource, find_videos
from pipelines.storage.frames_file import FRAMES_SCHEMA, new_frames_file
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.jpeg import JPEG_QUALITY
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from pipelines.video.decoding import VideoReader

STAGE = "extract-frames"
_REPORTED = 16  # frames between two reports of progress
_PROBED_FRAMES = 24  # a quarter of a second or less; the first ones cost more

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
        UsageError: Frames were stored with other settings.
        StorageError: Writing fails.
    """
    workspace = Workspace(config.workspace)
    found = ranks().broadcast_from_rank0(
        lambda: find_videos(config.videos, workspace=config.workspace, read_as=config.read_as)
    )
    report_account(found, on_progress)
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
        store=_store_frames,
        probe=_probe,
        workers=config.workers or available_cores(),
        patience=config.patience,
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    conflict = functools.partial(_conflict, config.short_side)
    misfit = functools.partial(size_misfit, config.short_side)
    comparison = Comparison(FRAMES_SCHEMA, VideoFiles(), conflict, misfit)
    division = divide(job, tasks, found.problems, comparison, overwrite=config.overwrite)
    result = run_job(job, division, ignored=found.ignored, account=found.account)
    if config.dry_run:
        return result
    made = ranks().broadcast_from_rank0(
        lambda: parallel_map(_times, division.to_do, f"{STAGE} (timestamps)", on_progress)
    )
    return replace(result, broken_times=sum(isinstance(about, dict) and "times_problem" in about for about in made))


def _times(task: "FrameTask") -> dict[str, Any]:
    """What the task's frames file says of broken timestamps; nothing where there is no such file."""
    try:
        return peek(task.target, FRAMES_SCHEMA, ("times_problem",))
    except ArtifactError:
        return {}


def _conflict(short_side: int | None, attributes: dict[str, Any]) -> str:
    return options_difference(attributes, {"jpeg_quality": JPEG_QUALITY}) or size_conflict(attributes, short_side)


# ------------------------------------------------------------------ one video, in a worker process


@dataclass(frozen=True)
class FrameTask:
    source: VideoSource
    target: Path
    short_side: int | None
    allow_truncated: bool
    allow_damaged: bool = False


def _store_frames(task: FrameTask, report: Report) -> int:
    """Stores one video; returns its number of frames."""
    from pipelines.video.decoding import VideoReader

    with (
        VideoReader(
            task.source.file,
            task.short_side,
            allow_truncated=task.allow_truncated,
            allow_damaged=task.allow_damaged,
        ) as reader,
        new_frames_file(task.target) as writer,
    ):
        for jpeg in _coded(reader):
            writer.append(jpeg)
            if reader.decoded % _REPORTED == 0:
                report(_REPORTED)
        report(reader.decoded % _REPORTED)
        timing = reader.timing
        attributes = {**source_attributes(task, timing), **picture_attributes(reader)}
        reader.require_unchanged()
        writer.finish(attributes, timing.times)
    return reader.decoded


def _coded(reader: "VideoReader") -> Iterator["np.ndarray"]:
    """The frames of `reader` as JPEGs, each uint8 [bytes]."""
    from pipelines.storage.jpeg import encode_jpeg

    return map(encode_jpeg, reader)


def _probe(task: FrameTask, place: float | None, report: Report) -> Probe:
    """Codes a video's beginning as JPEGs: frames cost the same everywhere."""
    from itertools import islice

    from pipelines.video.decoding import VideoReader

    with VideoReader(task.source.file, task.short_side, allow_truncated=True, allow_damaged=True) as reader:
        frames = reader.announced_frames
        if place is None:
            return Probe(frames)
        started = time.perf_counter()
        sizes = [jpeg.size for jpeg in islice(_coded(reader), _PROBED_FRAMES)]
        seconds = time.perf_counter() - started
        return Probe(frames, seconds / len(sizes) * frames, sum(sizes) / len(sizes) * frames)
