"""Stores the frames of one video from its pictures, in a worker process of `import-frames`.

Letters: T frames, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipelines.interface.wording import plural
from pipelines.jobs.task import Probe
from pipelines.layouts.importing import (
    ImportTask,
    PictureBytes,
    WidthHeight,
    import_attributes,
    measured,
    require_match,
    require_one_size,
)
from pipelines.layouts.pictures import decode_frame, is_jpeg
from pipelines.runtime.worker_pool import Report
from pipelines.storage.frames_file import FRAMES_SCHEMA, FrameWriter, new_frames_file
from pipelines.storage.jpeg import encode_jpeg
from pipelines.video.resize import resize, stored_size

AS_FOUND = 0
"""The attribute `jpeg_quality` where JPEGs keep their bytes: their quality is not known."""
_REPORTED = 16  # frames between two reports of progress


@dataclass(frozen=True)
class ImportFramesTask(ImportTask):
    short_side: int | None
    """Pictures of another one are resized; None: all stay as they are."""


def store_frames(task: ImportFramesTask, report: Report) -> int:
    """Stores one video; returns T. Raises `VideoError`, `StorageError`."""
    (found,) = task.pictures()
    frames, read = len(found.paths), PictureBytes()
    with new_frames_file(task.target) as writer:
        source, stored, coded = _append(found.paths, task.short_side, read, writer, report)
        require_match(task, FRAMES_SCHEMA, f"{plural(frames, 'frame')} of {stored[0]}x{stored[1]}", frames, stored)
        timing = task.timing(frames)
        about = import_attributes(task, [found], read, timing, stored, source)
        writer.finish(about if coded else {**about, "jpeg_quality": AS_FOUND}, timing.times)
    return frames


def probe(task: ImportFramesTask, place: float | None, report: Report) -> Probe:
    """Imports a video's beginning into memory."""

    def append(file: h5py.File, paths: list[list[Path]]) -> None:
        _append(paths[0], task.short_side, PictureBytes(), FrameWriter(Path("probe"), file), report)

    return measured(task, place, append)


def _append(
    paths: Sequence[Path], short_side: int | None, read: PictureBytes, writer: FrameWriter, report: Report
) -> tuple[WidthHeight, WidthHeight, bool]:
    """Appends all pictures. JPEGs keep their bytes, unless their size is not the one asked for. Returns the size of the
    pictures, the one that is stored, and whether any had to be encoded here."""
    source: WidthHeight | None = None
    stored, coded = (0, 0), False
    for number, path in enumerate(paths, start=1):
        data = read.read(path)
        picture = decode_frame(data, path)
        size = picture.shape[1], picture.shape[0]
        require_one_size(path, size, source)
        if source is None:
            source, stored = size, size if short_side is None else stored_size(*size, short_side)
        if is_jpeg(data) and size == stored:
            writer.append(np.frombuffer(data, np.uint8))
        else:
            coded = True
            writer.append(encode_jpeg(resize(picture, *stored)))
        if number % _REPORTED == 0:
            report(_REPORTED)
    report(len(paths) % _REPORTED)
    assert source is not None
    return source, stored, coded
