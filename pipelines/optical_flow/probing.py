"""What the flow of one video will cost, from a piece of it: for `extract-flow --dry-run`.

Letters: H W pixels.
"""

import io
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from pipelines.jobs.task import Probe
from pipelines.optical_flow.displacement import Displacement, DisplacementMeter
from pipelines.optical_flow.methods import FlowMethod
from pipelines.optical_flow.store import FlowTask, meter_of, method_of, open_frames, write_flow
from pipelines.runtime.worker_pool import Report
from pipelines.storage.flow_file import FlowWriter

_LONG_ENOUGH = 1.0  # seconds in which frames are taken
_COMPARED = 8  # pairs of which the faster method makes the flow too
_MOST_FRAMES = 512  # to measure, and to pass over before: longer videos are much the same further on


FASTER = "farneback"
"""The method that is measured beside one that is slow on a CPU."""


@dataclass(frozen=True)
class FlowProbe(Probe):
    """What was learnt from a piece of one video's flow."""

    displacement: Displacement | None = None
    short_side: int = 0
    faster_seconds: float = 0.0
    """As `seconds`, with the method `FASTER`; 0: not measured."""


def probe(task: FlowTask, place: float | None, report: Report) -> Probe:
    """Makes flow in memory from a place in the video (0..1; None: only counts its frames) on, and times that.

    The threads are those of a real run, and so is the load, where as many processes probe as will run.
    """
    with open_frames(task) as frames:
        if place is None:
            return Probe(frames.announced)
        _warm_up(next(iter(frames)), task)
    started = time.perf_counter()
    with open_frames(task) as frames:
        opening = time.perf_counter() - started
        pairs = max(frames.announced - task.settings.step, 1)
        skipped = max(0, min(int(place * pairs), pairs - 4 * method_of(task).batch_size, _MOST_FRAMES))
        remaining = iter(frames)
        for _ in islice(remaining, skipped):
            pass
        meter, kept = meter_of(task), list[np.ndarray]()
        measured, seconds, size = _measure(_keeping(_for_a_while(remaining), kept, task), task, meter)
    if not measured:
        return Probe(frames.announced)
    first = kept[0]
    return FlowProbe(
        frames.announced,
        opening + seconds / measured * pairs,
        size / measured * pairs,
        displacement=meter.result(),
        short_side=min(first.shape[:2]),
        faster_seconds=_seconds_of_faster(kept, task) * pairs,
    )


def _seconds_of_faster(frames: Sequence[np.ndarray], task: FlowTask) -> float:
    """What a pair takes with the faster method, on these frames; 0 where there is none."""
    if task.settings.method == FASTER or task.device != "cpu" or len(frames) <= task.settings.step:
        return 0.0
    faster = replace(task, settings=replace(task.settings, method=FASTER), method_options=(), engine="auto")
    _warm_up(frames[0], faster)
    pairs, seconds, _ = _measure(frames, faster, meter_of(faster))
    return seconds / pairs


def _measure(frames: Iterable[np.ndarray], task: FlowTask, meter: DisplacementMeter) -> tuple[int, float, int]:
    """The pairs among `frames`, the seconds to make and store their flow, and its bytes."""
    import h5py

    started = time.perf_counter()
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        writer = FlowWriter(Path("probe"), file, task.compression)
        pairs = write_flow(iter(frames), task, writer, lambda units: None, meter)
    return pairs, time.perf_counter() - started, content.getbuffer().nbytes


def _keeping(frames: Iterable[np.ndarray], kept: list[np.ndarray], task: FlowTask) -> Iterator[np.ndarray]:
    """The frames, of which the first are put into `kept`."""
    for frame in frames:
        if len(kept) < _COMPARED + task.settings.step:
            kept.append(frame)
        yield frame


def _for_a_while(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The first of `frames`, at least those that the threads take before the first flow is stored."""
    started = time.monotonic()
    for number, frame in enumerate(frames):
        yield frame
        if number == _MOST_FRAMES or time.monotonic() - started > _LONG_ENOUGH:
            return


def _warm_up(frame: np.ndarray, task: FlowTask) -> None:
    """Goes through it all once in this process for frames of this size: loading and compiling come but once."""
    if (kind := (method_of(task), frame.shape)) not in _warm:
        _warm.append(kind)
        _measure([frame] * (method_of(task).batch_size + task.settings.step), task, meter_of(task))


_warm: list[tuple[FlowMethod, tuple[int, ...]]] = []
