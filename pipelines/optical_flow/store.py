"""The flow of one video, from its frames to its file, as a worker process of `extract-flow` makes it.

Letters: T frames, F = T - step fields, N pairs of a batch, H W pixels.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.errors import VideoError
from pipelines.interface.options import Compression
from pipelines.interface.wording import plural
from pipelines.jobs.attributes import SEGMENT_ATTRIBUTES, stored_library_versions, video_attributes
from pipelines.jobs.resume import require_imported_size
from pipelines.jobs.segments import announced_frames
from pipelines.optical_flow.batch import BatchFlow, begin_batch, method_input, work_on
from pipelines.optical_flow.displacement import DisplacementMeter
from pipelines.optical_flow.methods import FlowMethod, make_method
from pipelines.optical_flow.mixing import flow_by_mixer
from pipelines.runtime.closing import Closing
from pipelines.runtime.prefetch import prefetch
from pipelines.runtime.worker_pool import Report
from pipelines.sources.videos import VideoSource
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowWriter, new_flow_file
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import damage_fails_the_video
from pipelines.storage.quantise import quantise, require_finite
from pipelines.video.decoding import VideoReader

GPU_SECONDS = "gpu_seconds"
_LARGEST_RESIZED_ON_A_GPU = 640 * 480  # pixels: some batches of them wait in memory that the GPU reads from
_AHEAD = 2  # batches between two threads: one waits while the next is computed


@dataclass(frozen=True)
class FlowTask:
    """One video: its source, the file to make, and how."""

    source: VideoSource
    target: Path
    settings: FlowSettings
    method_options: tuple[tuple[str, str], ...] = ()
    engine: str = "auto"
    device: str = "cpu"
    short_side: int | None = None
    """Pixels that a video is resized to; None: by the rule of `stored_size`."""
    allow_truncated: bool = False
    allow_damaged: bool = False
    compression: Compression = "zstd"
    mixer: str = ""
    """Where the `Mixer` is, which computes the flow while it runs; "": nowhere."""

    @property
    def from_video(self) -> bool:
        """Whether the source is a video file rather than a frames artifact."""
        return self.settings.flow_input == "video"


def store_flow(task: FlowTask, report: Report) -> int:
    """Stores the flow of one video; returns F.

    Raises:
        VideoError: The source cannot be read, is too short, or does not fit frames that were imported.
        StorageError: The file cannot be written.
    """
    account = FlowAccount()
    with open_frames(task) as frames, new_flow_file(task.target, task.compression) as writer:
        if isinstance(frames, DecodedFrames):
            require_imported_size(task.target, FLOW_SCHEMA, frames.reader.width, frames.reader.height)
        fields = write_flow(frames, task, writer, report, account, frames.size)
        require_pairs(frames.count, task.settings.step)
        writer.finish({**frames.attributes(), **task.settings.attributes(), **account.attributes()}, frames.times)
    return fields


class FlowAccount:
    """What is learned of a video while its flow is made."""

    def __init__(self) -> None:
        self.displacement = DisplacementMeter()
        self.gpu_seconds = 0.0
        self.engine = ""

    def add(self, made: BatchFlow) -> None:
        self.displacement.add(made.lengths)
        self.gpu_seconds += made.gpu_seconds
        self.engine = made.engine

    def attributes(self) -> dict[str, Any]:
        """What a flow file says of it."""
        moved = self.displacement.result()
        attributes = {"engine": self.engine, **(moved.attributes() if moved else {})}
        return attributes | ({GPU_SECONDS: self.gpu_seconds} if self.gpu_seconds else {})


def write_flow(
    frames: Iterable[np.ndarray],
    task: FlowTask,
    writer: FlowWriter,
    report: Report,
    account: FlowAccount,
    size: tuple[int, int] | None = None,
) -> int:
    """Appends the flow of all `frames` and adds it to `account`; returns F. However it ends, no thread is left."""
    fields = 0
    flow = quantised_flow(frames, method_of(task), task.settings, task.device, size, task.mixer)
    with contextlib.closing(flow) as batches:
        for made in batches:
            account.add(made)
            writer.append(made.fields.numpy())
            fields += len(made.fields)
            report(len(made.fields))
    return fields


def quantised_flow(
    frames: Iterable[np.ndarray | None],
    method: FlowMethod,
    settings: FlowSettings,
    device: str = "cpu",
    size: tuple[int, int] | None = None,
    mixer: str = "",
) -> Generator[BatchFlow]:
    """Computes the flow of all frames, a batch at a time. Close the generator when done.

    Frames are read in a thread, flow is computed in a second one, and the caller is the third, so that the flow never
    waits for a file while frames remain. Memory is that of some batches, whatever T. Only bytes travel to and from the
    device.

    Args:
        frames: RGB uint8 [H, W, 3] each; None where those before and those behind have no pairs together.
        settings: Whose step and bound to use.
        device: Where frames go and flow is quantised, if the method computes there.
        size: Height and width to which the method's device resizes the frames; None: they have their size.
        mixer: Where the `Mixer` is that computes in place of this process while it runs; "": nowhere.

    Yields:
        The flow of N pairs each; of T - step in all.
    """
    where = torch.device(device if method.uses_device else "cpu")
    batches = prefetch(_batches(frames, method, settings.step, where), _AHEAD)
    flow = prefetch(_flow_of(batches, method, settings, where, size, mixer), _AHEAD)
    with contextlib.closing(flow):
        for arrived in flow:
            yield arrived()


def _batches(
    frames: Iterable[np.ndarray | None], method: FlowMethod, step: int, device: torch.device
) -> Generator[torch.Tensor]:
    """Runs of what the method takes, uint8 [N + step, H, W] or [N + step, 3, H, W]; for a GPU, in memory that it can
    read, of frames [N + step, H, W, 3], of which it makes the rest."""
    work_on(device)
    if device.type == "cpu":
        frames = (None if frame is None else method_input(frame, method) for frame in frames)
    for run in runs_of_frames(frames, step, method.batch_size):
        batch = torch.empty((len(run), *run[0].shape), dtype=torch.uint8, pin_memory=device.type == "cuda")
        np.stack(run, out=batch.numpy())
        yield batch


def _flow_of(
    batches: Generator[torch.Tensor],
    method: FlowMethod,
    settings: FlowSettings,
    device: torch.device,
    size: tuple[int, int] | None,
    mixer: str,
) -> Generator[Callable[[], BatchFlow]]:
    """For each run of frames what waits for its flow."""
    work_on(device)
    with contextlib.closing(batches):
        for batch in batches:
            made = flow_by_mixer(mixer, batch, settings, size) if mixer else None
            if made is None:
                yield begin_batch(batch, method, settings, device, size)
            else:
                yield partial(BatchFlow, *made)


def fields_of_pairs(
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    method: FlowMethod,
    settings: FlowSettings,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """The quantised flow of some pairs: levels [N, 2, H, W].

    Args:
        before: The N first frames, each as `method_input` gives it.
        after: The second ones.
        settings: Whose bound to use.
        device: Where the frames go.

    Raises:
        VideoError: The flow is not finite, or the GPU has too little memory.
    """
    try:
        flow = method.flow(*(torch.from_numpy(np.stack(frames)).to(device) for frames in (before, after)))
        require_finite(torch.isfinite(flow).all())
        return quantise(flow, settings.bound).cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise VideoError("not enough memory on the GPU for this video's flow: use --device cpu") from error


def runs_of_frames(frames: Iterable[np.ndarray | None], step: int, pairs: int) -> Iterator[list[np.ndarray]]:
    """Runs of step + n frames, for the n pairs (t, t + step); n is `pairs`, or what remains in the last run, or before
    a None, over which no pair reaches."""
    run: list[np.ndarray] = []
    for frame in frames:
        if frame is None:
            if len(run) > step:
                yield run
            run = []
            continue
        run.append(frame)
        if len(run) == step + pairs:
            yield run
            run = run[pairs:]
    if len(run) > step:
        yield run


def require_pairs(frames: int, step: int) -> None:
    """Raises `VideoError` if so many frames have no pair (t, t + step)."""
    if frames <= step:
        at = "" if step == 1 else f" at --step {step}"
        raise VideoError(f"has {plural(frames, 'frame')}; flow{at} needs at least {step + 1}")


def method_of(task: FlowTask) -> FlowMethod:
    return _cached_method(task.settings.method, task.method_options, task.device, task.engine)


@lru_cache(maxsize=2)  # a dry run compares two
def _cached_method(name: str, options: tuple[tuple[str, str], ...], device: str, engine: str) -> FlowMethod:
    """The process's method, made once: weights are not loaded for every video."""
    return make_method(name, dict(options), device, engine)


