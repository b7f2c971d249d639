"""Images and flow from level to level: bilinear, without smoothing."""

import math

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import EXACT, U

_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(**EXACT)
def resize(source, target, scale_y, scale_x, factor, like_cuda):
    """target = factor * source resampled; the scales are source pixels a target pixel.

    A source row is resampled once, though most are needed for two target rows: even and odd ones have a line each.
    """
    height, width = target.shape
    left, right, weight_right = _samples(source.shape[1], width, scale_x, like_cuda)
    top, bottom, weight_bottom = _samples(source.shape[0], height, scale_y, like_cuda)
    lines, held = np.empty((2, width), np.float32), np.full(2, -1)
    for y in range(height):
        for row in (int(top[y]), int(bottom[y])):
            if held[row % 2] != row:
                _resample(source[row], lines[row % 2], left, right, weight_right)
                held[row % 2] = row
        above, below, v = lines[top[y] % U(2)], lines[bottom[y] % U(2)], weight_bottom[y]
        for x in range(U(width)):
            target[y, x] = (above[x] * (_ONE - v) + below[x] * v) * factor


@njit(**EXACT)
def _resample(source, target, left, right, weight_right):
    for x in range(U(len(target))):
        w = weight_right[x]
        target[x] = source[left[x]] * (_ONE - w) + source[right[x]] * w


@njit(**EXACT)
def copy_image(source, target):
    """`target[:] = source`, which takes Numba ten seconds more to compile."""
    for y in range(source.shape[0]):
        for x in range(U(source.shape[1])):
            target[y, x] = source[y, x]


@njit(**EXACT)
def _samples(source, target, scale, like_cuda):
    """Of each target pixel along one axis: the two source pixels, and the weight of the second.

    Pixels' areas are aligned, or, `like_cuda`, their first centers.
    """
    first, second = np.empty(target, U), np.empty(target, U)
    weight = np.empty(target, np.float32)
    for i in range(target):
        position = np.float32(i * scale if like_cuda else (i + 0.5) * scale - 0.5)
        low = math.floor(position)
        weight[i] = position - np.float32(low)
        if low < 0 or low >= source - 1:
            weight[i] = _ZERO
        low = min(max(low, 0), source - 1)
        first[i], second[i] = low, min(low + 1, source - 1)
    return first, second, weight
