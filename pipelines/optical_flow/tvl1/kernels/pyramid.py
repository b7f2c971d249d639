"""Images and flow from level to level: bilinear, without smoothing."""

import math

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import EXACT

_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(**EXACT)
def resize(source, target, scale_y, scale_x, factor, like_cuda):
    """target = factor * source resampled; the scales are source pixels a target pixel."""
    height, width = target.shape
    left, right, weight_right = _samples(source.shape[1], width, scale_x, like_cuda)
    top, bottom, weight_bottom = _samples(source.shape[0], height, scale_y, like_cuda)
    for y in range(height):
        upper, lower = source[top[y]], source[bottom[y]]
        v = weight_bottom[y]
        for x in range(width):
            w = weight_right[x]
            above = upper[left[x]] * (_ONE - w) + upper[right[x]] * w
            below = lower[left[x]] * (_ONE - w) + lower[right[x]] * w
            target[y, x] = (above * (_ONE - v) + below * v) * factor


@njit(**EXACT)
def copy_image(source, target):
    """`target[:] = source`, which takes Numba ten seconds more to compile."""
    for y in range(source.shape[0]):
        for x in range(source.shape[1]):
            target[y, x] = source[y, x]


@njit(**EXACT)
def _samples(source, target, scale, like_cuda):
    """Of each target pixel along one axis: the two source pixels, and the weight of the second.

    Pixels' areas are aligned, or, `like_cuda`, their first centres.
    """
    first, second = np.empty(target, np.int64), np.empty(target, np.int64)
    weight = np.empty(target, np.float32)
    for i in range(target):
        position = np.float32(i * scale if like_cuda else (i + 0.5) * scale - 0.5)
        low = math.floor(position)
        weight[i] = position - np.float32(low)
        if low < 0 or low >= source - 1:
            weight[i] = _ZERO
        first[i] = min(max(low, 0), source - 1)
        second[i] = min(first[i] + 1, source - 1)
    return first, second, weight
