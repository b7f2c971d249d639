"""What flow will cost, and which settings would suit it, from pieces of the videos: for `extract-flow --dry-run`.

Letters: H W pixels.
"""

import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import h5py
import numpy as np

from pipelines.jobs.task import Probe, Proposal
from pipelines.optical_flow.displacement import Displacement
from pipelines.optical_flow.methods import FlowMethod
from pipelines.optical_flow.store import FlowAccount, FlowTask, method_of, open_frames, write_flow
from pipelines.runtime.worker_pool import Report
from pipelines.storage.flow_file import FlowWriter

_LONG_ENOUGH = 1.0  # seconds in which frames are taken
_COMPARED = 8  # pairs of which the faster method makes the flow too
_MOST_FRAMES = 512  # to measure, and to skip before: longer videos are much the same further on
_LONG = 24.0  # hours, beyond which a faster method is proposed
_FASTER = "farneback"  # measured beside a method that is slow on a CPU


@dataclass(frozen=True)
class FlowProbe(Probe):
    """What a piece of one video's flow shows."""

    displacement: Displacement | None = None
    short_side: int = 0
    faster_seconds: float = 0.0
    """As `seconds`, with a faster method; 0 if not measured."""


def probe(task: FlowTask, place: float | None, report: Report) -> Probe:
    """Makes flow in memory from a place in the video (0..1; None: only counts its frames) on, and times that.

    The threads are those of a real run, and so is the load if as many processes probe as will run.
    """
    step = task.settings.step
    with open_frames(task) as frames:
        if place is None:
            return Probe(frames.announced)
        _warm_up(next(iter(frames)), task, frames.size)
    kept: list[np.ndarray] = []

    def for_a_while(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The first frames, at least those that the threads take before the first flow is stored; keeps some."""
        started = time.monotonic()
        for number, frame in enumerate(frames):
            if len(kept) < _COMPARED + step:
                kept.append(frame)
            yield frame
            if number == _MOST_FRAMES or time.monotonic() - started > _LONG_ENOUGH:
                return

    started = time.perf_counter()
    with open_frames(task) as frames:
        opening = time.perf_counter() - started
        pairs = max(frames.announced - step, 1)
        skipped = max(0, min(int(place * pairs), pairs - 4 * method_of(task).batch_size, _MOST_FRAMES))
        account = FlowAccount()
        resized = frames.size
        measured, seconds, size = _measure(for_a_while(islice(frames, skipped, None)), task, account, resized)
    if not measured:
        return Probe(frames.announced)
    faster_seconds = 0.0
    if task.settings.method != _FASTER and task.device == "cpu" and len(kept) > step:
        faster = replace(task, settings=replace(task.settings, method=_FASTER), method_options=(), engine="auto")
        _warm_up(kept[0], faster)
        compared, took, _ = _measure(kept, faster, FlowAccount())
        faster_seconds = took / compared
    return FlowProbe(
        frames.announced,
        opening + seconds / measured * pairs,
        size / measured * pairs,
        displacement=account.displacement.result(),
        short_side=min(resized or kept[0].shape[:2]),
        faster_seconds=faster_seconds * pairs,
    )


def _measure(
    frames: Iterable[np.ndarray], task: FlowTask, account: FlowAccount, size: tuple[int, int] | None = None
) -> tuple[int, float, int]:
    """The pairs among `frames`, the seconds to make and store their flow, and its bytes."""
    started = time.perf_counter()
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        writer = FlowWriter(Path("probe"), file, task.compression)
        pairs = write_flow(frames, task, writer, lambda units: None, account, size)
    return pairs, time.perf_counter() - started, content.getbuffer().nbytes


def _warm_up(frame: np.ndarray, task: FlowTask, size: tuple[int, int] | None = None) -> None:
    """Runs everything once in this process for frames of this size: loading and compiling happen only once."""
    if (kind := (method_of(task), frame.shape)) not in _warm:
        _warm.append(kind)
        _measure([frame] * (method_of(task).batch_size + task.settings.step), task, FlowAccount(), size)


_warm: list[tuple[FlowMethod, tuple[int, ...]]] = []


def propose(probes: Sequence[FlowProbe], method: str, bound: float, hours: float) -> Proposal | None:
    """The settings that would suit the videos.

    Args:
        probes: Of a sample of the videos.
        method: The method that is asked for.
        bound: The bound that is asked for.
        hours: What all flow would take with that method.

    Returns:
        None if nothing was measured.
    """
    parts = [(float(probe.frames), probe.displacement) for probe in probes if probe.displacement is not None]
    moved = Displacement.together(parts)
    if moved is None:
        return None
    sides = [probe.short_side for probe in probes]
    both = [probe for probe in probes if probe.faster_seconds]
    by_method = {method: hours}
    if both:
        by_method[_FASTER] = hours * sum(probe.faster_seconds for probe in both) / sum(probe.seconds for probe in both)
    return Proposal(
        videos=len(probes),
        method=method if hours <= _LONG else min(by_method, key=lambda name: by_method[name]),
        bound=moved.suitable_bound,
        short_side=Counter(sides).most_common(1)[0][0],
        short_sides=(min(sides), max(sides)),
        clipping=moved.clipping(bound),
        hours=by_method,
    )
