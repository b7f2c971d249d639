"""The flow of one pair of frames, from the coarsest level to the full size: the kernel that the engine calls.

`pair_flow` is compiled, with all it calls, by `compilation.py`, which keeps the result on disk.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.iteration import iterate
from pipelines.optical_flow.tvl1.kernels.median import median_filter
from pipelines.optical_flow.tvl1.kernels.pyramid import copy_image, resize
from pipelines.optical_flow.tvl1.kernels.rows import EXACT, read_flow, start_level
from pipelines.optical_flow.tvl1.kernels.warp import read_planes, warp

# Iterations that follow each other through the rows where none can be the last: 3 take a tenth less time than 1.
_TOGETHER = 3


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


def pair_flow(frame0, frame1, sizes, settings, rows, planes, scratch, delayed, flow):
    """uint8 [H, W] twice into `flow` [2, H, W]; `sizes` [levels, 2] are the pyramid's, the full size first."""
    images0 = _pyramid(frame0, sizes, settings)
    images1 = _pyramid(frame1, sizes, settings)
    levels = len(sizes)
    coarser = np.zeros((2, sizes[-1, 0], sizes[-1, 1]), np.float32)
    for level in range(levels - 1, -1, -1):
        height, width = sizes[level, 0], sizes[level, 1]
        current = coarser if level == levels - 1 else _enlarged(coarser, height, width, settings)
        start_level(rows, current)
        image0, image1 = _level(images0, sizes, level), _level(images1, sizes, level)
        read_planes(image1, planes)
        for _ in range(settings.warps):
            warp(rows, planes, image0, settings.like_cuda, scratch)
            if settings.like_cuda:
                _solve_as_cuda_class(rows, height, width, settings)
            else:
                _solve_as_cpu_class(rows, height, width, settings, scratch, delayed)
        read_flow(rows, current)
        coarser = current
    for k in range(2):
        copy_image(coarser[k], flow[k])


@njit(**EXACT)
def _solve_as_cpu_class(rows, height, width, settings, scratch, delayed):
    """Iterations in rounds that start with a median filter, until the flow hardly changes."""
    changes = np.zeros(_TOGETHER)
    threshold = settings.epsilon * settings.epsilon * height * width
    together = 1 if threshold > 0 else _TOGETHER
    change = np.inf
    for _ in range(settings.outer):
        if change <= threshold:
            break
        if settings.median > 1:
            for k in range(2):
                median_filter(rows, k, height, width, settings.median, scratch, delayed)
        done = 0
        while done < settings.inner and change > threshold:
            count = min(together, settings.inner - done)
            iterate(rows, height, width, count, settings, changes)
            change = changes[count - 1]
            done += count


@njit(**EXACT)
def _solve_as_cuda_class(rows, height, width, settings):
    """Iterations whose change is looked at now and then: the larger it was, the longer the next look waits."""
    changes = np.zeros(_TOGETHER)
    threshold = settings.epsilon * settings.epsilon * height * width
    credit = 0.0  # the last change seen, lowered by the threshold at every iteration since
    for n in range(settings.outer * settings.inner):
        look = threshold > 0 and n % 2 == 1 and credit < threshold
        iterate(rows, height, width, 1, settings, changes)
        if look and changes[0] <= threshold:
            break
        credit = changes[0] if look else credit - threshold


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
