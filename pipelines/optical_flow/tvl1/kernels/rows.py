"""The state of the iteration: a line of memory for each field of each image row.

Pixel (x, y) is at index MARGIN + x of row y + 1. The row above the first stays 0 and stands for the dual variable
outside the image; the one below the last is of no use. The pixel right of each row repeats the flow, so that its
forward difference there is 0. Rows are computed to the next multiple of LANES: whatever lies between is 0, but for that
pixel's flow, and stays so.

All buffers are float32 [rows, lines, stride], of any stride. Their types are the same for all sizes of images, and so
are the compiled kernels: there is one of each (`docs/tvl1.md` says why that matters).
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.compiler import Compiler
from numba.extending import intrinsic

U = np.uintp
"""The type of indices in hot loops."""

MARGIN = 16  # floats: one cache line, which keeps lines aligned
LANES = 16
"""Pixels of a row are iterated in whole vectors of so many: one of AVX-512, or two of AVX2. What they wait for, results
of earlier instructions, they wait for together."""
AROUND = 12
"""Rows above and below an image: those 4 pixels beyond the border, and what is read around them, lie within."""

# The lines of a row of the state. U1 and U2 follow each other, and in `planes` all do: loops count them.
GRAD_X, GRAD_Y, INVERSE_NORM, RESIDUAL, P11, P12, P21, P22, U1, U2 = range(10)
ROW_LINES = 10
# Of a row of the images, `planes`: the first image; the second, its gradient along x and along y. Pixel (x, y) is at
# index MARGIN + x of row AROUND + y.
FIRST, SECOND = 0, 1
PLANES_LINES = 4
# Of the only row of `scratch`: for the median filter 6 rows as they were, 4 lines of sorted columns and 8 of pairs of
# them; for the warp 8 of weights, 2 of offsets and 3 of what was sampled; for the iteration one with a sum for each
# lane of a vector. They are not used at the same time.
UNFILTERED, SORTED, MERGED = 0, 6, 10
WEIGHTS, OFFSETS, SAMPLED = 0, 8, 10
SUMS = 0
SCRATCH_LINES = 18


class _Separate(Compiler):
    """Tells LLVM that the lines a kernel is given do not overlap where it writes to one of them. Without that it would
    have to ask at run time, or not vectorise."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()


# Divisions by zero give infinity. FUSED: products are added without being rounded first. FAST: also, there are no NaNs.
# Parity is to rounding, not to the bit; but additions stay in the order in which they are written: where the compiler
# may choose, it chooses another one every time it runs, and the flow would depend on who compiled. Nor are reciprocals
# approximate: they would be others on each kind of processor, and take as long.
EXACT: dict[str, Any] = {"error_model": "numpy", "nogil": True}
FUSED = {"fastmath": {"contract"}, **EXACT}
FAST = {"fastmath": {"nnan", "ninf", "nsz", "contract"}, **EXACT}
SEPARATE: dict[str, Any] = {"pipeline_class": _Separate}
"""Of kernels on lines, whatever else they are."""


@intrinsic
def line(typingctx, lines, row, number):
    """A pointer to the first float of a line of [rows, lines, stride]."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, arguments[0])
        indices = [
            context.cast(builder, index, given, types.intp)
            for index, given in zip(arguments[1:], signature.args[1:], strict=True)
        ]
        indices.append(context.get_constant(types.intp, 0))
        return cgutils.get_item_pointer(context, builder, kind, array, indices)

    return types.CPointer(types.float32)(lines, row, number), generate


@njit(**EXACT)
def fields(rows, y):
    """The lines of a row of the state, in their order."""
    return (
        line(rows, y, GRAD_X),
        line(rows, y, GRAD_Y),
        line(rows, y, INVERSE_NORM),
        line(rows, y, RESIDUAL),
        line(rows, y, P11),
        line(rows, y, P12),
        line(rows, y, P21),
        line(rows, y, P22),
        line(rows, y, U1),
        line(rows, y, U2),
    )


@njit(**EXACT)
def padded(width, lanes):
    return (width + lanes - 1) // lanes * lanes


@njit(**EXACT)
def start_level(rows, flow):
    """The flow [2, H, W] into the rows; the dual variable to zero."""
    _, height, width = flow.shape
    end = MARGIN + padded(width, LANES) + 1
    for y in range(height + 2):
        for number in range(P11, P22 + 1):
            clear(line(rows, y, number), MARGIN - 1, end)
        for number in range(ROW_LINES):
            clear(line(rows, y, number), MARGIN + width, end)
    for k in range(2):
        for y in range(height):
            u = line(rows, y + 1, U1 + k)
            for x in range(U(width)):
                u[U(MARGIN) + x] = flow[k, y, x]


@njit(**EXACT)
def clear(target, start, end):
    for i in range(U(start), U(end)):
        target[i] = np.float32(0)


@njit(**EXACT)
def read_flow(rows, flow):
    """The rows' flow into [2, H, W]."""
    _, height, width = flow.shape
    for k in range(2):
        for y in range(height):
            u = line(rows, y + 1, U1 + k)
            for x in range(U(width)):
                flow[k, y, x] = u[U(MARGIN) + x]
