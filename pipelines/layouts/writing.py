"""Writes the flow of one video as pictures, in a worker process of `export-flow`.

Letters: F fields, n of them at once, H W pixels.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipelines.errors import VideoError
from pipelines.interface.options import PictureFormat
from pipelines.jobs.task import Probe
from pipelines.layouts.names import FLOW_LAYOUTS, LayoutName
from pipelines.runtime.worker_pool import Report
from pipelines.sources.videos import VideoSource
from pipelines.storage.atomic import storage_errors, temporary_name
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.hdf5 import damage_fails_the_video
from pipelines.storage.jpeg import JPEG_QUALITY
from pipelines.storage.quantise import GREYS

_AT_ONCE = 16  # fields read, written and reported together
_MEASURED = 64  # fields, for an estimate


@dataclass(frozen=True)
class ExportTask:
    """One flow artifact, `source.path`, and the folder to write its pictures below."""

    source: VideoSource
    target: Path
    fields: int
    step: int
    layout: LayoutName
    format: PictureFormat

    @property
    def partial(self) -> Path:
        """The folder for unfinished folders."""
        return partial_folder(self.target)

    def folders(self) -> list[Path]:
        """The folders to make: one, or one for x and one for y."""
        names = FLOW_LAYOUTS[self.layout].folders(self.source.class_name, self.source.video)
        return [self.target / name for name in names]


def partial_folder(output: Path) -> Path:
    return output / ".partial"


def is_done(task: ExportTask) -> bool:
    """Whether the task's folders hold as many pictures as there are fields, and are newer than the artifact."""
    folders = task.folders()
    wanted = 2 * task.fields // len(folders)
    with contextlib.suppress(OSError):
        made = task.source.path.stat().st_mtime_ns
        return all(folder.stat().st_mtime_ns >= made and len(os.listdir(folder)) == wanted for folder in folders)
    return False


def write_pictures(task: ExportTask, report: Report) -> int:
    """Writes one video's flow; returns F. Raises `VideoError`, `StorageError`.

    Its folders get their names when they are complete. Their pictures are not synced one by one, which would take
    longer than everything else.
    """
    final = task.folders()
    with (
        _new_folders(task.partial, final) as temporary,
        damage_fails_the_video(),
        FlowFile(task.source.path) as file,
    ):
        for start in range(0, len(file), _AT_ONCE):
            fields = file.read(start, min(start + _AT_ONCE, len(file)))
            for index, field in enumerate(fields, start=start):
                for component, plane in enumerate(field):
                    folder = temporary[component % len(temporary)]
                    name = FLOW_LAYOUTS[task.layout].name(component, index, task.step, task.format)
                    with storage_errors(final[0]):
                        (folder / name).write_bytes(_encode(GREYS[plane], task.format))
            report(len(fields))
        return len(file)


@contextlib.contextmanager
def _new_folders(partial: Path, final: list[Path]) -> Iterator[list[Path]]:
    """Folders to fill, which replace those of the final names when the block ends without an exception."""
    temporary, replaced = ([temporary_name(partial / path.name) for path in final] for _ in range(2))
    try:
        with storage_errors(partial):
            for folder in temporary:
                folder.mkdir(parents=True)
        yield temporary
        for folder, before, path in zip(temporary, replaced, final, strict=True):
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists():
                    os.replace(path, before)
                os.replace(folder, path)
    finally:
        for folder in (*temporary, *replaced):
            shutil.rmtree(folder, ignore_errors=True)


def _encode(plane: np.ndarray, format_: PictureFormat) -> bytes:
    """Grey uint8 [H, W] as the bytes of a file. Raises `VideoError` for a picture too large for a JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if format_ == "jpg" else []
    done, data = cv2.imencode(f".{format_}", np.ascontiguousarray(plane), options)
    if not done:
        raise VideoError(f"fields of {plane.shape[1]}x{plane.shape[0]} cannot be written as {format_}")
    return data.tobytes()


def probe(task: ExportTask, place: float | None, report: Report) -> Probe:
    """Codes a video's beginning."""
    if place is None or not task.fields:
        return Probe(task.fields)
    started = time.perf_counter()
    with damage_fails_the_video(), FlowFile(task.source.path) as file:
        fields = file.read(0, min(_MEASURED, len(file)))
    size = sum(len(_encode(GREYS[plane], task.format)) for field in fields for plane in field)
    share = len(fields) / task.fields
    return Probe(task.fields, (time.perf_counter() - started) / share, size / share)
