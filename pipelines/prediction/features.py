"""The features of one video, in a worker process of `extract-features`: what the network's classifiers are given.

Letters: N rows, C channels of a stream, T frames that go through the network together.
"""

import functools
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pipelines.datasets.artifact_reader import DecodedClip
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scoring import mean_features
from pipelines.interface.options import StreamName
from pipelines.jobs.attributes import video_attributes
from pipelines.jobs.task import Probe
from pipelines.prediction.inputs import FramePlan
from pipelines.prediction.predictor import DecodedVideo, OnFrames, Predictor, Reader
from pipelines.prediction.sliding import Slider, WindowSlider, slide
from pipelines.prediction.windows import EXACT, Duration, Span
from pipelines.runtime.devices import keep_freed_memory
from pipelines.runtime.worker_pool import Report
from pipelines.sources.videos import VideoSource
from pipelines.storage.atomic import json_text, storage_errors, write_bytes
from pipelines.storage.hdf5 import USUAL_FPS, HDF5ArtifactWriter, new_file
from pipelines.training.runs import Run
from pipelines.video.decoding import VideoReader

FEATURES_SCHEMA = "stres/features/1"
_REPORTED = 16  # frames between two reports of progress
_CHUNK = 256  # rows
_PROBED = 3  # windows, of which the first costs more

Per = Literal["clip", "window", "frame"]
Features = dict[str, np.ndarray]
"""Of each stream: float32 [C]."""


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the numbers of a row, and which rows there are."""

    run: str
    network: str
    weights_sha256: str
    streams: tuple[StreamName, ...]
    per: Per
    window: Duration | None
    """None but per window."""
    hop: Duration | None
    fps: float | None
    """Rows a second, per frame; None: one for every frame."""
    protocol: Protocol
    precision: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        lengths = {name: of and str(of) for name, of in (("window", self.window), ("hop", self.hop))}
        return asdict(self) | lengths | {"streams": list(self.streams), "protocol": self.protocol.document()}


@dataclass(frozen=True)
class Extractor:
    """How a worker makes features."""

    run: Run
    settings: FeatureSettings
    device: str
    method_options: tuple[tuple[str, str], ...] = ()
    allow_truncated: bool = False
    allow_damaged: bool = False


@functools.lru_cache(maxsize=1)
def predictor_of(extractor: Extractor) -> Predictor:
    """The network, loaded once in a worker."""
    keep_freed_memory()
    predictor = Predictor(
        extractor.run,
        extractor.settings.protocol,
        torch.device(extractor.device),
        precision=extractor.settings.precision,
        options=dict(extractor.method_options),
        allow_truncated=extractor.allow_truncated,
        # In this very process, which is replaced where a video ends it.
        open_video=functools.partial(VideoReader, allow_damaged=extractor.allow_damaged),
    )
    if extractor.settings.per == "frame":
        for stream in predictor.scorer.network.streams.values():  # a copy of the scorer's own
            stream.temporal_pool = None
    return predictor


@dataclass(frozen=True)
class FeatureTask:
    """One video: its source, the HDF5 file to make, and how."""

    source: VideoSource
    target: Path
    extractor: Extractor

    @property
    def array(self) -> Path:
        """The same features as one array."""
        return self.target.with_name(f"{self.target.name.removesuffix('.h5')}.npy")


class Rows(NamedTuple):
    """The features of a video."""

    spans: list[Span]
    """Of each row the frames start..end-1."""
    features: list[Features]
    seconds: np.ndarray
    """When each row's frames begin and end: float64 [N, 2]."""
    frames: int
    """Of the video."""


def store_features(task: FeatureTask, report: Report) -> int:
    """Stores one video's features as HDF5, and before it as .npy; returns its number of frames. Raises `VideoError`,
    `StorageError`.

    .npy: float32 [N, channels of all streams], the streams one after the other. HDF5: `appearance` and `motion`,
    float32 [N, C]; `frames`, int64 [N, 2], and `seconds`, float64 [N, 2]: where each row begins and ends.
    """
    settings = task.extractor.settings
    reported = 0
    attributes: dict[str, Any] = {}

    def on_frames(done: int, total: int) -> None:
        nonlocal reported
        if done >= reported + _REPORTED:
            report(done - reported)
            reported = done

    def at_end(reader: Reader) -> None:
        assert isinstance(reader, VideoReader)
        attributes.update(video_attributes(task, reader))

    rows = rows_of(task.extractor, task.source.file, on_frames, at_end)
    report(max(0, rows.frames - reported))
    arrays = {name: np.stack([row[name] for row in rows.features]) for name in settings.streams}
    content = io.BytesIO()
    np.save(content, np.concatenate(list(arrays.values()), axis=1))
    write_bytes(task.array, content.getvalue())
    with new_file(task.target) as (file, check):
        writer = FeatureWriter(task.target, file, check)
        for name, values in (arrays | {"frames": np.array(rows.spans, "<i8"), "seconds": rows.seconds}).items():
            writer.add(name, values)
        channels = {name: values.shape[1] for name, values in arrays.items()}
        attributes |= {"rows": len(rows.spans), "duration": float(rows.seconds[-1, 1]), "channels": json_text(channels)}
        writer.finish(attributes | {"settings": json_text(settings.document())})
    return rows.frames


