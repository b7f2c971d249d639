"""Stores the frames of one video, in a worker process of `extract-frames`.

Letters: T frames, H W pixels.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipelines.errors import VideoError
from pipelines.jobs.attributes import video_attributes
from pipelines.jobs.resume import require_imported_size
from pipelines.jobs.segments import Targets, announced_frames, deal, fitting, store_parts
from pipelines.jobs.task import Probe
from pipelines.runtime.worker_pool import Report
from pipelines.sources.videos import VideoSource
from pipelines.storage.frames_file import FRAMES_SCHEMA, FrameWriter, new_frames_file
from pipelines.storage.jpeg import encode_jpeg
from pipelines.video.decoding import VideoReader
from pipelines.video.timing import FrameClock

_REPORTED = 16  # frames between two reports of progress
_PROBED = 24  # frames: a quarter of a second or less; the first ones cost more


@dataclass(frozen=True)
class FrameTask:
    """One video: its source, the file to make, and how."""

    source: VideoSource
    target: Path
    short_side: int | None
    allow_truncated: bool
    allow_damaged: bool = False


def store_frames(task: FrameTask, report: Report) -> int:
    """Stores one video; returns T. Raises `VideoError`, also beside imported flow of another size; `StorageError`."""
    with _open(task) as reader, new_frames_file(task.target) as writer:
        require_imported_size(task.target, FRAMES_SCHEMA, reader.width, reader.height)
        for picture in reader:
            writer.append(encode_jpeg(picture))
            if reader.decoded % _REPORTED == 0:
                report(_REPORTED)
        report(reader.decoded % _REPORTED)
        writer.finish(video_attributes(task, reader), reader.timing.times)
    return reader.decoded


def store_segments(tasks: Sequence[FrameTask], report: Report) -> list[int | VideoError]:
    """Stores segments of one video; returns T of each, or why it cannot be stored. Raises `StorageError`."""
    targets = Targets[FrameTask, FrameWriter](lambda task: new_frames_file(task.target))

    def store(tasks: Sequence[FrameTask], clock: FrameClock | None) -> None:
        with _open(tasks[0]) as reader:
            tasks = fitting(reader, tasks, targets, FRAMES_SCHEMA)
            if not tasks:
                return
            for picture, parts, ended in deal(reader, tasks, clock, lambda: report(0)):
                for part in ended:
                    if part.problem:
                        targets.fail(part, part.problem)
                        continue
                    targets.writer(part).finish(part.attributes, part.times)
                    targets.close(part, part.frames)
                if picture is not None and parts:
                    jpeg = encode_jpeg(picture)
                    for part in parts:
                        targets.writer(part).append(jpeg)
                    report(len(parts))

    return store_parts(tasks, targets, store, lambda: report(0))


def _open(task: FrameTask) -> VideoReader:
    allowed = {"allow_truncated": task.allow_truncated, "allow_damaged": task.allow_damaged}
    return VideoReader(task.source.file, task.short_side, **allowed)


def probe(task: FrameTask, place: float | None, report: Report) -> Probe:
    """Encodes a video's beginning as JPEGs: frames cost the same everywhere."""
    with VideoReader(task.source.file, task.short_side, allow_truncated=True, allow_damaged=True) as reader:
        frames = announced_frames(task, reader)
        if place is None:
            return Probe(frames)
        started = time.perf_counter()
        sizes = [encode_jpeg(picture).size for picture in islice(reader, _PROBED)]
        seconds = time.perf_counter() - started
        return Probe(frames, seconds / len(sizes) * frames, sum(sizes) / len(sizes) * frames)
