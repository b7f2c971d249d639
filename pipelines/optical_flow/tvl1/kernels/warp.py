"""Warping the second image and its gradient by the flow, and linearising the brightness constancy there."""

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import EXACT, FAST, MARGIN, U

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


@njit(**EXACT)
def with_gradient(image):
    """An image and its centred gradient, the border repeated outwards: [H, W] to [H, W, 4], the last one 0.

    Together, because they are sampled together: four lanes of one vector.
    """
    height, width = image.shape
    planes = np.zeros((height, width, 4), np.float32)
    for y in range(height):
        above, below = image[max(y - 1, 0)], image[min(y + 1, height - 1)]
        for x in range(width):
            planes[y, x, 0] = image[y, x]
            planes[y, x, 1] = _HALF * (image[y, min(x + 1, width - 1)] - image[y, max(x - 1, 0)])
            planes[y, x, 2] = _HALF * (below[x] - above[x])
    return planes


@njit(**FAST)
def warp(rows, planes, image0, like_cuda):
    """Sets the rows' gradient, the reciprocal of its squared norm (0 where that is 0) and the residual.

    `planes` [H, W, 4] is sampled bicubically at (x, y) + u. Pixels outside count as 0, or, `like_cuda`, as the nearest
    inside, with the weights' sum divided out.
    """
    height, width = image0.shape
    pixels = planes.reshape(planes.size)
    for y in range(height):
        row = rows[U(y + 1)]
        for x in range(width):
            i = U(MARGIN + x)
            u1, u2 = row.u[0][i], row.u[1][i]
            at_x, at_y = np.float32(x) + u1, np.float32(y) + u2
            floor_x, floor_y = np.floor(at_x), np.floor(at_y)
            left, top = int(floor_x) - 1, int(floor_y) - 1
            across = _cubic_weights(at_x - floor_x, like_cuda)
            down = _cubic_weights(at_y - floor_y, like_cuda)
            if left >= 0 and top >= 0 and left + 3 < width and top + 3 < height:
                value, grad_x, grad_y, zero = _sample_inside(pixels, width, U(left), U(top), across, down)
            else:
                value, grad_x, grad_y, zero = _sample_at_border(
                    pixels, height, width, left, top, across, down, like_cuda
                )
            norm = grad_x * grad_x + grad_y * grad_y
            row.grad_x[i] = grad_x
            row.grad_y[i] = grad_y
            row.inverse_norm[i] = _ONE / norm if norm > _ZERO else _ZERO
            # The fourth plane's 0 is added so that it is computed: with four lanes alike this takes 25 ns, not 60.
            row.residual[i] = value - grad_x * u1 - grad_y * u2 - image0[U(y), U(x)] + zero


@njit(**FAST)
def _sample_inside(pixels, width, left, top, across, down):
    """All four planes at a point whose 4x4 pixels from (left, top) on are inside."""
    next_row = U(4) * U(width)
    start = top * next_row + left * U(4)
    a = _weighted(pixels, start, across)
    b = _weighted(pixels, start + next_row, across)
    c = _weighted(pixels, start + next_row + next_row, across)
    d = _weighted(pixels, start + next_row + next_row + next_row, across)
    return (
        down[0] * a[0] + down[1] * b[0] + down[2] * c[0] + down[3] * d[0],
        down[0] * a[1] + down[1] * b[1] + down[2] * c[1] + down[3] * d[1],
        down[0] * a[2] + down[1] * b[2] + down[2] * c[2] + down[3] * d[2],
        down[0] * a[3] + down[1] * b[3] + down[2] * c[3] + down[3] * d[3],
    )


@njit(**FAST)
def _weighted(pixels, i, w):
    """Four pixels of a row from index i on, weighted and summed: each of their four planes."""
    return (
        (w[0] * pixels[i] + w[1] * pixels[i + U(4)]) + (w[2] * pixels[i + U(8)] + w[3] * pixels[i + U(12)]),
        (w[0] * pixels[i + U(1)] + w[1] * pixels[i + U(5)]) + (w[2] * pixels[i + U(9)] + w[3] * pixels[i + U(13)]),
        (w[0] * pixels[i + U(2)] + w[1] * pixels[i + U(6)]) + (w[2] * pixels[i + U(10)] + w[3] * pixels[i + U(14)]),
        (w[0] * pixels[i + U(3)] + w[1] * pixels[i + U(7)]) + (w[2] * pixels[i + U(11)] + w[3] * pixels[i + U(15)]),
    )


@njit(**EXACT)
def _sample_at_border(pixels, height, width, left, top, across, down, like_cuda):
    value = grad_x = grad_y = _ZERO
    for j in range(4):
        for i in range(4):
            x, y = left + i, top + j
            if like_cuda:
                x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            if 0 <= x < width and 0 <= y < height:
                weight = across[i] * down[j]
                at = U(4 * (y * width + x))
                value += weight * pixels[at]
                grad_x += weight * pixels[at + U(1)]
                grad_y += weight * pixels[at + U(2)]
    return value, grad_x, grad_y, _ZERO


@njit(**FAST)
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


@njit(**FAST)
def _near(d, a):
    return ((a + np.float32(2)) * d - (a + np.float32(3))) * d * d + _ONE


@njit(**FAST)
def _far(d, a):
    return ((a * d - np.float32(5) * a) * d + np.float32(8) * a) * d - np.float32(4) * a
