"""Warping the second image and its gradient by the flow, and linearising the brightness constancy there.

Neighbouring pixels mostly move alike. As long as the pixels of a run read from places whose whole parts differ by no
more than one, all of them read 5 x 5 values around one common offset, each with one row and one column of weights 0:
as many values as vectors hold are sampled at once, with nothing to gather. The others are sampled one by one.
"""

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import AROUND, EXACT, FAST, FUSED, LANES, MARGIN, U, padded

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_SMALLEST = np.float32(1e-30)  # squared gradient whose reciprocal is a number: flow of 1e-20 in flat parts gives less
_OUTSIDE = np.float32(4)  # pixels beyond the border, from where on all that is read is border


@njit(**EXACT)
def read_planes(image0, image1, like_cuda, planes):
    """The first image, and the second with its centred gradient, whose border is repeated outwards.

    Around the second and its gradient are zeros, or, `like_cuda`, their border again.
    """
    height, width = image1.shape
    for y in range(height):
        above, here, below = image1[max(y - 1, 0)], image1[y], image1[min(y + 1, height - 1)]
        row = planes[y + AROUND]
        values = row.second[0]
        for x in range(U(width)):
            i = x + U(MARGIN)
            row.first[i], values[i] = image0[y, x], here[x]
            row.second[2, i] = _HALF * (below[x] - above[x])
        _surround_line(values, width, True)
        for i in range(U(MARGIN), U(MARGIN + width)):
            row.second[1, i] = _HALF * (values[i + U(1)] - values[i - U(1)])
        for k in range(3):
            _surround_line(row.second[k], width, like_cuda)
    first, last = planes[AROUND], planes[AROUND + height - 1]
    for k in range(3):
        for y in range(AROUND):
            _surround_row(first.second[k], planes[y].second[k], width, like_cuda)
            _surround_row(last.second[k], planes[AROUND + height + y].second[k], width, like_cuda)


@njit(**EXACT)
def _surround_line(line, width, repeat):
    first, last = (line[MARGIN], line[MARGIN + width - 1]) if repeat else (_ZERO, _ZERO)
    for i in range(MARGIN):
        line[i] = first
        line[MARGIN + width + i] = last


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
        row = rows[y + 1]
        _weigh(row, scratch, y, height, width, like_cuda)
        _sample_row(planes, scratch, y, width)
        _linearise(row, planes[y + AROUND], scratch, width)


@njit(**FUSED)
def _weigh(row, scratch, y, height, width, like_cuda):
    """Of each pixel: how far from it the point is where it is sampled, in whole pixels; the weights of the 4 columns
    and of the 4 rows around that.
    """
    weights, offsets = scratch[0].weights, scratch[0].offsets
    right, bottom = np.float32(width) + _OUTSIDE, np.float32(height) + _OUTSIDE
    y_here = np.float32(y)
    for i in range(U(MARGIN), U(MARGIN + width)):
        x_here = np.float32(np.int32(i) - np.int32(MARGIN))
        x = x_here + row.u[0][i]
        whole = np.floor(x)
        offsets[0, i] = min(max(whole, -_OUTSIDE), right) - x_here
        weights[0, i], weights[1, i], weights[2, i], weights[3, i] = _cubic_weights(x - whole, like_cuda)
        y_there = y_here + row.u[1][i]
        whole = np.floor(y_there)
        offsets[1, i] = min(max(whole, -_OUTSIDE), bottom) - y_here
        weights[4, i], weights[5, i], weights[6, i], weights[7, i] = _cubic_weights(y_there - whole, like_cuda)
    for k in range(2):
        for i in range(MARGIN + width, MARGIN + padded(width)):
            offsets[k, i] = offsets[k, MARGIN + width - 1]


@njit(**EXACT)
def _sample_row(planes, scratch, y, width):
    """Divides a row into runs, as long as they can be."""
    start, end = MARGIN, MARGIN + padded(width)
    while start < end:
        stop = start
        run = block = _bounds(scratch, start)
        while _move_alike(block):
            run = block
            stop += LANES
            if stop >= end:
                break
            block = _united(run, _bounds(scratch, stop))
        if stop > start:
            _sample_run(planes, scratch, y, start, stop, run)
        else:
            stop = start + LANES
            _sample_each(planes, scratch, y, start)
        start = stop


