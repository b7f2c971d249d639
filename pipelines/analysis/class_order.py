"""An order of the classes in which those that are confused with each other stand side by side.

Letters: C classes.
"""

import numpy as np


def confusion_order(matrix: np.ndarray) -> list[int]:
    """Orders classes by average linkage: the two groups of classes that are confused most are joined, again and again.

    Every class begins as a group; two groups are joined at those ends that are confused most. Ties go to the earlier
    classes, so that without any confusion the order is the classes' own.

    Args:
        matrix: Confusion matrix of counts, [C, C]. Two classes are as alike as the mean of both directions' shares.

    Returns:
        The class indices in that order.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    likeness = (shares + shares.T) / 2
    between = likeness.copy()  # mean likeness of two groups; a group stands at the place of its first class
    np.fill_diagonal(between, -1)
    groups: dict[int, list[int]] = {index: [index] for index in range(len(matrix))}
    while len(groups) > 1:
        first, second = sorted(int(index) for index in np.unravel_index(between.argmax(), between.shape))
        sizes = len(groups[first]), len(groups[second])
        merged = (between[first] * sizes[0] + between[second] * sizes[1]) / sum(sizes)
        merged[[*(set(range(len(matrix))) - groups.keys()), first, second]] = -1
        between[first] = between[:, first] = merged
        between[second] = between[:, second] = -1
        one, other = groups[first], groups.pop(second)
        ways = [(a, b) for a in (one, one[::-1]) for b in (other, other[::-1])]
        left, right = max(ways, key=lambda way: likeness[way[0][-1], way[1][0]])
        groups[first] = left + right
    return groups[0]
