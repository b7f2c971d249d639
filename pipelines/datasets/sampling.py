"""Which frames of a video make a sample (paper.md 1.4, 3.5 and 4.1).

Pure functions of (length, settings, generator). N is the number of frames of the video, T that of the sample, L the
flow fields of a stack. A *center* is the index of an RGB frame; its stack is the L fields t - L/2 .. t + L/2 - 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TemporalSampling:
    """How a training sample is laid out in time."""

    frames: int
    """T, the centers of one sample."""
    stride: tuple[int, int] = (1, 1)
    """Lowest and highest distance between centers; one value of it, ends included, is drawn for each sample."""
    stack: int = 10
    """L, the flow fields around a center."""


def valid_centers(length: int, stack: int = 10, flow_step: int = 1) -> range:
    """The centers whose whole flow stack lies inside a video of `length` frames: 5..N-6 for the paper's; empty for a
    video that is too short (N < 11). A field spans `flow_step` frames, so there are N - flow_step of them."""
    fields = length - flow_step
    return range(stack // 2, fields - stack + stack // 2 + 1)


def sample_centers(length: int, sampling: TemporalSampling, rng: np.random.Generator, flow_step: int = 1) -> np.ndarray:
    """Draws the centers of one training sample.

    The stride is drawn uniformly, then the start, uniformly among all at which T centers fit between the first and the
    last valid one. Where none does, the centers are spread evenly over the valid ones; where none is valid, over the
    whole video (a single one is then any frame).

    Args:
        length: Frames of the video.
        sampling: T, stride and L.
        flow_step: Frames that a flow field spans.

    Returns:
        int64 [T], ascending.

    Raises:
        ValueError: The video has no frames.
    """
    valid = _centers_in_use(length, sampling.stack, flow_step)
    low, high = sampling.stride
    stride = int(rng.integers(low, high + 1))
    starts = len(valid) - (sampling.frames - 1) * stride
    whole_video = length < sampling.stack + flow_step
    if starts < 1 or (whole_video and sampling.frames > 1):
        return spread_evenly(valid[0], valid[-1], sampling.frames)
    start = valid[0] + int(rng.integers(starts))
    return start + stride * np.arange(sampling.frames, dtype=np.int64)


def spaced_centers(
    length: int, crops: int = 25, stack: int = 10, flow_step: int = 1, clip: tuple[int, int] | None = None
) -> np.ndarray:
    """The centers of the test (paper.md 4.1): int64 [crops], spread evenly over the valid ones, of which the first
    and the last are always among them; a single one is the middle. Videos without a valid center: over all frames.

    With `clip`, a number of frames and their distance, they are those of `clips_of` such clips, end to end, whose
    starts are spread so. In a video that is too short for one, its frames are spread evenly.
    """
    valid = _centers_in_use(length, stack, flow_step)
    if clip is None:
        return spread_evenly(valid[0], valid[-1], crops)
    frames, stride = clip
    count, span = clips_of(crops, frames), (frames - 1) * stride
    if span >= len(valid) or (length < stack + flow_step and frames > 1):
        return np.tile(spread_evenly(valid[0], valid[-1], frames), count)
    starts = spread_evenly(valid[0], valid[-1] - span, count)
    return (starts[:, None] + stride * np.arange(frames)).ravel()


def clips_of(crops: int, frames: int) -> int:
    """How many whole clips of so many frames `crops` frames make, but at least one."""
    return max(1, crops // frames)


def flow_indices(center: int, fields: int, stack: int = 10) -> np.ndarray:
    """The fields of the stack around `center`: int64 [stack], those before the first and after the last of the video's
    `fields` replaced by the first and the last."""
    first = center - stack // 2
    return np.clip(np.arange(first, first + stack, dtype=np.int64), 0, fields - 1)


def windows(frames: int, window: int) -> list[list[int]]:
    """Cuts a test sequence into windows of the training's length (`--temporal windows`): ceil(frames / window) of them,
    from the first frame to the last, overlapping where they must. A shorter sequence is one window."""
    count = math.ceil(frames / window)
    starts = spread_evenly(0, max(frames - window, 0), count) if count > 1 else [0]
    return [list(range(int(start), int(start) + min(window, frames))) for start in starts]


def contiguous_runs(indices: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """The distinct `indices` as few slices (start, stop), ascending: overlapping and touching stacks become one."""
    distinct = np.unique(np.asarray(indices, dtype=np.int64))
    if not len(distinct):
        return []
    pieces = np.split(distinct, np.flatnonzero(np.diff(distinct) > 1) + 1)
    return [(int(piece[0]), int(piece[-1]) + 1) for piece in pieces]


def spread_evenly(first: int, last: int, count: int) -> np.ndarray:
    """int64 [count] from `first` to `last`, both included, rounded half to even (`np.rint`); a single one is the
    middle. Repeats where there are fewer numbers than `count`."""
    if count == 1:
        return np.rint(np.array([(first + last) / 2])).astype(np.int64)
    # The product before the division, so that halves are exact and rounding never depends on the last bit.
    return np.rint(first + np.arange(count) * (last - first) / (count - 1)).astype(np.int64)


def _centers_in_use(length: int, stack: int, flow_step: int) -> range:
    if length < 1:
        raise ValueError(f"a video of {length} frames has no centers")
    return valid_centers(length, stack, flow_step) or range(length)