@njit(**FAST)
def _bounds(scratch, start):
    """The least and the largest offset of a vector of pixels: left, right, top, bottom."""
    offsets = scratch[0].offsets
    left = right = offsets[0, U(start)]
    top = bottom = offsets[1, U(start)]
    for i in range(U(start), U(start) + U(LANES)):
        left, right = min(left, offsets[0, i]), max(right, offsets[0, i])
        top, bottom = min(top, offsets[1, i]), max(bottom, offsets[1, i])
    return left, right, top, bottom


@njit(**EXACT)
def _united(one, other):
    return min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3])


@njit(**EXACT)
def _move_alike(bounds):
    left, right, top, bottom = bounds
    return right - left <= _ONE and bottom - top <= _ONE


@njit(**FAST)
def _sample_run(planes, scratch, y, start, stop, bounds):
    weights, offsets, sampled = scratch[0].weights, scratch[0].offsets, scratch[0].sampled
    left, _, top, _ = bounds
    uppermost = U(y + AROUND - 1 + int(top))
    row0, row1, row2 = planes[uppermost], planes[uppermost + U(1)], planes[uppermost + U(2)]
    row3, row4 = planes[uppermost + U(3)], planes[uppermost + U(4)]
    here, there = U(start), U(start + int(left) - 1)
    for n in range(U(stop - start)):
        i, at = here + n, there + n
        a = _shifted((weights[0, i], weights[1, i], weights[2, i], weights[3, i]), offsets[0, i] > left)
        b = _shifted((weights[4, i], weights[5, i], weights[6, i], weights[7, i]), offsets[1, i] > top)
        for k in range(U(3)):
            upper = _across(row0.second[k], at, a) * b[0] + _across(row1.second[k], at, a) * b[1]
            lower = _across(row3.second[k], at, a) * b[3] + _across(row4.second[k], at, a) * b[4]
            sampled[k, i] = upper + _across(row2.second[k], at, a) * b[2] + lower


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
def _across(line, i, w):
    upper = line[i] * w[0] + line[i + U(1)] * w[1]
    return upper + line[i + U(2)] * w[2] + (line[i + U(3)] * w[3] + line[i + U(4)] * w[4])


@njit(**FAST)
def _sample_each(planes, scratch, y, start):
    weights, offsets, sampled = scratch[0].weights, scratch[0].offsets, scratch[0].sampled
    for i in range(U(start), U(start + LANES)):
        top, at = U(y + AROUND - 1 + int(offsets[1, i])), U(int(i) - 1 + int(offsets[0, i]))
        row0, row1, row2, row3 = planes[top], planes[top + U(1)], planes[top + U(2)], planes[top + U(3)]
        a = weights[0, i], weights[1, i], weights[2, i], weights[3, i]
        b = weights[4, i], weights[5, i], weights[6, i], weights[7, i]
        for k in range(U(3)):
            lines = row0.second[k], row1.second[k], row2.second[k], row3.second[k]
            first = _down(lines, at, b) * a[0] + _down(lines, at + U(1), b) * a[1]
            sampled[k, i] = first + (_down(lines, at + U(2), b) * a[2] + _down(lines, at + U(3), b) * a[3])


@njit(**FAST)
def _down(lines, i, w):
    return (lines[0][i] * w[0] + lines[1][i] * w[1]) + (lines[2][i] * w[2] + lines[3][i] * w[3])


@njit(**FAST)
def _linearise(row, planes_row, scratch, width):
    """Linearises the brightness constancy at the flow that the warp was made with."""
    sampled, first = scratch[0].sampled, planes_row.first
    for i in range(U(MARGIN), U(MARGIN + width)):
        value, grad_x, grad_y = sampled[0, i], sampled[1, i], sampled[2, i]
        norm = grad_x * grad_x + grad_y * grad_y
        row.grad_x[i] = grad_x
        row.grad_y[i] = grad_y
        row.inverse_norm[i] = _ONE / norm if norm > _SMALLEST else _ZERO
        row.residual[i] = value - grad_x * row.u[0][i] - grad_y * row.u[1][i] - first[i]


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
