"""The iteration of TV-L1 on the rows of a level: the data term's minimum, then a step of the smoothness term's dual."""

import math

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import (
    EXACT,
    FAST,
    GRAD_X,
    GRAD_Y,
    INVERSE_NORM,
    LANES,
    MARGIN,
    P11,
    P12,
    P21,
    P22,
    RESIDUAL,
    SEPARATE,
    SUMS,
    U1,
    U2,
    U,
    copy_line,
    line,
    padded,
)

_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(**EXACT)
def iterate(rows, height, width, count, weights, scratch, changes):
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
                changes[k] += _update_flow_of_row(rows, y + 1, width, weights, line(scratch, 0, SUMS))
            if y == height - 1:
                for number in (U1, U2):
                    copy_line(line(rows, height, number), line(rows, height + 1, number), MARGIN + width)
            if 0 < y <= height:
                _update_dual_of_row(rows, y, width, weights)


@njit(**EXACT)
def _update_flow_of_row(rows, y, width, weights, sums):
    """Returns the sum of the squared changes of u."""
    _update_flow(
        line(rows, y, U1),
        line(rows, y, U2),
        line(rows, y, GRAD_X),
        line(rows, y, GRAD_Y),
        line(rows, y, INVERSE_NORM),
        line(rows, y, RESIDUAL),
        line(rows, y, P11),
        line(rows, y, P12),
        line(rows, y - 1, P12),
        line(rows, y, P21),
        line(rows, y, P22),
        line(rows, y - 1, P22),
        sums,
        width,
        weights.limit,
        weights.theta,
    )
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))


@njit(**FAST, **SEPARATE)
def _update_flow(
    u1, u2, grad_x, grad_y, inverse_norm, residual, p11, p12, above12, p21, p22, above22, sums, width, limit, theta
):
    """u = v + theta div p (Zach eq. 9), v the data term's minimum (eq. 15). The squared changes of u are added up in
    `sums`, in each lane of a vector its own, so that their order is the same whatever processor it is compiled for."""
    for lane in range(U(LANES)):
        sums[lane] = _ZERO
    for start in range(U(MARGIN), U(MARGIN + padded(width)), U(LANES)):
        for lane in range(U(LANES)):
            i = start + lane
            before1, before2 = u1[i], u2[i]
            rho = residual[i] + (grad_x[i] * before1 + grad_y[i] * before2)
            step = min(max(-rho * inverse_norm[i], -limit), limit)
            divergence1 = (p11[i] - p11[i - U(1)]) + (p12[i] - above12[i])
            divergence2 = (p21[i] - p21[i - U(1)]) + (p22[i] - above22[i])
            after1 = (before1 + step * grad_x[i]) + theta * divergence1
            after2 = (before2 + step * grad_y[i]) + theta * divergence2
            u1[i], u2[i] = after1, after2
            moved1, moved2 = after1 - before1, after2 - before2
            sums[lane] = (sums[lane] + moved2 * moved2) + moved1 * moved1
    end = U(MARGIN + width)
    u1[end], u2[end] = u1[end - U(1)], u2[end - U(1)]


@njit(**EXACT)
def _update_dual_of_row(rows, y, width, weights):
    _update_dual(
        line(rows, y, U1),
        line(rows, y + 1, U1),
        line(rows, y, U2),
        line(rows, y + 1, U2),
        line(rows, y, P11),
        line(rows, y, P12),
        line(rows, y, P21),
        line(rows, y, P22),
        width,
        weights.dual_step,
    )


@njit(**FAST, **SEPARATE)
def _update_dual(u1, below1, u2, below2, p11, p12, p21, p22, width, step):
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|), of each component of the flow (Zach eq. 11).

    The two divisions share one reciprocal.
    """
    for start in range(U(MARGIN), U(MARGIN + padded(width)), U(LANES)):
        for lane in range(U(LANES)):
            i = start + lane
            slope11, slope12 = u1[i + U(1)] - u1[i], below1[i] - u1[i]
            slope21, slope22 = u2[i + U(1)] - u2[i], below2[i] - u2[i]
            norm1 = _ONE + step * math.sqrt(slope11 * slope11 + slope12 * slope12)
            norm2 = _ONE + step * math.sqrt(slope21 * slope21 + slope22 * slope22)
            reciprocal = _ONE / (norm1 * norm2)
            scale1, scale2 = reciprocal * norm2, reciprocal * norm1
            p11[i] = (p11[i] + step * slope11) * scale1
            p12[i] = (p12[i] + step * slope12) * scale1
            p21[i] = (p21[i] + step * slope21) * scale2
            p22[i] = (p22[i] + step * slope22) * scale2
    end = U(MARGIN + width)
    p11[end] = p12[end] = p21[end] = p22[end] = _ZERO
