"""Stores the flow of one video from its pictures, in a worker process of `import-flow`.

Letters: F fields, n of them at once, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipelines.interface.options import Compression
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
from pipelines.layouts.pictures import decode_component
from pipelines.runtime.worker_pool import Report
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowWriter, new_flow_file
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.quantise import LEVELS_OF_GREYS

_AT_ONCE = 16  # fields read, appended and reported together


@dataclass(frozen=True)
class ImportFlowTask(ImportTask):
    compression: Compression
    settings: FlowSettings


def store_flow(task: ImportFlowTask, report: Report) -> int:
    """Stores one video's flow, the values unchanged; returns F. Raises `VideoError`, `StorageError`."""
    x, y = task.pictures()
    fields, read = len(x.paths), PictureBytes()
    with new_flow_file(task.target, task.compression) as writer:
        size = _append(x.paths, y.paths, read, writer, report)
        frames = fields + task.step
        has = f"{plural(fields, 'field')} of {size[0]}x{size[1]}, the flow of {plural(frames, 'frame')}"
        require_match(task, FLOW_SCHEMA, has, frames, size)
        timing = task.timing(frames)
        about = import_attributes(task, (x, y), read, timing, size, size)
        writer.finish({**about, **task.settings.attributes()}, timing.times)
    return fields


def probe(task: ImportFlowTask, place: float | None, report: Report) -> Probe:
    """Imports a video's beginning into memory."""

    def append(file: h5py.File, paths: list[list[Path]]) -> None:
        _append(paths[0], paths[1], PictureBytes(), FlowWriter(Path("probe"), file, task.compression), report)

    return measured(task, place, append)


def _append(
    x: Sequence[Path], y: Sequence[Path], read: PictureBytes, writer: FlowWriter, report: Report
) -> WidthHeight:
    """Appends the fields of these components; returns their size."""
    paths = [path for pair in zip(x, y, strict=True) for path in pair]
    size: WidthHeight | None = None
    for start in range(0, len(paths), 2 * _AT_ONCE):
        planes = []
        for path in paths[start : start + 2 * _AT_ONCE]:
            plane = decode_component(read.read(path), path)
            require_one_size(path, (plane.shape[1], plane.shape[0]), size)
            size = plane.shape[1], plane.shape[0]
            planes.append(plane)
        writer.append(LEVELS_OF_GREYS[np.stack(planes)].reshape(-1, 2, *planes[0].shape))
        report(len(planes) // 2)
    assert size is not None
    return size
