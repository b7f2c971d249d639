"""The memory that a pair is computed in, and all arguments of the CPU kernels."""

import math
from typing import Any

import numpy as np

from pipelines.optical_flow.tvl1.parameters import TVL1Parameters, level_sizes

_CACHE_LINE = 64  # bytes


def stride_for(width: int) -> int:
    """The length of a row's lines in memory, in floats: the smallest odd multiple of a cache line that fits.

    If it were a power of two, the lines of a row would compete for the same places in the cache.
    """
    from pipelines.optical_flow.tvl1.kernels.rows import MARGIN

    cache_lines = -(-width // MARGIN) + 2
    return MARGIN * (cache_lines + 1 - cache_lines % 2)


def kernel_arguments(height: int, width: int, parameters: TVL1Parameters) -> tuple[Any, ...]:
    """All arguments of `pair_flow`, for a pair of black frames; its buffers are for one thread."""
    from pipelines.optical_flow.tvl1.kernels.pair import Settings
    from pipelines.optical_flow.tvl1.kernels.rows import AROUND, PLANES_LINES, ROW_LINES, SCRATCH_LINES

    stride = stride_for(width)
    frame = np.zeros((height, width), np.uint8)
    sizes = np.array(level_sizes(height, width, parameters.nscales, parameters.scale_step), np.int64)
    # Each field's lines follow each other: the processor foresees what it will read, and a pair takes 3 % less time.
    rows = _aligned(ROW_LINES, height + 2, stride).transpose(1, 0, 2)
    planes, scratch = _aligned(height + 2 * AROUND, PLANES_LINES, stride), _aligned(1, SCRATCH_LINES, stride)
    flow = np.empty((2, height, width), np.float32)
    settings = Settings(
        limit=np.float32(parameters.lambda_ * parameters.theta),
        theta=np.float32(parameters.theta),
        dual_step=np.float32(parameters.tau / parameters.theta),
        scale_step=float(parameters.scale_step),
        warps=int(parameters.warps),
        epsilon=float(parameters.epsilon),
        inner=int(parameters.inner_iterations),
        outer=int(parameters.outer_iterations),
        median=int(parameters.median_filtering),
        like_cuda=parameters.mode == "cuda",
    )
    return frame, frame, sizes, settings, rows, planes, scratch, flow


def _aligned(*shape: int) -> np.ndarray:
    """float32 zeros that begin at a cache line, which NumPy's do not: vectors across two lines took 5 % more time."""
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    memory = np.zeros(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(np.float32).reshape(shape)
