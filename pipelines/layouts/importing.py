"""What importing frames and importing flow share: the task of one video, its provenance, and whether frames and flow
belong together.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py

from pipelines.errors import VideoError
from pipelines.jobs.attributes import stored_library_versions, timing_attributes
from pipelines.jobs.resume import Sources, Stamp, other_artifact
from pipelines.jobs.task import Probe
from pipelines.layouts.pictures import Pictures, Series, list_pictures, read_picture
from pipelines.sources.videos import VideoSource
from pipelines.storage.hdf5 import USUAL_FPS, ArtifactError, even_times, peek
from pipelines.video.timing import Timing

_MEASURED = 64  # pictures of each kind, for an estimate
WidthHeight = tuple[int, int]
"""Pixels."""


@dataclass(frozen=True)
class ImportTask:
    """One video's pictures, where they go, and what the user said of them."""

    source: VideoSource
    series: tuple[Series, ...]
    """Of frames one, of flow two: x and y."""
    target: Path
    fps: float | None
    first: int | None
    step: int

    def timing(self, frames: int) -> Timing:
        """The timing of so many frames at the rate given, or at 25 a second."""
        fps = float(self.fps or USUAL_FPS)
        return Timing(even_times(frames, fps), fps, "given" if self.fps else "assumed")

    def pictures(self) -> list[Pictures]:
        """The pictures of each series. Raises `VideoError` where they are incomplete, or not the same in both."""
        found = [list_pictures(series, first=self.first, step=self.step) for series in self.series]
        x, y = found[0], found[-1]
        if (len(x.paths), x.first) != (len(y.paths), y.first):
            raise VideoError(f"has {x}, but {y}")
        return found


Task = TypeVar("Task", bound=ImportTask)


class PictureSeries(Sources[Task]):
    """Sources that are pictures in folders."""

    def stamp(self, task: Task) -> Stamp:
        found = task.pictures()
        size, mtime_ns = sum(pictures.bytes for pictures in found), max(pictures.mtime_ns for pictures in found)
        return Stamp(_source_name(found), size, mtime_ns)

    def sha256(self, task: Task) -> str:
        """As importing reads them: x and y of a field, then those of the next one."""
        read = PictureBytes()
        for paths in zip(*(pictures.paths for pictures in task.pictures()), strict=True):
            for path in paths:
                read.read(path)
        return read.sha256()


def _source_name(found: Iterable[Pictures]) -> str:
    return " ".join(pictures.pattern for pictures in found)


# ------------------------------------------------------------------ one video, in a worker process


class PictureBytes:
    """Reads pictures one after the other, counting and hashing what they hold."""

    def __init__(self) -> None:
        self.bytes = 0
        self._digest = hashlib.sha256()

    def read(self, path: Path) -> bytes:
        """Raises `VideoError`."""
        data = read_picture(path)
        self.bytes += len(data)
        self._digest.update(data)
        return data

    def sha256(self) -> str:
        return self._digest.hexdigest()


def import_attributes(
    task: ImportTask,
    found: Sequence[Pictures],
    read: PictureBytes,
    timing: Timing,
    stored: WidthHeight,
    source: WidthHeight,
) -> dict[str, Any]:
    """The attributes of both artifacts about their source; `timing` is that of the video's T frames."""
    split = {"source_split": task.source.split} if task.source.split else {}
    return split | {
        "source": _source_name(found),
        "source_sha256": read.sha256(),
        "source_bytes": read.bytes,
        "source_mtime_ns": max(pictures.mtime_ns for pictures in found),
        "source_frames": len(timing.times),
        **timing_attributes(timing),
        "short_side": min(stored),
        "width": stored[0],
        "height": stored[1],
        "source_width": source[0],
        "source_height": source[1],
        "container_frames": 0,
        "library_versions": stored_library_versions(),
    }


def require_one_size(path: Path, size: WidthHeight, before: WidthHeight | None) -> None:
    """Raises `VideoError` where a picture differs in size from those before it."""
    if before is not None and size != before:
        raise VideoError(
            f"{path.name} has {size[0]}x{size[1]} pixels, the pictures before it have {before[0]}x{before[1]}"
        )


def require_match(task: ImportTask, schema: str, has: str, frames: int, size: WidthHeight) -> None:
    """Checks the result against the video's other artifact: flow for frames, frames for flow.

    Args:
        has: What the result is made of, in words.
        frames: Its number of frames.
        size: Its width and height.

    Raises:
        VideoError: The other artifact has another number of frames or another size.
    """
    path, other_schema = other_artifact(task.target, schema)
    try:
        other = peek(path, other_schema)
    except ArtifactError:  # absent, or to be made again
        return
    theirs = other.get("source_frames"), other.get("width"), other.get("height")
    if theirs != (frames, *size):
        raise VideoError(f"has {has}, but {path} has {theirs[0]} frames of {theirs[1]}x{theirs[2]}")


# ------------------------------------------------------------------ what it will cost


def measured(task: ImportTask, place: float | None, append: Callable[[h5py.File, list[list[Path]]], None]) -> Probe:
    """Measures what storing a video's pictures takes, from its first ones: they cost the same everywhere.

    Args:
        place: None: only counts the pictures.
        append: Stores the pictures of each series that it is given in an HDF5 file.
    """
    found = task.pictures()
    count = len(found[0].paths)
    if place is None:
        return Probe(count)
    started, content = time.perf_counter(), io.BytesIO()
    with h5py.File(content, "w") as file:
        append(file, [pictures.paths[:_MEASURED] for pictures in found])
    share = min(count, _MEASURED) / count
    return Probe(count, (time.perf_counter() - started) / share, content.getbuffer().nbytes / share)
