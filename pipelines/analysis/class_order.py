"""An order of the classes in which those that are confused with each other stand side by side.

Letters: C classes.
"""

import numpy as np


def confusion_order(matrix: np.ndarray) -> list[int]:
    """Class indices, for a confusion matrix of counts [C, C].

    Average linkage on the mean of both directions' shares: the two groups of classes that are confused most are put
    together again and again, each time with those ends joined that are confused most. Every class begins as a group.
    Ties go to the earlier classes, so that without any confusion the order is the classes' own.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    likeness = (shares + shares.T) / 2
    between = likeness.copy()  # mean likeness of two groups; a group stands at the place of its first class
    np.fill_diagonal(between, -1)
    chains: dict[int, list[int]] = {index: [index] for index in range(len(matrix))}
    while len(chains) > 1:
        first, second = sorted(int(place) for place in np.unravel_index(between.argmax(), between.shape))
        sizes = len(chains[first]), len(chains[second])
        merged = (between[first] * sizes[0] + between[second] * sizes[1]) / sum(sizes)
        merged[[*(set(range(len(matrix))) - chains.keys()), first, second]] = -1
        between[first] = between[:, first] = merged
        between[second] = between[:, second] = -1
        chains[first] = _join(chains[first], chains.pop(second), likeness)
    return chains[0]


def _join(first: list[int], second: list[int], likeness: np.ndarray) -> list[int]:
    ways = [(a, b) for a in (first, first[::-1]) for b in (second, second[::-1])]
    left, right = max(ways, key=lambda way: likeness[way[0][-1], way[1][0]])
    return left + right