# ------------------------------------------------------------------ where frames come from


class DecodedFrames(Closing):
    """The frames of a video file, and what is to be stored about them; `size`: height and width to which the GPU is to
    resize them."""

    def __init__(self, task: FlowTask) -> None:
        self.task = task
        self.reader = VideoReader(
            task.source.file,
            task.short_side,
            allow_truncated=task.allow_truncated,
            allow_damaged=task.allow_damaged,
        )
        self.announced = announced_frames(task, self.reader)
        self.size: tuple[int, int] | None = None
        small = self.reader.source_width * self.reader.source_height <= _LARGEST_RESIZED_ON_A_GPU
        if small and task.device != "cpu" and method_of(task).uses_device:
            self.size = self.reader.height, self.reader.width
            self.reader.resizes = False

    @property
    def count(self) -> int:
        return self.reader.decoded

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.reader)

    @property
    def times(self) -> np.ndarray:
        return self.reader.timing.times

    def attributes(self) -> dict[str, Any]:
        return video_attributes(self.task, self.reader)

    def close(self) -> None:
        self.reader.close()


class _StoredFrames(Closing):
    """The same for a frames artifact: what that says about its own source holds for the flow too."""

    size: tuple[int, int] | None = None

    _KEPT = (
        *("source", "source_sha256", "source_bytes", "source_mtime_ns", "source_frames", "fps", "times_from"),
        *("times_problem", "short_side", "width", "height", "source_width", "source_height", "container_frames"),
        *("truncated", "decoded_frames", "damaged", "damaged_frames", "jpeg_quality"),
        *("tone_mapped_from", "source_split", *SEGMENT_ATTRIBUTES),
    )

    def __init__(self, task: FlowTask) -> None:
        with damage_fails_the_video():
            self.file = FrameFile(task.source.path)
        self.count = self.announced = len(self.file)

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in range(self.count):
            with damage_fails_the_video():
                frame = self.file.read_one(index)
            yield frame

    @property
    def times(self) -> np.ndarray:
        with damage_fails_the_video():
            return self.file.times

    def attributes(self) -> dict[str, Any]:
        made = self.file.attributes
        kept = {name: made[name] for name in self._KEPT if name in made}
        return {**kept, "frames_sha256": made["content_sha256"], "library_versions": stored_library_versions()}

    def close(self) -> None:
        self.file.close()


def open_frames(task: FlowTask) -> DecodedFrames | _StoredFrames:
    return DecodedFrames(task) if task.from_video else _StoredFrames(task)