class FeatureWriter(HDF5ArtifactWriter):
    """Writes a features artifact."""

    schema = FEATURES_SCHEMA

    def add(self, name: str, values: np.ndarray) -> None:
        """Adds a data set. Raises `StorageError`."""
        with storage_errors(self.path):
            chunk = (min(len(values), _CHUNK), values.shape[1])
            self.file.create_dataset(name, data=values, fletcher32=True, chunks=chunk)
            self.check()
        self.digest.update(values.tobytes())


def rows_of(
    extractor: Extractor,
    path: Path,
    on_frames: OnFrames,
    at_end: Callable[[Reader], None] = lambda reader: None,
    most: int | None = None,
) -> Rows:
    """The rows of a video, or of its first `most` frames. Raises `VideoError`."""
    predictor, settings = predictor_of(extractor), extractor.settings

    def look(plan: FramePlan, pixels: DecodedClip) -> Features:
        if settings.per == "frame":
            whole = [range(len(plan.centers))]
            means = predictor.mean(pixels, lambda stream, maps: stream.features(maps).float(), whole)  # [B, T, C]
        else:
            means = predictor.mean(pixels, mean_features)
        return {name: means[name].astype("<f4") for name in settings.streams}

    if settings.per == "clip":
        video = DecodedVideo(predictor, path, on_frames, at_end)
        frames = len(video.timing.times)
        seconds = np.array([[0.0, video.timing.duration]])
        plan = predictor.plan(0, frames)
        return Rows([(0, frames)], [look(plan, video.pixels)], seconds, frames)

    def make() -> Slider[Features]:
        if settings.per == "frame":
            return FrameSlider(predictor, look, settings.protocol.frames, settings.fps)
        assert settings.window is not None
        assert settings.hop is not None
        return WindowSlider(predictor, look, settings.window, settings.hop)

    by_number = settings.fps is None and all(one is None or one.in_frames for one in (settings.window, settings.hop))
    slider, timing = slide(predictor, path, make, on_frames, by_number=by_number, at_end=at_end, most=most)
    times = np.append(timing.times, timing.duration)
    return Rows(slider.spans, slider.values, times[np.array(slider.spans)], slider.count)


class FrameSlider(Slider[Features]):
    """Has a row for every frame, or for `fps` frames a second: the first one shown at or after each k / fps.

    T neighbouring ones of them go through the network together, each with the flow around it. The last T of a video
    take in some that have a row already, so that no frame is looked at with fewer than T beside it in a longer video.
    """

    def __init__(
        self,
        predictor: Predictor,
        look: Callable[[FramePlan, DecodedClip], Features],
        together: int,
        fps: float | None,
    ) -> None:
        super().__init__(predictor, look)
        self.together, self.fps = together, fps
        self.centers: list[int] = []
        self._due = 0.0
        stack = predictor.stack
        self._before, self._after = stack // 2, stack - stack // 2 - 1 + predictor.flow.settings.step
        if "motion" not in predictor.streams:
            self._before = self._after = 0

    def advance(self, time: float) -> None:
        if self.fps is None or time >= self._due - EXACT:
            self.centers.append(self.count - 1)
            if self.fps is not None:
                self._due = (np.floor(time * self.fps + EXACT) + 1) / self.fps
        while len(self.centers) >= (stop := len(self.spans) + self.together):
            if self.centers[stop - 1] + self._after >= self.count:
                break
            self._look_at(stop)
        passed = self.count - 2 - self._before  # which no later frame needs
        first = max(0, len(self.spans) - self.together + 1)
        if not any(-self._before <= passed - center <= self._after for center in self.centers[first:]):
            self.frames.pop(passed, None)

    def finish(self, end: float) -> None:
        while len(self.spans) < len(self.centers):
            self._look_at(min(len(self.spans) + self.together, len(self.centers)))

    def oldest(self) -> int:
        first = max(0, len(self.spans) - self.together + 1)  # the last T may reach back to it
        return max(0, ([*self.centers, self.count][first]) - self._before)

    def _look_at(self, stop: int) -> None:
        """Looks at the T frames before `stop` of `centers`."""
        start = max(0, stop - self.together)
        plan = self.predictor.plan_of(self.centers[start:stop], self.count)
        values = self.seen(plan)
        for place in range(len(self.spans), stop):
            self.spans.append((self.centers[place], self.centers[place] + 1))
            self.values.append({name: of[place - start] for name, of in values.items()})


def probe(task: FeatureTask, place: float | None, report: Report) -> Probe:
    """Extracts the features of a video's first windows."""
    extractor, settings = task.extractor, task.extractor.settings
    with VideoReader(task.source.file, allow_truncated=True, allow_damaged=True) as reader:
        frames, fps = reader.announced_frames, reader.fps or USUAL_FPS
    if place is None:
        return Probe(frames)
    predictor_of(extractor)
    window = settings.window or Duration(settings.protocol.frames / (settings.fps or fps), in_frames=False)
    most = _PROBED * window.frames(fps)
    started = time.perf_counter()
    rows = rows_of(extractor, task.source.file, lambda done, total: report(0), most=most)
    seconds = time.perf_counter() - started
    scale = 1.0 if settings.per == "clip" else frames / rows.frames
    row = sum(of.size for of in rows.features[0].values())
    return Probe(frames, scale * seconds, scale * len(rows.features) * row * 4 * 2)
