"""The flow of one video recomputed from the source that its file states, and compared; in a worker process.

Letters: T frames, F = T - step fields, N pairs of a batch, H W pixels.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.errors import UsageError, VideoError
from pipelines.interface.wording import plural
from pipelines.jobs.attributes import options_difference
from pipelines.optical_flow.batch import method_input
from pipelines.optical_flow.methods import FlowMethod, make_method, options_of
from pipelines.optical_flow.store import fields_of_pairs
from pipelines.runtime.worker_pool import Report
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError
from pipelines.storage.provenance import library_versions
from pipelines.storage.quantise import step_size
from pipelines.verification.faults import FaultFound
from pipelines.verification.tasks import Recomputed, RecomputeTask
from pipelines.video.decoding import VideoReader, damage
from pipelines.video.resize import resize

# The same engine on the same machine gives the same bytes. The engines of TV-L1 and OpenCV's own, on two pairs of each
# of 15 real clips, differ by more than 0.16 pixels, one grey level at the usual bound, in 0.8 % of the bytes at most:
# its iteration jumps at the least disturbance. Other versions of the libraries may decode and resize otherwise; noise
# of one grey level on every frame, which is more than that, moves up to 7 % (tvl1), 2 % (farneback) and 19 % (dis).
# RAFT rounds more on a GPU than on the CPU. Flow by the kernels that 0.1.0 mixed up is off by tens of levels in 75 to
# 88 % of its bytes.
_PIXELS, _MOST_LEVELS = 0.16, 16
_SHARE, _SHARE_IF_OTHERWISE = 0.05, 0.3
_LIBRARIES = ("av", "opencv", "torch")
_REPORTED = 64  # frames between two reports


def recompute(task: RecomputeTask, report: Report) -> Recomputed:
    """Compares stored fields with the same ones computed now, up to the first that is wrong.

    Raises:
        VideoError: The source cannot be read, though it is the file that it was.
    """
    compared, last = 0, -1
    try:
        with FlowFile(Path(task.origin.path)) as file:
            method = _method(file.settings)
            if isinstance(method, str):
                return Recomputed(not_recomputable=method)
            rule, wanted = _Rule(file), task.fields(len(file))
            with contextlib.closing(_pictures(task, file, wanted, lambda: report(0))) as pictures:
                for indices, computed in _computed(pictures, wanted, method, file.settings):
                    for index, field in zip(indices, computed, strict=True):
                        report(1)
                        compared, last = compared + 1, index
                        rule.check(index, file.read(index, index + 1)[0], field)
            if last != wanted[-1]:
                frames = file.attributes["source_frames"]
                raise FaultFound("wrong flow", f"its source ends before the {plural(frames, 'frame')} that it states")
    except FaultFound as fault:
        return Recomputed(compared, wrong=fault.detail)
    except ArtifactError as error:
        raise VideoError(str(error)) from error
    return Recomputed(compared)


def _method(settings: FlowSettings) -> FlowMethod | str:
    """The method that a file states, on the CPU; or why there is none."""
    stated = settings.parameters
    if settings.method == "raft":
        from pipelines.optical_flow.raft import are_weights_here

        if not are_weights_here(stated):
            return "the weights of its method are not on this machine"
    with contextlib.suppress(UsageError):
        method = make_method(settings.method, options_of(stated))
        if not options_difference(stated, method.parameters):
            return method
    return "its method has other parameters in this version"


class _Rule:
    """What counts as the same field."""

    def __init__(self, file: FlowFile) -> None:
        self.method = file.settings.method
        # Where _PIXELS are a whole number of steps, rounding must not make them one less.
        self.levels = min(_MOST_LEVELS, max(1, int(_PIXELS / step_size(file.settings.bound) + 1e-9)))
        with contextlib.suppress(ValueError, TypeError):
            then, now = json.loads(file.attributes.get("library_versions", "null")), library_versions(*_LIBRARIES)
            if self.method != "raft" and then == {**then, **now}:
                self.share = _SHARE
                return
        self.share = _SHARE_IF_OTHERWISE

    def check(self, index: int, stored: np.ndarray, computed: np.ndarray) -> None:
        """Compares two fields of levels [2, H, W]. Raises `FaultFound` if they differ by more than rounding."""
        off = np.abs(stored.astype(np.int16) - computed)
        share = float((off > self.levels).mean())
        if share > self.share:
            level = plural(self.levels, "grey level")
            raise FaultFound(
                "wrong flow",
                f"field {index} is not what {self.method} gives for its frames: {100 * share:.0f} % of its bytes are "
                f"off by more than {level}, by up to {off.max()}",
            )


def _pictures(
    task: RecomputeTask, flow: FlowFile, fields: Sequence[int], on_way: Callable[[], None]
) -> Generator[tuple[int, np.ndarray]]:
    """The frames of these fields, RGB uint8 [H, W, 3], each with its index, as the flow was made from them. `on_way` is
    called while others are decoded, which in a long video takes longer than a process may go without a report."""
    attributes, path = flow.attributes, Path(task.origin.source)
    height, width = flow.file["flow"].shape[2:]
    wanted = {index + offset for index in fields for offset in (0, flow.settings.step)}
    # Of a segment, frames are counted from its own first one.
    first, is_segment = int(attributes.get("segment_first_frame", 0)), "segment" in attributes
    if not task.origin.from_video:
        with FrameFile(path) as file:
            yield from ((index, file.read_one(index)) for index in sorted(wanted))
        return

    def is_wanted(index: int) -> bool:
        if index % _REPORTED == 0:
            on_way()
        return index - first in wanted

    with VideoReader(path, keep_size=True, allow_truncated=True, allow_damaged=True) as reader:
        size = reader.source_width, reader.source_height
        stated = attributes.get("source_width"), attributes.get("source_height")
        if None not in stated and size != stated:
            raise FaultFound(
                "wrong flow", f"its source shows pictures of {size[0]}x{size[1]}, not {stated[0]}x{stated[1]}"
            )
        for index, picture in reader.pick(is_wanted):
            yield index - first, resize(picture, width, height)
            if index - first == max(wanted) and (is_segment or not task.all_fields):
                return
        if reader.decoded != attributes["source_frames"]:
            raise FaultFound(
                "wrong flow",
                f"its source has {plural(reader.decoded, 'frame')}, not the {attributes['source_frames']} it states",
            )
        if reader.truncated and not attributes.get("truncated"):
            raise FaultFound("wrong flow", "its source is truncated, which it does not say")
        if reader.damaged_frames and not attributes.get("damaged"):
            found = damage(reader.damaged_frames, reader.decoded)
            raise FaultFound("wrong flow", f"its source is {found}, which it does not say")


def _computed(
    pictures: Iterable[tuple[int, np.ndarray]],
    fields: Sequence[int],
    method: FlowMethod,
    settings: FlowSettings,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Batches of the `fields`: their indices, and levels [N, 2, H, W]. Raises `VideoError`."""
    wanted, step = set(fields), settings.step
    frames: dict[int, np.ndarray] = {}
    batch: list[int] = []

    def flow() -> tuple[list[int], np.ndarray]:
        before, after = ([frames[index + offset] for index in batch] for offset in (0, step))
        return batch, fields_of_pairs(before, after, method, settings)

    for index, picture in pictures:
        frames[index] = method_input(picture, method)
        if index - step in wanted:
            batch.append(index - step)
        if len(batch) == method.batch_size:
            yield flow()
            batch = []
            frames = {kept: frame for kept, frame in frames.items() if kept > index - step}
    if batch:
        yield flow()
