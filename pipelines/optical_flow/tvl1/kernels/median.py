"""The 3x3 and 5x5 median filters, on the flow's rows and in place.

Two rows are filtered together. Their windows of side n share n - 1 rows: each column of these is sorted once; each pair
of neighbouring columns is merged once, for all windows that have both; of what the windows share only the n + 1 values
in the middle can be their medians, and each window needs only its remaining row sorted to choose among them (after
Adams, "Fast median filters using separable sorting networks", 2021). All of it is minima and maxima of registers, 77
for a pixel's median of 25, and exact.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from numba import njit

from pipelines.optical_flow.tvl1.kernels.networks import SORT_3, SORT_5, Exchange, merged
from pipelines.optical_flow.tvl1.kernels.rows import (
    EXACT,
    FAST,
    MARGIN,
    MERGED,
    SEPARATE,
    SORTED,
    U1,
    UNFILTERED,
    U,
    line,
)

_HELD = 6  # unfiltered rows: those that two windows of side 5 reach


@njit(**EXACT)
def median_filter(rows, k, height, width, side, scratch):
    """Filters component k of the flow, its border repeated outwards. `side` is 3 or 5.

    Rows are copied before any row that they are needed for is filtered.
    """
    radius, held = side // 2, 0
    for y in range(0, height, 2):
        while held < min(y + radius + 2, height):
            _copy_row(line(rows, held + 1, U1 + k), line(scratch, 0, UNFILTERED + held % _HELD), width)
            held += 1
        above, below = line(rows, y + 1, U1 + k), line(rows, y + 2, U1 + k)
        if side == 5:
            _filter_rows_5(scratch, y, height, width, above, below)
        else:
            _filter_rows_3(scratch, y, height, width, above, below)


@njit(**EXACT, **SEPARATE)
def _copy_row(source, target, width):
    for i in range(U(MARGIN), U(MARGIN + width)):
        target[i] = source[i]
    for i in range(1, 3):
        target[MARGIN - i] = source[MARGIN]
        target[MARGIN + width - 1 + i] = source[MARGIN + width - 1]


# ------------------------------------------------------------------ from networks to code


def _filter_rows_source(side: int) -> str:
    """Filters rows y and y + 1 into two lines; that below the last row of the image is of no use and does no harm."""
    radius = side // 2
    rows = [f"line(scratch, 0, UNFILTERED + min(max(y + {j - radius}, 0), height - 1) % HELD)" for j in range(side + 1)]
    columns = [f"line(scratch, 0, SORTED + {j})" for j in range(side - 1)]
    pairs = [f"line(scratch, 0, MERGED + {j})" for j in range(2 * side - 2)]
    return "\n".join(
        [
            f"def filter_rows_{side}(scratch, y, height, width, above, below):",
            f"    sort_columns({', '.join(rows[1:-1] + columns)}, width)",
            f"    merge_pairs({', '.join(columns + pairs)}, width)",
            f"    medians({', '.join([*columns, *pairs, rows[0], rows[-1]])}, above, below, width)",
        ]
    )


def _sort_columns_source(side: int) -> str:
    """Sorts the side - 1 values of each column, those beside the image included."""
    height, radius = side - 1, side // 2
    network, order = _sorting(range(height))
    return "\n".join(
        [
            f"def sort_columns_{side}({_names('row', height)}, {_names('column', height)}, width):",
            f"    for i in range(U(MARGIN - {radius}), U(MARGIN + {radius} + width)):",
            *(f"        v{j} = row{j}[i]" for j in range(height)),
            *_exchanges(network, order),
            *(f"        column{j}[i] = v{wire}" for j, wire in enumerate(order)),
        ]
    )


def _merge_pairs_source(side: int) -> str:
    """Merges each sorted column with the next."""
    height, radius = side - 1, side // 2
    network, order = merged(range(height), range(height, 2 * height))
    return "\n".join(
        [
            f"def merge_pairs_{side}({_names('column', height)}, {_names('pair', 2 * height)}, width):",
            f"    for i in range(U(MARGIN - {radius}), U(MARGIN + {radius} + width - 1)):",
            *(f"        v{j} = column{j}[i]" for j in range(height)),
            *(f"        v{height + j} = column{j}[i + U(1)]" for j in range(height)),
            *_exchanges(network, order),
            *(f"        pair{j}[i] = v{wire}" for j, wire in enumerate(order)),
        ]
    )


def _medians_source(side: int) -> str:
    """The medians of two windows, whose columns are pairs from the left and a last one by itself."""
    height, radius = side - 1, side // 2
    loads, network = [], []
    shared: Sequence[int] = []
    rank, wires = side * side // 2, 0  # of the median among what is left

    def load(names: Iterable[str]) -> list[int]:
        nonlocal wires
        first = wires
        for name in names:
            loads.append(f"        v{wires} = {name}")
            wires += 1
        return list(range(first, wires))

    for start in range(0, side, 2):
        names, count = ("pair", 2 * height) if start + 1 < side else ("column", height)
        values = load(f"{names}{j}[i + U({start})]" for j in range(count))
        exchanges, shared = merged(shared, values)
        network += exchanges
        # Only these can be the median, whatever the values to come are.
        lowest = max(0, rank - (side * side - wires))
        shared, rank = shared[lowest : rank + 1], rank - lowest
    results = []
    for row in ("top", "bottom"):
        exchanges, values = _sorting(load(f"{row}[i + U({j})]" for j in range(side)))
        network += exchanges
        results.append((shared, values))
    wanted = [wire for chosen, values in results for wire in (*chosen, *values)]
    return "\n".join(
        [
            f"def medians_{side}({_names('column', height)}, {_names('pair', 2 * height)},"
            " top, bottom, above, below, width):",
            f"    for i in range(U(MARGIN - {radius}), U(MARGIN - {radius} + width)):",
            *loads,
            *_exchanges(network, wanted),
            *(
                f"        {target}[i + U({radius})] = {_middle(chosen, values)}"
                for target, (chosen, values) in zip(("above", "below"), results, strict=True)
            ),
        ]
    )


def _middle(longer: Sequence[int], shorter: Sequence[int]) -> str:
    """The median of n + 1 sorted values and n others: the largest of what is surely not above it."""
    most = f"v{longer[0]}"
    for one, other in zip(longer[1:], reversed(shorter), strict=True):
        most = f"max({most}, min(v{one}, v{other}))"
    return most


def _sorting(wires: Sequence[int]) -> tuple[list[Exchange], list[int]]:
    """A network that sorts the wires, and the order in which it leaves them."""
    known = {3: SORT_3, 5: SORT_5}.get(len(wires))
    if known is not None:
        return [(wires[low], wires[high]) for low, high in known], list(wires)
    if len(wires) == 1:
        return [], list(wires)
    (first, left), (second, right) = (_sorting(half) for half in (wires[: len(wires) // 2], wires[len(wires) // 2 :]))
    last, order = merged(left, right)
    return [*first, *second, *last], order


def _names(name: str, count: int) -> str:
    return ", ".join(f"{name}{j}" for j in range(count))


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
    namespace: dict[str, Any] = {
        "U": U,
        "MARGIN": MARGIN,
        "UNFILTERED": UNFILTERED,
        "HELD": _HELD,
        "SORTED": SORTED,
        "MERGED": MERGED,
        "line": line,
        **known,
    }
    before = set(namespace)
    exec(source, namespace)
    (name,) = set(namespace) - before - {"__builtins__"}
    return njit(**options)(namespace[name])


def _rows_filter(side: int) -> Callable[..., None]:
    return _compiled(
        _filter_rows_source(side),
        EXACT,
        sort_columns=_compiled(_sort_columns_source(side), FAST | SEPARATE),
        merge_pairs=_compiled(_merge_pairs_source(side), FAST | SEPARATE),
        medians=_compiled(_medians_source(side), FAST | SEPARATE),
    )


_filter_rows_3 = _rows_filter(3)
_filter_rows_5 = _rows_filter(5)
