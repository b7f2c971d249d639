"""The flow of one video, from its frames to its file, as a worker process of `extract-flow` makes it.

Letters: T frames, F = T - step fields, N pairs of a batch, H W pixels.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from pipelines.artifacts import ArtifactError, Compression, FlowWriter, FrameFile, new_flow_file
from pipelines.errors import VideoError
from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.methods import FlowMethod, make_method
from pipelines.optical_flow.quantise import quantise
from pipelines.video.decoding import VideoReader
from pipelines.video.extraction import (
    PROBED_FRAMES,
    Probe,
    library_versions,
    picture_attributes,
    source_attributes,
)
from pipelines.video.sources import VideoSource
from pipelines.workers import Report


@dataclass(frozen=True)
class FlowTask:
    """One video: its source, the file to make, and how."""

    source: VideoSource
    target: Path
    from_video: bool
    """The source is a video file; otherwise a frames artifact."""
    short_side: int | None
    allow_truncated: bool
    method: str
    method_options: tuple[tuple[str, str], ...]
    engine: str
    device: str
    bound: float
    step: int
    compression: Compression
    settings: dict[str, Any]
    """The attributes that say how the flow was made."""


def store_flow(task: FlowTask, report: Report) -> int:
    """Stores the flow of one video; returns F. Raises `VideoError`, `StorageError`."""
    with _open_frames(task) as frames, new_flow_file(task.target, task.compression) as writer:
        fields = 0
        for quantised in quantised_flow(frames, _method(task), task.step, task.bound):
            writer.append(quantised)
            fields += len(quantised)
            report(len(quantised))
        _require_pairs(fields, frames.count, task.step)
        writer.finish({**frames.attributes(), **task.settings})
    return fields


def probe(task_and_measure: tuple[FlowTask, bool], report: Report) -> Probe:
    """Counts a video's frames; with `measure`, computes the flow of the first few and compresses it in memory."""
    task, measure = task_and_measure
    with _open_frames(task) as frames:
        if not measure:
            return Probe(frames.announced)
        method = _method(task)
        started = time.perf_counter()
        first = islice(frames, PROBED_FRAMES + task.step)
        batches = list(quantised_flow(first, method, task.step, task.bound))
        fields = sum(map(len, batches))
        _require_pairs(fields, frames.count, task.step)
        size = _stored_bytes(batches, task.compression)
        return Probe(frames.announced, (time.perf_counter() - started) / fields, size / fields)


def quantised_flow(frames: Iterable[np.ndarray], method: FlowMethod, step: int, bound: float) -> Iterator[np.ndarray]:
    """The flow of RGB frames uint8 [H, W, 3], a batch at a time: uint8 [N, 2, H, W]; T - step fields in all."""
    prepared = (to_grey(frame) if method.input == "grey" else frame.transpose(2, 0, 1) for frame in frames)
    for before, after in pair_batches(prepared, step, method.batch_size):
        flow = method.flow(torch.from_numpy(np.stack(before)), torch.from_numpy(np.stack(after)))
        yield quantise(flow, bound).cpu().numpy()


def pair_batches(
    frames: Iterable[np.ndarray], step: int, size: int
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Pairs (t, t + step) in order, `size` at a time and the rest last. Holds step + size frames."""
    window: list[np.ndarray] = []
    for frame in frames:
        window.append(frame)
        if len(window) == step + size:
            yield window[:size], window[step:]
            del window[:size]
    rest = len(window) - step
    if rest > 0:
        yield window[:rest], window[step:]


def _require_pairs(fields: int, frames: int, step: int) -> None:
    if fields == 0:
        has = "1 frame" if frames == 1 else f"{frames} frames"
        at = "" if step == 1 else f" at --step {step}"
        raise VideoError(f"has {has}; flow{at} needs at least {step + 1}")


def _method(task: FlowTask) -> FlowMethod:
    return _cached_method(task.method, task.method_options, task.device, task.engine)


@lru_cache(maxsize=1)
def _cached_method(name: str, options: tuple[tuple[str, str], ...], device: str, engine: str) -> FlowMethod:
    """The process's method, made once: weights are not loaded for every video."""
    return make_method(name, dict(options), device, engine)


def _stored_bytes(batches: Sequence[np.ndarray], compression: Compression) -> int:
    import h5py

    with h5py.File("probe", "w", driver="core", backing_store=False) as file:
        writer = FlowWriter(Path("probe"), file, compression)
        for fields in batches:
            writer.append(fields)
        assert writer.flow is not None
        return writer.flow.id.get_storage_size()


# ------------------------------------------------------------------ where frames come from


class _DecodedFrames:
    """The frames of a video file, and what is to be stored about them."""

    def __init__(self, task: FlowTask) -> None:
        self.task = task
        self.reader = VideoReader(task.source.path, task.short_side, allow_truncated=task.allow_truncated)
        self.announced = self.reader.announced_frames

    @property
    def count(self) -> int:
        return self.reader.decoded

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.reader)

    def attributes(self) -> dict[str, Any]:
        about_source = source_attributes(self.task, self.reader.decoded, self.reader.fps)
        return {**about_source, **picture_attributes(self.reader)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reader.close()


class _StoredFrames:
    """The same of a frames artifact: what that says about its own source holds for the flow too."""

    _KEPT = (
        *("source", "source_sha256", "source_bytes", "source_frames", "fps", "short_side", "width", "height"),
        *("source_width", "source_height", "container_frames", "truncated", "decoded_frames", "jpeg_quality"),
    )

    def __init__(self, task: FlowTask) -> None:
        with _damage_fails_the_video():
            self.file = FrameFile(task.source.path)
        self.count = self.announced = len(self.file)

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(self.count):
            with _damage_fails_the_video():
                frame = self.file.read_one(index)
            yield frame

    def attributes(self) -> dict[str, Any]:
        made = self.file.attributes
        kept = {name: made[name] for name in self._KEPT if name in made}
        return {**kept, "frames_sha256": made["content_sha256"], "library_versions": library_versions()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def _open_frames(task: FlowTask) -> _DecodedFrames | _StoredFrames:
    return _DecodedFrames(task) if task.from_video else _StoredFrames(task)


@contextlib.contextmanager
def _damage_fails_the_video() -> Iterator[None]:
    try:
        yield
    except ArtifactError as error:
        raise VideoError(str(error)) from error
