"""The flow of one pair of frames, from the coarsest level to the full size: the kernel that the engine calls.

`pair_flow` is compiled, with all it calls, by `compilation.py`, which keeps the result on disk.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.pyramid import copy_image, resize
from pipelines.optical_flow.tvl1.kernels.rows import EXACT, read_flow, start_level
from pipelines.optical_flow.tvl1.kernels.solve import solve_as_cpu_class, solve_as_cuda_class
from pipelines.optical_flow.tvl1.kernels.warp import read_planes, warp


class Settings(NamedTuple):
    """What the kernels need of the parameters."""

    limit: np.float32
    """lambda * theta."""
    theta: np.float32
    dual_step: np.float32
    """tau / theta."""
    scale_step: float
    warps: int
    epsilon: float
    inner: int
    outer: int
    median: int
    like_cuda: bool


def pair_flow(frame0, frame1, sizes, settings, rows, planes, scratch, flow):
    """uint8 [H, W] twice into `flow` [2, H, W]; `sizes` [levels, 2] are the pyramid's, the full size first."""
    images0 = _pyramid(frame0, sizes, settings)
    images1 = _pyramid(frame1, sizes, settings)
    levels = len(sizes)
    coarser = np.zeros((2, sizes[-1, 0], sizes[-1, 1]), np.float32)
    for level in range(levels - 1, -1, -1):
        height, width = sizes[level, 0], sizes[level, 1]
        current = coarser if level == levels - 1 else _enlarged(coarser, height, width, settings)
        start_level(rows, current)
        read_planes(_level(images0, sizes, level), _level(images1, sizes, level), settings.like_cuda, planes)
        for _ in range(settings.warps):
            warp(rows, planes, height, width, settings.like_cuda, scratch)
            if settings.like_cuda:
                solve_as_cuda_class(rows, height, width, settings, scratch)
            else:
                solve_as_cpu_class(rows, height, width, settings, scratch)
        read_flow(rows, current)
        coarser = current
    for k in range(2):
        copy_image(coarser[k], flow[k])


# ------------------------------------------------------------------ levels


@njit(**EXACT)
def _pyramid(frame, sizes, settings):
    """All levels of a frame, one behind the other."""
    images = np.empty(_offset(sizes, len(sizes)), np.float32)
    copy_image(frame, _level(images, sizes, 0))
    scale = 1.0 / settings.scale_step
    for level in range(1, len(sizes)):
        finer = _level(images, sizes, level - 1)
        resize(finer, _level(images, sizes, level), scale, scale, np.float32(1), settings.like_cuda)
    return images


@njit(**EXACT)
def _level(images, sizes, level):
    """[H, W] of one level."""
    return images[_offset(sizes, level) : _offset(sizes, level + 1)].reshape(sizes[level, 0], sizes[level, 1])


@njit(**EXACT)
def _offset(sizes, level):
    offset = 0
    for i in range(level):
        offset += sizes[i, 0] * sizes[i, 1]
    return offset


@njit(**EXACT)
def _enlarged(flow, height, width, settings):
    """The flow on the next finer level: sampled by the ratio of sizes, but its values scaled by the nominal step."""
    larger = np.empty((2, height, width), np.float32)
    scale_y, scale_x = flow.shape[1] / height, flow.shape[2] / width
    for k in range(2):
        resize(flow[k], larger[k], scale_y, scale_x, np.float32(1.0 / settings.scale_step), settings.like_cuda)
    return larger
