"""The 3x3 and 5x5 median filters, on the flow's rows and in place.

Each column of the window is sorted once for the row; that leaves, of the network that sorts 25 values, only the
exchanges that the median depends on, all of them minima and maxima of registers. Exact, and four times as fast as a
selection for each pixel.
"""

from collections.abc import Callable, Sequence

from numba import njit

from pipelines.optical_flow.tvl1.kernels.networks import (
    MEDIAN_AT,
    MEDIAN_OF_COLUMNS_3,
    MEDIAN_OF_COLUMNS_5,
    SORT_3,
    SORT_5,
    Exchange,
)
from pipelines.optical_flow.tvl1.kernels.rows import EXACT, FAST, MARGIN, U


@njit(**EXACT)
def median_filter(rows, k, height, width, side, scratch, delayed):
    """Filters component k of the flow, its border repeated outwards. `side` is 3 or 5.

    A filtered row waits in `delayed` [3, stride] until no row to come needs the unfiltered one.
    """
    radius = side // 2
    for y in range(height + radius):
        if y < height:
            if side == 5:
                _sort_columns_5(rows, k, y + 1, height, width, scratch)
            else:
                _sort_columns_3(rows, k, y + 1, height, width, scratch)
            for line in range(side):
                _repeat_ends(scratch[0].sorted[line], width, radius)
            if side == 5:
                _median_of_columns_5(scratch, delayed[y % 3], width)
            else:
                _median_of_columns_3(scratch, delayed[y % 3], width)
        if y >= radius:
            _copy(delayed[(y - radius) % 3], rows[y - radius + 1].u[k], width)


@njit(**EXACT)
def _repeat_ends(line, width, radius):
    for i in range(1, radius + 1):
        line[MARGIN - i] = line[MARGIN]
        line[MARGIN + width - 1 + i] = line[MARGIN + width - 1]


@njit(**EXACT)
def _copy(source, target, width):
    for i in range(U(MARGIN), U(MARGIN + width)):
        target[i] = source[i]


# ------------------------------------------------------------------ from networks to code


def _sort_columns_source(side: int, network: Sequence[Exchange]) -> str:
    """Sorts the `side` values above, at and below each pixel of a row into the scratch lines."""
    radius = side // 2
    indices = [f"U(min(max(index + {j - radius}, 1), height))" for j in range(side)]
    return "\n".join(
        [
            "def kernel(rows, k, index, height, width, scratch):",
            "    lines = scratch[0].sorted",
            *(f"    line{j} = rows[{index}].u[k]" for j, index in enumerate(indices)),
            "    for i in range(U(MARGIN), U(MARGIN + width)):",
            *(f"        v{j} = line{j}[i]" for j in range(side)),
            *_exchanges(network, range(side)),
            *(f"        lines[{j}, i] = v{j}" for j in range(side)),
        ]
    )


def _median_source(side: int, network: Sequence[Exchange]) -> str:
    """The median of each pixel's window, from the sorted columns."""
    offsets = [f"i + U({j})" for j in range(side)]
    start = f"MARGIN - {side // 2}"
    return "\n".join(
        [
            "def kernel(scratch, target, width):",
            "    lines = scratch[0].sorted",
            f"    for i in range(U({start}), U({start} + width)):",
            *(f"        v{side * n + j} = lines[{n}, {at}]" for n in range(side) for j, at in enumerate(offsets)),
            *_exchanges(network, [MEDIAN_AT]),
            f"        target[i + U({side // 2})] = v{MEDIAN_AT}",
        ]
    )


def _exchanges(network: Sequence[Exchange], wanted: Sequence[int]) -> list[str]:
    """Statements that carry out the network, without the halves of exchanges that `wanted` does not depend on."""
    needed = set(wanted)
    lines: list[str] = []
    for low, high in reversed(network):
        if low in needed and high in needed:
            lines.append(f"        v{low}, v{high} = min(v{low}, v{high}), max(v{low}, v{high})")
        elif low in needed:
            lines.append(f"        v{low} = min(v{low}, v{high})")
        elif high in needed:
            lines.append(f"        v{high} = max(v{low}, v{high})")
        needed |= {low, high} if needed & {low, high} else set()
    return lines[::-1]


def _compiled(source: str) -> Callable[..., None]:
    namespace = {"U": U, "MARGIN": MARGIN}
    exec(source, namespace)
    return njit(**FAST)(namespace["kernel"])


_sort_columns_3 = _compiled(_sort_columns_source(3, SORT_3))
_sort_columns_5 = _compiled(_sort_columns_source(5, SORT_5))
_median_of_columns_3 = _compiled(_median_source(3, MEDIAN_OF_COLUMNS_3))
_median_of_columns_5 = _compiled(_median_source(5, MEDIAN_OF_COLUMNS_5))
