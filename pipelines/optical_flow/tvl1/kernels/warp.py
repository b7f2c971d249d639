"""Warping the second image and its gradient by the flow, and linearising the brightness constancy there."""

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import EXACT, FAST, MARGIN, U

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_SMALLEST = np.float32(1e-30)  # squared gradient whose reciprocal is a number: flow of 1e-20 in flat parts gives less


# Of each pixel are needed 4 columns of 4 planes. But LLVM makes vectors only of 32 values and more at a time, so that
# computing twice what is needed takes 8 ns a pixel instead of 20; the next pixel overwrites the rest.
_NEEDED, _COMPUTED = 16, 32


@njit(**EXACT)
def read_planes(image, planes):
    """An image and its centred gradient, the border repeated outwards.

    Interleaved, because they are sampled together.
    """
    height, width = image.shape
    for y in range(height):
        above, below = image[max(y - 1, 0)], image[min(y + 1, height - 1)]
        values = planes[y].values
        for x in range(width):
            values[4 * x] = image[y, x]
            values[4 * x + 1] = _HALF * (image[y, min(x + 1, width - 1)] - image[y, max(x - 1, 0)])
            values[4 * x + 2] = _HALF * (below[x] - above[x])


@njit(**EXACT)
def warp(rows, planes, image0, like_cuda, scratch):
    """Sets the rows' gradient, the reciprocal of its squared norm (0 where that is 0) and the residual.

    The planes are sampled bicubically at (x, y) + u. Pixels outside count as 0, or, `like_cuda`, as the nearest inside,
    with the weights' sum divided out.
    """
    height, width = image0.shape
    for y in range(height):
        _weigh(rows[y + 1], scratch, y, width, like_cuda)
        _sum_columns(rows[y + 1], planes, scratch, y, height, width, like_cuda)
        _linearise(rows[y + 1], scratch, image0[y], width)


@njit(**EXACT)
def _weigh(row, scratch, y, width, like_cuda):
    """The weights of the 4 columns and of the 4 rows around each point.

    Not reordered: that they add up to 1 keeps a flat picture flat.
    """
    weights = scratch[0].weights
    for i in range(U(MARGIN), U(MARGIN + width)):
        x = np.float32(np.int32(i) - np.int32(MARGIN)) + row.u[0][i]
        across = _cubic_weights(x - np.floor(x), like_cuda)
        weights[0, i], weights[1, i], weights[2, i], weights[3, i] = across
        y_there = np.float32(y) + row.u[1][i]
        down = _cubic_weights(y_there - np.floor(y_there), like_cuda)
        weights[4, i], weights[5, i], weights[6, i], weights[7, i] = down


@njit(**FAST)
def _sum_columns(row, planes, scratch, y, height, width, like_cuda):
    """Sums the 4 columns of pixels around each point, weighted by row."""
    weights = scratch[0].weights
    for x in range(width):
        i = U(MARGIN + x)
        left = int(np.floor(np.float32(x) + row.u[0][i])) - 1
        top = int(np.floor(np.float32(y) + row.u[1][i])) - 1
        down = weights[4, i], weights[5, i], weights[6, i], weights[7, i]
        at = U(_NEEDED) * U(x)
        if left >= 0 and top >= 0 and left + 3 < width and top + 3 < height:
            _sum_columns_inside(planes, scratch, at, U(left), U(top), down)
        else:
            _sum_columns_at_border(planes, scratch, at, left, top, down, height, width, like_cuda)


@njit(**FAST)
def _sum_columns_inside(planes, scratch, at, left, top, down):
    row0, row1 = planes[top].values, planes[top + U(1)].values
    row2, row3 = planes[top + U(2)].values, planes[top + U(3)].values
    columns = scratch[0].columns
    weight0, weight1, weight2, weight3 = down
    start = U(4) * left
    for c in range(U(_COMPUTED)):
        i = start + c
        columns[at + c] = (weight0 * row0[i] + weight1 * row1[i]) + (weight2 * row2[i] + weight3 * row3[i])


@njit(**EXACT)
def _sum_columns_at_border(planes, scratch, at, left, top, down, height, width, like_cuda):
    columns = scratch[0].columns
    for c in range(_NEEDED):
        columns[at + U(c)] = _ZERO
    for j in range(4):
        for i in range(4):
            x, y = left + i, top + j
            if like_cuda:
                x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            if 0 <= x < width and 0 <= y < height:
                for k in range(4):
                    columns[at + U(4 * i + k)] += down[j] * planes[y].values[4 * x + k]


@njit(**FAST)
def _linearise(row, scratch, image0, width):
    """Weighs the columns too, and linearises the brightness constancy at the flow that the warp was made with."""
    weights, columns = scratch[0].weights, scratch[0].columns
    for x in range(U(width)):
        i, at = x + U(MARGIN), x * U(_NEEDED)
        a, b, c, d = weights[0, i], weights[1, i], weights[2, i], weights[3, i]
        value = (a * columns[at] + b * columns[at + U(4)]) + (c * columns[at + U(8)] + d * columns[at + U(12)])
        at += U(1)
        grad_x = (a * columns[at] + b * columns[at + U(4)]) + (c * columns[at + U(8)] + d * columns[at + U(12)])
        at += U(1)
        grad_y = (a * columns[at] + b * columns[at + U(4)]) + (c * columns[at + U(8)] + d * columns[at + U(12)])
        norm = grad_x * grad_x + grad_y * grad_y
        row.grad_x[i] = grad_x
        row.grad_y[i] = grad_y
        row.inverse_norm[i] = _ONE / norm if norm > _SMALLEST else _ZERO
        row.residual[i] = value - grad_x * row.u[0][i] - grad_y * row.u[1][i] - image0[x]


@njit(**EXACT)
def _cubic_weights(f, like_cuda):
    """Keys' cubic kernel for the pixels at -1, 0, 1, 2 of a point at f in 0..1: a is -.5 `like_cuda`, else -.75."""
    a = np.float32(-0.5) if like_cuda else np.float32(-0.75)
    w0 = _far(_ONE + f, a)
    w1 = _near(f, a)
    w2 = _near(_ONE - f, a)
    if not like_cuda:
        return w0, w1, w2, _ONE - w0 - w1 - w2
    w3 = _far(_ONE + _ONE - f, a)
    scale = _ONE / (w0 + w1 + w2 + w3)
    return w0 * scale, w1 * scale, w2 * scale, w3 * scale


@njit(**EXACT)
def _near(d, a):
    return ((a + np.float32(2)) * d - (a + np.float32(3))) * d * d + _ONE


@njit(**EXACT)
def _far(d, a):
    return ((a * d - np.float32(5) * a) * d + np.float32(8) * a) * d - np.float32(4) * a
