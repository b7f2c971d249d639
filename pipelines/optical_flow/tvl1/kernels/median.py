"""The 3x3 and 5x5 median filters, on the flow's rows and in place.

Each column of the window is sorted once for the row; that leaves, of the network that sorts 25 values, only the
exchanges that the median depends on, all of them minima and maxima of registers. Exact, and four times as fast as a
selection for each pixel.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numba import njit

from pipelines.optical_flow.tvl1.kernels.networks import (
    MEDIAN_AT,
    MEDIAN_OF_COLUMNS_3,
    MEDIAN_OF_COLUMNS_5,
    SORT_3,
    SORT_5,
    Exchange,
)
from pipelines.optical_flow.tvl1.kernels.rows import (
    DELAYED,
    EXACT,
    FAST,
    MARGIN,
    SEPARATE,
    SORTED,
    U1,
    U,
    copy_line,
    line,
)


@njit(**EXACT)
def median_filter(rows, k, height, width, side, scratch):
    """Filters component k of the flow, its border repeated outwards. `side` is 3 or 5.

    A filtered row waits among the delayed ones until no row to come needs the unfiltered one.
    """
    radius = side // 2
    for y in range(height + radius):
        if y < height:
            target = line(scratch, 0, DELAYED + y % 3)
            if side == 5:
                _filter_row_5(rows, U1 + k, y, height, width, scratch, target)
            else:
                _filter_row_3(rows, U1 + k, y, height, width, scratch, target)
        if y >= radius:
            copy_line(line(scratch, 0, DELAYED + (y - radius) % 3), line(rows, y - radius + 1, U1 + k), MARGIN + width)


@njit(**EXACT)
def _repeat_ends(scratch, width, side):
    for n in range(side):
        values = line(scratch, 0, SORTED + n)
        for i in range(1, side // 2 + 1):
            values[MARGIN - i] = values[MARGIN]
            values[MARGIN + width - 1 + i] = values[MARGIN + width - 1]


# ------------------------------------------------------------------ from networks to code


def _filter_row_source(side: int) -> str:
    """Filters row y of the lines `number` of all rows into `target`."""
    sources = [f"line(rows, min(max(y + {1 + j - side // 2}, 1), height), number)" for j in range(side)]
    columns = [f"line(scratch, 0, SORTED + {j})" for j in range(side)]
    return "\n".join(
        [
            f"def filter_row_{side}(rows, number, y, height, width, scratch, target):",
            f"    sort_columns({', '.join(sources + columns)}, width)",
            f"    repeat_ends(scratch, width, {side})",
            f"    median_of_columns({', '.join(columns)}, target, width)",
        ]
    )


def _sort_columns_source(side: int, network: Sequence[Exchange]) -> str:
    """Sorts the `side` values above, at and below each pixel of a row."""
    sources, columns = [[f"{name}{j}" for j in range(side)] for name in ("source", "sorted")]
    return "\n".join(
        [
            f"def sort_columns_{side}({', '.join(sources + columns)}, width):",
            "    for i in range(U(MARGIN), U(MARGIN + width)):",
            *(f"        v{j} = source{j}[i]" for j in range(side)),
            *_exchanges(network, range(side)),
            *(f"        sorted{j}[i] = v{j}" for j in range(side)),
        ]
    )


def _median_source(side: int, network: Sequence[Exchange]) -> str:
    """The median of each pixel's window, from the sorted columns."""
    offsets = [f"i + U({j})" for j in range(side)]
    start = f"MARGIN - {side // 2}"
    return "\n".join(
        [
            f"def median_of_columns_{side}({', '.join(f'sorted{n}' for n in range(side))}, target, width):",
            f"    for i in range(U({start}), U({start} + width)):",
            *(f"        v{side * n + j} = sorted{n}[{at}]" for n in range(side) for j, at in enumerate(offsets)),
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


def _compiled(source: str, options: Mapping[str, Any], **known: Any) -> Callable[..., None]:
    """The function that `source` defines. Its name says its side: names tell compiled functions apart."""
    namespace: dict[str, Any] = {"U": U, "MARGIN": MARGIN, "SORTED": SORTED, "line": line, **known}
    before = set(namespace)
    exec(source, namespace)
    (name,) = set(namespace) - before - {"__builtins__"}
    return njit(**options)(namespace[name])


def _row_filter(side: int, sorting: Sequence[Exchange], of_columns: Sequence[Exchange]) -> Callable[..., None]:
    return _compiled(
        _filter_row_source(side),
        EXACT,
        repeat_ends=_repeat_ends,
        sort_columns=_compiled(_sort_columns_source(side, sorting), FAST | SEPARATE),
        median_of_columns=_compiled(_median_source(side, of_columns), FAST | SEPARATE),
    )


_filter_row_3 = _row_filter(3, SORT_3, MEDIAN_OF_COLUMNS_3)
_filter_row_5 = _row_filter(5, SORT_5, MEDIAN_OF_COLUMNS_5)
