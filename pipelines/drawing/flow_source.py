"""Where `show-flow` takes fields and their frames from: computed now or stored before, one or all.

Letters: T frames, F = T - step fields, H W pixels.
"""

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.drawing.flow_picture import motion_of_levels
from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.optical_flow.methods import make_method
from pipelines.optical_flow.store import FlowTask, quantised_flow, require_pairs, store_flow
from pipelines.runtime.worker_pool import Limits, memory_share, run_tasks
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import USUAL_FPS, damaged
from pipelines.storage.quantise import LEVELS, is_clipped, step_size
from pipelines.storage.workspace import Workspace
from pipelines.video.isolation import Decoder, IsolatedReader
from pipelines.video.timing import Timing


@dataclass(frozen=True)
class FlowSource:
    """Quantised fields with their frames; both can be iterated more than once, and hold one at a time."""

    title: str
    method: str
    bound: float
    step: int
    timing: Timing | None
    """When the frames of the video's fields are shown; None for a single computed one, which needs no time."""
    first: int
    """Index of the first field and of its frame."""
    count: int
    fields: Callable[[], Iterator[np.ndarray]]
    """Levels [2, H, W] each."""
    frames: Callable[[], Iterator[np.ndarray | None]]
    """Each RGB uint8 [H, W, 3]; None if frames are not stored."""
    note: str = ""
    """What the user should know about it."""


# ------------------------------------------------------------------ computed now


def computed_field(task: FlowTask, index: int | None) -> FlowSource:
    """One field of the task's video file, the middle one by default.

    Raises:
        VideoError: The video cannot be decoded or is too short.
        UsageError: It has no such field.
    """
    path, step = task.source.path, task.settings.step
    with _naming(path), contextlib.closing(Decoder()) as decoder:
        with _reader(decoder, task) as reader:
            announced = reader.announced_frames or _counted(decoder, task)
            wanted = _middle(announced, step) if index is None else index
            frames = [frame for _, frame in islice(reader.pick(lambda number: number >= wanted), step + 1)]
        if len(frames) <= step:  # all has been decoded
            require_pairs(reader.decoded, step)
            if index is not None:
                raise _no_such_field(str(path), index, reader.decoded - step)
            return computed_field(task, _middle(reader.decoded, step))  # fewer than the container announces
        method = make_method(task.settings.method, dict(task.method_options), task.device, task.engine)
        (made,) = quantised_flow(frames, method, task.settings, task.device)
        field = made.fields[0].numpy()
    return _computed(task, None, wanted, 1, lambda: iter([field]), lambda: iter(frames[:1]))


@contextlib.contextmanager
def computed_fields(task: FlowTask, on_pairs: Callable[[int, int], None]) -> Iterator[FlowSource]:
    """All fields of the task's video file, in a temporary file until the block ends.

    Args:
        task: The video and how to compute its flow.
        on_pairs: Receives how many are done and announced, 0 if the container does not say.

    Raises:
        VideoError: The video cannot be decoded or is too short.
        StorageError: The temporary file cannot be written.
    """
    with (
        tempfile.TemporaryDirectory(prefix="stres-show-flow-") as folder,
        _naming(task.source.path),
        contextlib.closing(Decoder()) as decoder,
    ):
        with _reader(decoder, task) as reader:
            announced = max(0, reader.announced_frames - task.settings.step)
        task = dataclasses.replace(task, target=Path(folder) / "flow.h5")
        done = 0

        def report(pairs: int) -> None:
            nonlocal done
            done += pairs
            on_pairs(done, announced)

        def frames() -> Iterator[np.ndarray]:
            with _reader(decoder, task) as reader:
                yield from reader

        # In a separate process, as in `extract-flow`: a codec that crashes fails the video.
        limits = Limits(memory=memory_share(1))
        with contextlib.closing(run_tasks(store_flow, [task], 1, on_units=report, limits=limits)) as outcomes:
            ((_, count),) = outcomes
        if isinstance(count, VideoError):
            raise count
        with FlowFile(task.target) as file:
            timing, note = _timing(file, count), _what_is_wrong(file)
            yield _computed(task, timing, 0, count, lambda: _fields(file, 0, count), frames, note)


def _computed(
    task: FlowTask, timing: Timing | None, first: int, count: int,
    fields: Callable[[], Iterator[np.ndarray]], frames: Callable[[], Iterator[np.ndarray | None]], note: str = "",
) -> FlowSource:  # fmt: skip
    title, options = task.source.path.name, ", ".join(f"{name}={value}" for name, value in task.method_options)
    made = task.settings
    method = f"{made.method} ({options})" if options else made.method
    return FlowSource(title, method, made.bound, made.step, timing, first, count, fields, frames, note)


def _reader(decoder: Decoder, task: FlowTask) -> IsolatedReader:
    return decoder.open(task.source.path, task.short_side, allow_truncated=task.allow_truncated)


