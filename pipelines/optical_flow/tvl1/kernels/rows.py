"""The state of the iteration: one record an image row, with all its fields.

Pixel (x, y) is at index MARGIN + x of record y + 1. The record above the first row stays 0 and stands for the dual
variable outside the image; the one below the last, and the pixel right of each row, repeat the flow, so that its
forward difference there is 0.
"""

import numpy as np
from numba import njit

U = np.uintp
"""The type of indices in hot loops."""

MARGIN = 16  # floats: one cache line, which keeps rows aligned
SORTED_LINES = 5  # of the 5x5 median

# Divisions by zero give infinity, and sums may be reordered for vectors: parity is to rounding, not to the bit.
FAST = {"fastmath": True, "error_model": "numpy", "nogil": True}
EXACT = {"error_model": "numpy", "nogil": True}


def row_type(stride: int) -> np.dtype:
    """A row's record, for images up to `widest(stride)` pixels wide. The kernels are compiled for one such type."""
    line = (np.float32, (stride,))
    names = ("grad_x", "grad_y", "inverse_norm", "residual", "p11", "p12", "p21", "p22")
    return np.dtype([*((name, *line) for name in names), ("u", np.float32, (2, stride))])


def planes_type(stride: int) -> np.dtype:
    """A row of the second image: of each pixel its value, its gradient and a 0."""
    return np.dtype([("values", np.float32, (4 * stride,))])


def scratch_type(stride: int) -> np.dtype:
    """Lines for the median filter and for the warp."""
    return np.dtype(
        [
            ("sorted", np.float32, (SORTED_LINES, stride)),
            ("weights", np.float32, (8, stride)),
            ("columns", np.float32, (16 * stride,)),
        ]
    )


def widest(stride: int) -> int:
    return stride - 2 * MARGIN


@njit(**EXACT)
def start_level(rows, flow):
    """The flow [2, H, W] into the rows; the dual variable to zero."""
    _, height, width = flow.shape
    for y in range(height + 1):
        row = rows[y]
        for i in range(U(MARGIN - 1), U(MARGIN + width)):
            row.p11[i] = row.p12[i] = row.p21[i] = row.p22[i] = np.float32(0)
    for k in range(2):
        for y in range(height):
            u = rows[y + 1].u[k]
            for x in range(width):
                u[MARGIN + x] = flow[k, y, x]


@njit(**EXACT)
def read_flow(rows, flow):
    """The rows' flow into [2, H, W]."""
    _, height, width = flow.shape
    for k in range(2):
        for y in range(height):
            u = rows[y + 1].u[k]
            for x in range(width):
                flow[k, y, x] = u[MARGIN + x]
