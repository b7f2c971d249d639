"""The state of the iteration: one record an image row, with all its fields.

Pixel (x, y) is at index MARGIN + x of record y + 1. The record above the first row stays 0 and stands for the dual
variable outside the image; the one below the last, and the pixel right of each row, repeat the flow, so that its
forward difference there is 0. Rows are computed to the next multiple of LANES: whatever lies between is 0, but for
that pixel's flow, and stays so.
"""

import numpy as np
from numba import njit

U = np.uintp
"""The type of indices in hot loops."""

MARGIN = 16  # floats: one cache line, which keeps rows aligned
LANES = 8
"""Pixels of a row are computed in whole vectors of so many, those of AVX2: a pixel left over would cost as much."""
AROUND = 12
"""Rows above and below an image: those 4 pixels beyond the border, and what is read around them, lie within."""
SORTED_LINES = 5  # of the 5x5 median

# Divisions by zero give infinity. FUSED: products are added without being rounded first. FAST: also, reciprocals may be
# approximate, and there are no NaNs. Parity is to rounding, not to the bit; but additions stay in the order in which
# they are written: where the compiler may choose, it chooses another one every time it runs, and the flow would depend
# on who compiled.
EXACT = {"error_model": "numpy", "nogil": True}
FUSED = {"fastmath": {"contract"}, **EXACT}
FAST = {"fastmath": {"nnan", "ninf", "nsz", "arcp", "contract", "afn"}, **EXACT}


def row_type(stride: int) -> np.dtype:
    """A row's record, for images up to `widest(stride)` pixels wide. The kernels are compiled for one such type."""
    line = (np.float32, (stride,))
    names = ("grad_x", "grad_y", "inverse_norm", "residual", "p11", "p12", "p21", "p22")
    return np.dtype([*((name, *line) for name in names), ("u", np.float32, (2, stride))])


def planes_type(stride: int) -> np.dtype:
    """A row of the images: of the first its values; of the second its values and its gradient. Pixel (x, y) is at index
    MARGIN + x of record AROUND + y."""
    return np.dtype([("first", np.float32, (stride,)), ("second", np.float32, (3, stride))])


def scratch_type(stride: int) -> np.dtype:
    """Lines for the median filter and for the warp."""
    lines = {"sorted": SORTED_LINES, "weights": 8, "offsets": 2, "sampled": 3}
    return np.dtype([(name, np.float32, (count, stride)) for name, count in lines.items()])


def widest(stride: int) -> int:
    return stride - 2 * MARGIN


@njit(**EXACT)
def padded(width):
    return (width + LANES - 1) // LANES * LANES


@njit(**EXACT)
def start_level(rows, flow):
    """The flow [2, H, W] into the rows; the dual variable to zero."""
    _, height, width = flow.shape
    for y in range(height + 2):
        row = rows[y]
        for i in range(U(MARGIN - 1), U(MARGIN + width)):
            row.p11[i] = row.p12[i] = row.p21[i] = row.p22[i] = np.float32(0)
        for i in range(U(MARGIN + width), U(MARGIN + padded(width) + 1)):
            row.p11[i] = row.p12[i] = row.p21[i] = row.p22[i] = row.u[0][i] = row.u[1][i] = np.float32(0)
            row.grad_x[i] = row.grad_y[i] = row.inverse_norm[i] = row.residual[i] = np.float32(0)
    for k in range(2):
        for y in range(height):
            u = rows[y + 1].u[k]
            for x in range(U(width)):
                u[U(MARGIN) + x] = flow[k, y, x]


@njit(**EXACT)
def read_flow(rows, flow):
    """The rows' flow into [2, H, W]."""
    _, height, width = flow.shape
    for k in range(2):
        for y in range(height):
            u = rows[y + 1].u[k]
            for x in range(U(width)):
                flow[k, y, x] = u[U(MARGIN) + x]


@njit(**EXACT)
def copy_state(rows, copy, height, width):
    """The flow and the dual variable of the rows into those of others."""
    for y in range(height + 2):
        source, target = rows[y], copy[y]
        for i in range(U(MARGIN), U(MARGIN + width + 1)):
            target.u[0][i], target.u[1][i] = source.u[0][i], source.u[1][i]
            target.p11[i], target.p12[i] = source.p11[i], source.p12[i]
            target.p21[i], target.p22[i] = source.p21[i], source.p22[i]
