"""Warping the second image and its gradient by the flow, and linearising the brightness constancy there.

Neighbouring pixels mostly move alike. As long as the pixels of a run read from places whose whole parts differ by no
more than one, all of them read 5 x 5 values around one common offset, each with one row and one column of weights 0:
as many values as vectors hold are sampled at once, with nothing to gather. The others are sampled one by one.
"""

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import (
    AROUND,
    EXACT,
    FAST,
    FIRST,
    FUSED,
    GRAD_X,
    GRAD_Y,
    INVERSE_NORM,
    MARGIN,
    OFFSETS,
    PLANES_LINES,
    RESIDUAL,
    SAMPLED,
    SECOND,
    SEPARATE,
    U1,
    U2,
    WEIGHTS,
    U,
    line,
    padded,
)

RUN = 8
"""Pixels are sampled together in whole vectors of so many, those of AVX2: longer ones move alike less often."""
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_SMALLEST = np.float32(1e-30)  # squared gradient whose reciprocal is a number: flow of 1e-20 in flat parts gives less
_OUTSIDE = np.float32(4)  # pixels beyond the border, from where on all that is read is border


@njit(**EXACT)
def read_planes(image0, image1, like_cuda, planes):
    """The first image, and the second with its centered gradient, whose border is repeated outwards.

    Around the second and its gradient are zeros, or, `like_cuda`, their border again.
    """
    height, width = image1.shape
    for y in range(height):
        above, here, below = image1[max(y - 1, 0)], image1[y], image1[min(y + 1, height - 1)]
        first, values = line(planes, y + AROUND, FIRST), line(planes, y + AROUND, SECOND)
        grad_x, grad_y = line(planes, y + AROUND, SECOND + 1), line(planes, y + AROUND, SECOND + 2)
        for x in range(U(width)):
            i = x + U(MARGIN)
            first[i], values[i] = image0[y, x], here[x]
            grad_y[i] = _HALF * (below[x] - above[x])
        _surround_line(values, width, True)
        _differences(values, grad_x, width)
        for k in range(3):
            _surround_line(line(planes, y + AROUND, SECOND + k), width, like_cuda)
    for k in range(SECOND, SECOND + 3):
        for y in range(AROUND):
            _surround_row(line(planes, AROUND, k), line(planes, y, k), width, like_cuda)
            last = line(planes, AROUND + height - 1, k)
            _surround_row(last, line(planes, AROUND + height + y, k), width, like_cuda)


@njit(**EXACT, **SEPARATE)
def _differences(values, grad_x, width):
    for i in range(U(MARGIN), U(MARGIN + width)):
        grad_x[i] = _HALF * (values[i + U(1)] - values[i - U(1)])


@njit(**EXACT)
def _surround_line(values, width, repeat):
    first, last = (values[MARGIN], values[MARGIN + width - 1]) if repeat else (_ZERO, _ZERO)
    for i in range(MARGIN):
        values[i] = first
        values[MARGIN + width + i] = last


@njit(**EXACT)
def _surround_row(border, beyond, width, repeat):
    for i in range(width + 2 * MARGIN):
        beyond[i] = border[i] if repeat else _ZERO


@njit(**EXACT)
def warp(rows, planes, height, width, like_cuda, scratch):
    """Sets the rows' gradient, the reciprocal of its squared norm (0 where that is 0) and the residual.

    The planes are sampled bicubically at (x, y) + u. Pixels outside count as 0, or, `like_cuda`, as the nearest inside,
    with the weights' sum divided out.
    """
    for y in range(height):
        _weigh(rows, scratch, y, height, width, like_cuda)
        _sample_row(planes, scratch, y, width)
        _linearise(
            line(rows, y + 1, U1),
            line(rows, y + 1, U2),
            line(scratch, 0, SAMPLED),
            line(scratch, 0, SAMPLED + 1),
            line(scratch, 0, SAMPLED + 2),
            line(planes, y + AROUND, FIRST),
            line(rows, y + 1, GRAD_X),
            line(rows, y + 1, GRAD_Y),
            line(rows, y + 1, INVERSE_NORM),
            line(rows, y + 1, RESIDUAL),
            width,
        )


