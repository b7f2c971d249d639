"""The iteration of TV-L1 on the rows of a level: the data term's minimum, then a step of the smoothness term's dual."""

import math

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import EXACT, FAST, MARGIN, U, padded

_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(**EXACT)
def iterate(rows, height, width, count, weights, changes):
    """`count` iterations; changes[k] becomes the sum over the pixels of the squared change of u in the k-th of them.

    Row by row, the later iterations following the earlier ones at one row's distance, so that several find a row in
    the cache. Iteration k updates the flow of row t - k at time t, then the dual of the row above, which needs it.
    """
    for k in range(count):
        changes[k] = 0.0
    for time in range(height + count):
        for k in range(count):
            y = time - k
            if 0 <= y < height:
                changes[k] += _update_flow(rows, y + 1, width, weights)
            if y == height - 1:
                _repeat_row(rows, height, width)
            if 0 < y <= height:
                _update_dual(rows, y, width, weights)


@njit(**FAST)
def _update_flow(rows, index, width, weights):
    """u = v + theta div p (Zach eq. 9), v the data term's minimum (eq. 15); returns the sum of squared changes."""
    row = rows[U(index)]
    above = rows[U(index) - U(1)]
    limit, theta = weights.limit, weights.theta
    u1, u2 = row.u[0], row.u[1]
    change = _ZERO
    for i in range(U(MARGIN), U(MARGIN + padded(width))):
        before1, before2 = u1[i], u2[i]
        rho = row.residual[i] + (row.grad_x[i] * before1 + row.grad_y[i] * before2)
        step = min(max(-rho * row.inverse_norm[i], -limit), limit)
        divergence1 = (row.p11[i] - row.p11[i - U(1)]) + (row.p12[i] - above.p12[i])
        divergence2 = (row.p21[i] - row.p21[i - U(1)]) + (row.p22[i] - above.p22[i])
        after1 = (before1 + step * row.grad_x[i]) + theta * divergence1
        after2 = (before2 + step * row.grad_y[i]) + theta * divergence2
        u1[i], u2[i] = after1, after2
        moved1, moved2 = after1 - before1, after2 - before2
        change = _sum(change, moved1 * moved1 + moved2 * moved2)
    end = U(MARGIN + width)
    u1[end], u2[end] = u1[end - U(1)], u2[end - U(1)]
    return change


@njit(fastmath=True)
def _sum(a, b):
    """The one addition that may be reordered, so that every lane of a vector has a sum of its own."""
    return a + b


@njit(**FAST)
def _update_dual(rows, index, width, weights):
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|), of each component of the flow (Zach eq. 11).

    The two divisions share one reciprocal.
    """
    row = rows[U(index)]
    below = rows[U(index) + U(1)]
    step = weights.dual_step
    u1, u2, below1, below2 = row.u[0], row.u[1], below.u[0], below.u[1]
    for i in range(U(MARGIN), U(MARGIN + padded(width))):
        slope11, slope12 = u1[i + U(1)] - u1[i], below1[i] - u1[i]
        slope21, slope22 = u2[i + U(1)] - u2[i], below2[i] - u2[i]
        norm1 = _ONE + step * math.sqrt(slope11 * slope11 + slope12 * slope12)
        norm2 = _ONE + step * math.sqrt(slope21 * slope21 + slope22 * slope22)
        reciprocal = _ONE / (norm1 * norm2)
        scale1, scale2 = reciprocal * norm2, reciprocal * norm1
        row.p11[i] = (row.p11[i] + step * slope11) * scale1
        row.p12[i] = (row.p12[i] + step * slope12) * scale1
        row.p21[i] = (row.p21[i] + step * slope21) * scale2
        row.p22[i] = (row.p22[i] + step * slope22) * scale2
    end = U(MARGIN + width)
    row.p11[end] = row.p12[end] = row.p21[end] = row.p22[end] = _ZERO


@njit(**EXACT)
def _repeat_row(rows, index, width):
    """The flow of the last row into the record below it."""
    source, target = rows[U(index)], rows[U(index) + U(1)]
    for i in range(U(MARGIN), U(MARGIN + width)):
        target.u[0][i] = source.u[0][i]
        target.u[1][i] = source.u[1][i]
