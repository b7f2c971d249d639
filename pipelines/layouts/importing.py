"""What importing frames and importing flow share: which videos are to do, their provenance, and whether both belong
together.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pipelines.errors import VideoError
from pipelines.jobs.attributes import stored_library_versions, timing_attributes
from pipelines.jobs.dry_run import Probe, estimate
from pipelines.jobs.resume import SourceKind, Stamp, divide
from pipelines.jobs.run import dry_run_result, extract
from pipelines.jobs.task import ExtractResult
from pipelines.layouts.finding import PictureFolder, find_folders
from pipelines.layouts.pictures import Pictures, Series, list_pictures, read_picture
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Report
from pipelines.sources.videos import VideoSource
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import USUAL_FPS, ArtifactError, even_times, peek
from pipelines.video.timing import Timing
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    import h5py

_MEASURED = 64  # pictures of each kind, for an estimate
Size = tuple[int, int]
"""Width and height, pixels."""


@dataclass(frozen=True)
class ImportTask:
    """One video's pictures, where they go, and what the user said of them."""

    source: VideoSource
    series: tuple[Series, ...]
    """Of frames one, of flow two: x and y."""
    target: Path
    other: Path
    """The artifact of the same video that must fit: flow for frames, frames for flow."""
    fps: float | None
    first: int | None
    step: int

    def timing(self, frames: int) -> Timing:
        """Of so many frames at the rate given, or at 25 a second."""
        fps = float(self.fps or USUAL_FPS)
        return Timing(even_times(frames, fps), fps, "given" if self.fps else "assumed")


Task = TypeVar("Task", bound=ImportTask)


class ImportConfig(Protocol):
    """The settings that both stages have."""

    @property
    def workspace(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    @property
    def class_list(self) -> Path | None: ...
    @property
    def fps(self) -> float | None: ...
    @property
    def first(self) -> int | None: ...
    @property
    def workers(self) -> int: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def dry_run(self) -> bool: ...


def run_import(
    stage: str,
    content: Literal["frames", "flow"],
    config: ImportConfig,
    *,
    make_task: Callable[[PictureFolder, Workspace], Task],
    conflict: Callable[[dict[str, Any]], str],
    store: Callable[[Task, Report], int],
    probe: Callable[[tuple[Task, float | None], Report], Probe],
    on_progress: OnProgress,
) -> ExtractResult:
    """Imports all videos that are not stored yet, or estimates that. `conflict` is `divide`'s; `store` imports one
    video in a process of its own, `probe` measures one for `estimate`.

    Raises `MissingError` where there are no videos, `UsageError` where artifacts were made with other settings,
    `StorageError` where writing fails.
    """
    workspace = Workspace(config.workspace)
    found = ranks().broadcast_from_rank0(lambda: find_folders(config.folder, content, config.class_list))
    tasks = [make_task(folder, workspace) for folder in found.folders]
    schema, unit = {"frames": (FRAMES_SCHEMA, "frames"), "flow": (FLOW_SCHEMA, "pairs")}[content]
    division = divide(
        tasks,
        found.problems,
        schema,
        _PICTURES,
        overwrite=config.overwrite,
        conflict=conflict,
        workspace=workspace,
        stage=stage,
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    workers = config.workers or available_cores()
    if config.dry_run:
        cost = estimate(probe, division.to_do, workers=workers, stage=stage, on_progress=on_progress)
        return dry_run_result(stage, unit, division, ignored=found.ignored, estimate=cost)
    return extract(
        stage,
        store,
        division,
        workspace=workspace,
        folder=workspace.frames if content == "frames" else workspace.flow,
        workers=workers,
        unit=unit,
        ignored=found.ignored,
        on_progress=on_progress,
    )


def _stamp(task: ImportTask) -> Stamp:
    found = listed(task)
    return Stamp(
        _source_name(found), sum(pictures.bytes for pictures in found), max(pictures.mtime_ns for pictures in found)
    )


def _sha256(task: ImportTask) -> str:
    """As `PictureBytes` reads them: x and y of a field, then those of the next one."""
    read = PictureBytes()
    for paths in zip(*(pictures.paths for pictures in listed(task)), strict=True):
        for path in paths:
            read.read(path)
    return read.sha256()


_PICTURES: SourceKind[Any] = SourceKind(_stamp, _sha256)


def _source_name(found: Iterable[Pictures]) -> str:
    return " ".join(pictures.pattern for pictures in found)


# ------------------------------------------------------------------ one video, in a worker process


def listed(task: ImportTask) -> list[Pictures]:
    """The pictures of each series. Raises `VideoError` where they are incomplete, or not the same in both."""
    found = [list_pictures(series, first=task.first, step=task.step) for series in task.series]
    x, y = found[0], found[-1]
    if (len(x.paths), x.first) != (len(y.paths), y.first):
        raise VideoError(f"has {_described(x)}, but {_described(y)}")
    return found


def _described(pictures: Pictures) -> str:
    last = pictures.first + len(pictures.paths) - 1
    return f"{len(pictures.paths)} pictures {pictures.pattern} ({pictures.first}..{last})"


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
    task: ImportTask, found: Sequence[Pictures], read: PictureBytes, timing: Timing, stored: Size, source: Size
) -> dict[str, Any]:
    """What both artifacts say of where they come from; `timing` is of the T frames of which the video was made."""
    return {
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


def require_one_size(path: Path, size: Size, before: Size | None) -> None:
    """Raises `VideoError` where a picture is not of the same size as those before it."""
    if before is not None and size != before:
        raise VideoError(
            f"{path.name} is of {size[0]}x{size[1]} pixels, the pictures before it of {before[0]}x{before[1]}"
        )


def require_match(task: ImportTask, schema: str, has: str, frames: int, size: Size) -> None:
    """Raises `VideoError` where the video's other artifact is of another number of frames or another size.

    `has` says in words what this one is made of.
    """
    try:
        other: Mapping[str, Any] = peek(task.other, schema)
    except ArtifactError:  # absent, or to be made again
        return
    theirs = other.get("source_frames"), other.get("width"), other.get("height")
    if theirs != (frames, *size):
        raise VideoError(f"has {has}, but {task.other} is of {theirs[0]} frames of {theirs[1]}x{theirs[2]}")


# ------------------------------------------------------------------ what it will cost


def measured(found: Sequence[Pictures], append: Callable[["h5py.File", list[list[Path]]], None] | None) -> Probe:
    """How many pictures a video has, and with `append`, which stores those it is given in an HDF5 file, what storing
    all would take, from its first ones."""
    import h5py

    count = len(found[0].paths)
    if append is None:
        return Probe(count)
    started, content = time.perf_counter(), io.BytesIO()
    with h5py.File(content, "w") as file:
        append(file, [pictures.paths[:_MEASURED] for pictures in found])
    share = min(count, _MEASURED) / count
    return Probe(count, (time.perf_counter() - started) / share, content.getbuffer().nbytes / share)
