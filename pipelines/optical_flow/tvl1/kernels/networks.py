"""Sorting networks for the median filters of all engines; loads nothing.

Among the kernels, because these are compiled anew when a file beside them changes (`compilation.py`).
"""

import itertools
from collections.abc import Sequence

Exchange = tuple[int, int]

SORT_3: Sequence[Exchange] = ((0, 1), (1, 2), (0, 1))
SORT_5: Sequence[Exchange] = ((0, 1), (3, 4), (2, 4), (2, 3), (0, 3), (0, 2), (1, 4), (1, 3), (1, 2))
"""(a, b) puts the smaller of two values at a, the larger at b."""

# Of 3 or 5 sorted columns; value i of column j is number j of line i, so number (side * i + j).
MEDIAN_OF_COLUMNS_3: Sequence[Exchange] = (
    *((0, 1), (1, 2)),  # the largest of the smallest, at 2
    *((3, 4), (4, 5), (3, 4)),  # the middle of the middle ones, at 4
    *((7, 8), (6, 7)),  # the smallest of the largest, at 6
    *((2, 4), (4, 6), (2, 4)),
)
MEDIAN_OF_COLUMNS_5: Sequence[Exchange] = (
    *((0, 1), (3, 4), (2, 4), (2, 3), (0, 3), (1, 4), (1, 3)),
    *((5, 6), (8, 9), (7, 9), (7, 8), (5, 8), (6, 9), (6, 8), (6, 7)),
    *((10, 11), (13, 14), (12, 14), (12, 13), (10, 13), (10, 12), (11, 14), (11, 12)),
    *((15, 16), (18, 19), (17, 18), (15, 18), (15, 17), (16, 19), (16, 18), (16, 17)),
    *((20, 21), (23, 24), (22, 24), (22, 23), (20, 23), (20, 22), (21, 22)),
    *((3, 15), (8, 16), (21, 17), (13, 12), (7, 21), (15, 8), (13, 4), (9, 21), (8, 4), (16, 12), (8, 11)),
    *((16, 13), (21, 20), (16, 11), (13, 4), (9, 21), (11, 7), (13, 9), (4, 21), (16, 13), (4, 7), (13, 4)),
)
MEDIAN_AT = 4
"""Where both networks leave the median."""


def merged(one: Sequence[int], other: Sequence[int]) -> tuple[list[Exchange], list[int]]:
    """A network that merges two sorted sequences of wires, and the order in which it leaves them.

    Batcher's odd-even merge: those at even places are merged, and those at odd ones; then neighbors are compared.
    """
    if not one or not other:
        return [], [*one, *other]
    if len(one) == len(other) == 1:
        return [(one[0], other[0])], [one[0], other[0]]
    network, even = merged(one[::2], other[::2])
    exchanges, odd = merged(one[1::2], other[1::2])
    network += exchanges
    order = [even[0]]
    for low, high in itertools.zip_longest(odd, even[1:]):
        if low is not None and high is not None:
            network.append((low, high))
        order += [wire for wire in (low, high) if wire is not None]
    return network, order