@njit(**EXACT)
def _weigh(rows, scratch, y, height, width, like_cuda):
    """Of each pixel: how far from it the point is where it is sampled, in whole pixels; the weights of the 4 columns
    and of the 4 rows around that.
    """
    for axis in range(2):
        offsets = line(scratch, 0, OFFSETS + axis)
        first, slope, size = (0, 1, width) if axis == 0 else (y, 0, height)
        _weigh_axis(
            line(rows, y + 1, U1 + axis),
            offsets,
            line(scratch, 0, WEIGHTS + 4 * axis),
            line(scratch, 0, WEIGHTS + 4 * axis + 1),
            line(scratch, 0, WEIGHTS + 4 * axis + 2),
            line(scratch, 0, WEIGHTS + 4 * axis + 3),
            first,
            slope,
            size,
            width,
            like_cuda,
        )
        for i in range(MARGIN + width, MARGIN + padded(width, RUN)):
            offsets[i] = offsets[MARGIN + width - 1]


@njit(**FUSED, **SEPARATE)
def _weigh_axis(u, offsets, w0, w1, w2, w3, first, slope, size, width, like_cuda):
    """Along one axis: pixel i of the row is at first + slope * i of `size`."""
    border = np.float32(size) + _OUTSIDE
    for start in range(U(MARGIN), U(MARGIN + padded(width, RUN)), U(RUN)):
        for lane in range(U(RUN)):
            i = start + lane
            here = np.float32(np.int32(first) + np.int32(slope) * (np.int32(i) - np.int32(MARGIN)))
            there = here + u[i]
            whole = np.floor(there)
            offsets[i] = min(max(whole, -_OUTSIDE), border) - here
            w0[i], w1[i], w2[i], w3[i] = _cubic_weights(there - whole, like_cuda)


@njit(**EXACT)
def _sample_row(planes, scratch, y, width):
    """Divides a row into runs, as long as they can be."""
    offsets_x, offsets_y = line(scratch, 0, OFFSETS), line(scratch, 0, OFFSETS + 1)
    stride = U(planes.shape[2])
    start, end = MARGIN, MARGIN + padded(width, RUN)
    while start < end:
        stop = start
        run = block = _bounds(offsets_x, offsets_y, start)
        while _move_alike(block):
            run = block
            stop += RUN
            if stop >= end:
                break
            block = _united(run, _bounds(offsets_x, offsets_y, stop))
        if stop > start:
            left, _, top, _ = run
            _sample_run(
                line(planes, y + AROUND - 1 + int(top), SECOND),
                line(scratch, 0, WEIGHTS),
                offsets_x,
                offsets_y,
                line(scratch, 0, SAMPLED),
                line(scratch, 0, SAMPLED + 1),
                line(scratch, 0, SAMPLED + 2),
                stride,
                start,
                stop,
                left,
                top,
            )
        else:
            stop = start + RUN
            _sample_each(
                line(planes, 0, SECOND),
                line(scratch, 0, WEIGHTS),
                offsets_x,
                offsets_y,
                line(scratch, 0, SAMPLED),
                line(scratch, 0, SAMPLED + 1),
                line(scratch, 0, SAMPLED + 2),
                stride,
                start,
                y,
            )
        start = stop


@njit(**FAST)
def _bounds(offsets_x, offsets_y, start):
    """The least and the largest offset of a vector of pixels: left, right, top, bottom."""
    left = right = offsets_x[U(start)]
    top = bottom = offsets_y[U(start)]
    for i in range(U(start), U(start) + U(RUN)):
        left, right = min(left, offsets_x[i]), max(right, offsets_x[i])
        top, bottom = min(top, offsets_y[i]), max(bottom, offsets_y[i])
    return left, right, top, bottom


@njit(**EXACT)
def _united(one, other):
    return min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3])


@njit(**EXACT)
def _move_alike(bounds):
    left, right, top, bottom = bounds
    return right - left <= _ONE and bottom - top <= _ONE


@njit(**FAST, **SEPARATE)
def _sample_run(top_row, weights, offsets_x, offsets_y, value, grad_x, grad_y, stride, start, stop, left, top):
    """`top_row` is the uppermost of the five rows of planes that are read."""
    here, there = U(start), U(start + int(left) - 1)
    for block in range(U(0), U(stop - start), U(RUN)):
        for lane in range(U(RUN)):
            n = block + lane
            i, at = here + n, there + n
            a = _shifted(_four(weights, i, stride), offsets_x[i] > left)
            b = _shifted(_four(weights, i + U(4) * stride, stride), offsets_y[i] > top)
            value[i] = _sample_block(top_row, at, stride, a, b)
            grad_x[i] = _sample_block(top_row, at + stride, stride, a, b)
            grad_y[i] = _sample_block(top_row, at + U(2) * stride, stride, a, b)