def _counted(decoder: Decoder, task: FlowTask) -> int:
    """T of a container that does not announce it."""
    with _reader(decoder, task) as reader:
        for _ in reader.pick(lambda number: False):
            pass
        return reader.decoded


def _middle(frames: int, step: int) -> int:
    return max(0, frames - step) // 2


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Adds the file to a `VideoError`, which only says what is wrong: here no list of videos names it."""
    try:
        yield
    except VideoError as error:
        raise VideoError(f"{path} cannot be shown: {error}") from error


# ------------------------------------------------------------------ stored before


@contextlib.contextmanager
def stored_fields(
    workspace: Workspace, class_name: str, video: str, index: int | Literal["all"] | None
) -> Iterator[FlowSource]:
    """Fields of the workspace with their frames, if those are stored too: one, by default the middle one, or all.

    Raises:
        ArtifactError: A file is damaged.
        MissingError: Frames and flow differ in size.
        UsageError: There is no such field.
    """
    path = workspace.flow_file(class_name, video)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(FlowFile(path))
        with damaged(path):
            total, _, height, width = file.file["flow"].shape
            if not total:
                raise ValueError("it holds no flow fields")
        made = file.settings
        first, count = (0, total) if index == "all" else (total // 2 if index is None else index, 1)
        if first >= total:
            raise _no_such_field(f"{class_name}/{video}", first, total)
        frames = None
        if workspace.frames_file(class_name, video).exists():
            frames = stack.enter_context(FrameFile(workspace.frames_file(class_name, video)))
            shape = frames.read_one(first).shape
            if shape[:2] != (height, width):
                raise MissingError(
                    f"{frames.path} has {shape[1]}x{shape[0]} pixels, its flow {width}x{height}: extract one of them "
                    "again with the --short-side of the other"
                )

        def shown_frames() -> Iterator[np.ndarray | None]:
            return repeat(None, count) if frames is None else map(frames.read_one, range(first, first + count))

        yield FlowSource(
            f"{class_name}/{video}", made.method, made.bound, made.step, _timing(file, total), first, count,
            lambda: _fields(file, first, count), shown_frames, _what_is_wrong(file),
        )  # fmt: skip


def _timing(file: FlowFile, fields: int) -> Timing:
    """When the frames of all fields are shown: the last until the one after it."""
    times = file.times[: fields + 1]
    fps = fields / times[-1] if times[-1] > 0 else USUAL_FPS
    return Timing(times[:-1], float(fps), "timestamps")


def _fields(file: FlowFile, first: int, count: int) -> Iterator[np.ndarray]:
    for index in range(first, first + count):
        yield file.read(index, index + 1)[0]


def _no_such_field(name: str, index: int, fields: int) -> UsageError:
    return UsageError(f"--frame {index}: the flow of {name} goes from frame 0 to frame {fields - 1}")


def _what_is_wrong(file: FlowFile) -> str:
    made = file.attributes
    problems = []
    if made.get("truncated"):
        announced = f" of {made['container_frames']}" if made.get("container_frames") else ""
        problems.append(f"the video is truncated: {made.get('decoded_frames')}{announced} frames decode")
    if made.get("damaged"):
        problems.append(f"the video is damaged: {made.get('damaged_frames')} of {made.get('source_frames')} frames")
    return "; ".join(problems)


class FlowHistogram:
    """How often each pair of stored values (x, y) occurs: quantiles of any number of fields in half a megabyte."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.counts = np.zeros(LEVELS**2, np.int64)
        motion = motion_of_levels(bound)
        self.lengths = np.hypot(motion[:, None], motion).ravel()

    def add(self, field: np.ndarray) -> None:
        """Counts levels [2, H, W]."""
        codes = field[0].astype(np.intp) * LEVELS + field[1]
        self.counts += np.bincount(codes.ravel(), minlength=LEVELS**2)

    def quantile(self, share: float) -> float:
        """The magnitude in pixels that `share` of all vectors do not exceed."""
        order = np.argsort(self.lengths)
        reached = np.cumsum(self.counts[order])
        return float(self.lengths[order][np.searchsorted(reached, share * reached[-1])])

    def scale(self) -> float:
        """Where colours are full: the 99th percentile, rounded up to two digits, but no less than a stored step."""
        usual = max(self.quantile(0.99), step_size(self.bound))
        unit = 10.0 ** (math.floor(math.log10(usual)) - 1)
        return float(f"{math.ceil(usual / unit - 1e-6) * unit:.2g}")

    def at_bound(self) -> float:
        """The share of vectors with a component that is at an end of the stored range: clipped, most likely."""
        pairs = np.indices((LEVELS, LEVELS))  # every (x, y), as a field
        return float(1 - self.counts[~is_clipped(pairs).ravel()].sum() / self.counts.sum())
