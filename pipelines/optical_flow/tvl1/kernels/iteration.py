"""The iteration of TV-L1 on the rows of a level: the data term's minimum, then a step of the smoothness term's dual."""

import math

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.rows import (
    EXACT,
    FAST,
    LANES,
    MARGIN,
    P12,
    P22,
    SEPARATE,
    SUMS,
    U,
    clear,
    fields,
    line,
    padded,
)

_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(**EXACT)
def iterate(rows, height, width, count, weights, scratch, changes):
    """`count` iterations; changes[k] becomes the sum over the pixels of the squared change of u in the k-th of them.

    Row by row, the later iterations following the earlier ones at one row's distance, so that several find a row in
    the cache. Iteration k updates the flow of row t - k at time t, and the dual of the row above, which needs it.
    """
    for k in range(count):
        changes[k] = 0.0
    sums = line(scratch, 0, SUMS)
    for time in range(height + count):
        for k in range(count):
            y = time - k
            if 0 <= y < height:
                _update(fields(rows, y + 1), fields(rows, y), sums, width, weights)
                changes[k] += _total(sums)
            if y == 0:  # the dual above the first row stays 0
                for number in (P12, P22):
                    clear(line(rows, 0, number), MARGIN, MARGIN + padded(width, LANES))
            if y == height:
                _update_last(fields(rows, height), width, weights)


@njit(**FAST, **SEPARATE)
def _update(row, above, sums, width, weights):
    """The flow of a row, then, a vector behind it, the dual of the row above.

    Neither waits for the other: the processor works on both at once.
    """
    for lane in range(U(LANES)):
        sums[lane] = _ZERO
    first, last = U(MARGIN), U(MARGIN + padded(width, LANES) - LANES)
    _update_flow(row, above, sums, first, weights)
    for start in range(first, last, U(LANES)):
        _update_flow(row, above, sums, start + U(LANES), weights)
        _update_dual(above, row, start, weights)
    _update_dual(above, row, last, weights)
    end = U(MARGIN + width)
    _, _, _, _, _, _, _, _, u1, u2 = row
    u1[end], u2[end] = u1[end - U(1)], u2[end - U(1)]
    _end_dual(above, end)


@njit(**FAST, **SEPARATE)
def _update_last(row, width, weights):
    """The dual of the last row, below which the flow repeats."""
    for start in range(U(MARGIN), U(MARGIN + width), U(LANES)):
        _update_dual(row, row, start, weights)
    _end_dual(row, U(MARGIN + width))


@njit(**FAST, **SEPARATE)
def _update_flow(row, above, sums, start, weights):
    """u = v + theta div p (Zach eq. 9), v the data term's minimum (eq. 15). The squared changes of u are added up in
    `sums`, in each lane of a vector its own, so that their order is the same whatever processor it is compiled for."""
    grad_x, grad_y, inverse_norm, residual, p11, p12, p21, p22, u1, u2 = row
    _, _, _, _, _, above12, _, above22, _, _ = above
    for lane in range(U(LANES)):
        i = start + lane
        before1, before2 = u1[i], u2[i]
        rho = (residual[i] + grad_x[i] * before1) + grad_y[i] * before2
        step = min(max(-rho * inverse_norm[i], -weights.limit), weights.limit)
        divergence1 = (p11[i] - p11[i - U(1)]) + (p12[i] - above12[i])
        divergence2 = (p21[i] - p21[i - U(1)]) + (p22[i] - above22[i])
        after1 = (before1 + step * grad_x[i]) + weights.theta * divergence1
        after2 = (before2 + step * grad_y[i]) + weights.theta * divergence2
        u1[i], u2[i] = after1, after2
        moved1, moved2 = after1 - before1, after2 - before2
        sums[lane] = (sums[lane] + moved2 * moved2) + moved1 * moved1


@njit(**FAST, **SEPARATE)
def _update_dual(row, below, start, weights):
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|), of each component of the flow (Zach eq. 11).

    The two divisions share one reciprocal.
    """
    _, _, _, _, p11, p12, p21, p22, u1, u2 = row
    _, _, _, _, _, _, _, _, below1, below2 = below
    factor = weights.dual_step
    for lane in range(U(LANES)):
        i = start + lane
        slope11, slope12 = u1[i + U(1)] - u1[i], below1[i] - u1[i]
        slope21, slope22 = u2[i + U(1)] - u2[i], below2[i] - u2[i]
        norm1 = _ONE + factor * math.sqrt(slope11 * slope11 + slope12 * slope12)
        norm2 = _ONE + factor * math.sqrt(slope21 * slope21 + slope22 * slope22)
        reciprocal = _ONE / (norm1 * norm2)
        scale1, scale2 = reciprocal * norm2, reciprocal * norm1
        p11[i] = (p11[i] + factor * slope11) * scale1
        p12[i] = (p12[i] + factor * slope12) * scale1
        p21[i] = (p21[i] + factor * slope21) * scale2
        p22[i] = (p22[i] + factor * slope22) * scale2


@njit(**EXACT)
def _end_dual(row, end):
    """It is 0 beyond the last pixel."""
    _, _, _, _, p11, p12, p21, p22, _, _ = row
    p11[end] = p12[end] = p21[end] = p22[end] = _ZERO


@njit(**EXACT)
def _total(sums):
    total = _ZERO
    for lane in range(LANES):
        total += sums[lane]
    return total