@njit(**FAST)
def _four(weights, i, stride):
    return weights[i], weights[i + stride], weights[i + U(2) * stride], weights[i + U(3) * stride]


@njit(**FAST)
def _shifted(w, further):
    """The weights of five pixels, of which the first or, if `further`, the last is not needed."""
    return (
        _ZERO if further else w[0],
        w[0] if further else w[1],
        w[1] if further else w[2],
        w[2] if further else w[3],
        w[3] if further else _ZERO,
    )


@njit(**FAST)
def _sample_block(plane, at, stride, a, b):
    """5 x 5 values, the uppermost left one at `at`."""
    row = U(PLANES_LINES) * stride
    upper = _across(plane, at, a) * b[0] + _across(plane, at + row, a) * b[1]
    lower = _across(plane, at + U(3) * row, a) * b[3] + _across(plane, at + U(4) * row, a) * b[4]
    return upper + _across(plane, at + U(2) * row, a) * b[2] + lower


@njit(**FAST)
def _across(plane, i, w):
    upper = plane[i] * w[0] + plane[i + U(1)] * w[1]
    return upper + plane[i + U(2)] * w[2] + (plane[i + U(3)] * w[3] + plane[i + U(4)] * w[4])


@njit(**FAST, **SEPARATE)
def _sample_each(planes, weights, offsets_x, offsets_y, value, grad_x, grad_y, stride, start, y):
    row = U(PLANES_LINES) * stride
    for i in range(U(start), U(start + RUN)):
        top, left = U(y + AROUND - 1 + int(offsets_y[i])), U(int(i) - 1 + int(offsets_x[i]))
        a = _four(weights, i, stride)
        b = _four(weights, i + U(4) * stride, stride)
        at = top * row + left
        value[i] = _sample_one(planes, at, row, a, b)
        grad_x[i] = _sample_one(planes, at + stride, row, a, b)
        grad_y[i] = _sample_one(planes, at + U(2) * stride, row, a, b)


@njit(**FAST)
def _sample_one(plane, at, row, a, b):
    """4 x 4 values, the uppermost left one at `at`."""
    first = _down(plane, at, row, b) * a[0] + _down(plane, at + U(1), row, b) * a[1]
    return first + (_down(plane, at + U(2), row, b) * a[2] + _down(plane, at + U(3), row, b) * a[3])


@njit(**FAST)
def _down(plane, i, row, w):
    upper = plane[i] * w[0] + plane[i + row] * w[1]
    return upper + (plane[i + U(2) * row] * w[2] + plane[i + U(3) * row] * w[3])


@njit(**FAST, **SEPARATE)
def _linearise(u1, u2, value, warped_x, warped_y, first, grad_x, grad_y, inverse_norm, residual, width):
    """Linearises the brightness constancy at the flow that the warp was made with."""
    for i in range(U(MARGIN), U(MARGIN + width)):
        x, y = warped_x[i], warped_y[i]
        norm = x * x + y * y
        grad_x[i] = x
        grad_y[i] = y
        inverse_norm[i] = _ONE / norm if norm > _SMALLEST else _ZERO
        residual[i] = value[i] - x * u1[i] - y * u2[i] - first[i]


@njit(**FUSED)
def _cubic_weights(f, like_cuda):
    """Keys' cubic kernel for the pixels at -1, 0, 1, 2 of a point at f in 0..1: a is -.5 `like_cuda`, else -.75.

    That they add up to 1, which takes exact divisions, keeps a flat picture flat.
    """
    a = np.float32(-0.5) if like_cuda else np.float32(-0.75)
    w0 = _far(_ONE + f, a)
    w1 = _near(f, a)
    w2 = _near(_ONE - f, a)
    if not like_cuda:
        return w0, w1, w2, _ONE - w0 - w1 - w2
    w3 = _far(_ONE + _ONE - f, a)
    scale = _ONE / (w0 + w1 + w2 + w3)
    return w0 * scale, w1 * scale, w2 * scale, w3 * scale


@njit(**FUSED)
def _near(d, a):
    return ((a + np.float32(2)) * d - (a + np.float32(3))) * d * d + _ONE


@njit(**FUSED)
def _far(d, a):
    return ((a * d - np.float32(5) * a) * d + np.float32(8) * a) * d - np.float32(4) * a
