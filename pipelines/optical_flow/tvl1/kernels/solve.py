"""The iterations of one warp, until the flow hardly changes."""

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.iteration import iterate
from pipelines.optical_flow.tvl1.kernels.median import median_filter
from pipelines.optical_flow.tvl1.kernels.rows import EXACT

# Iterations that follow each other through the rows, which are then in the cache; only where no change is looked at
# between them. To do so where one may be the last took a copy of the rows to return to, and 4 % more time for a pair.
_TOGETHER = 4


@njit(**EXACT)
def solve_as_cpu_class(rows, height, width, settings, scratch):
    """Iterations in rounds that start with a median filter, each up to the first that changes the flow by no more than
    the threshold."""
    changes = np.zeros(_TOGETHER)
    threshold = settings.epsilon * settings.epsilon * height * width
    change = np.inf
    for _ in range(settings.outer):
        if change <= threshold:
            break
        if settings.median > 1:
            for k in range(2):
                median_filter(rows, k, height, width, settings.median, scratch)
        done, change = 0, np.inf
        while done < settings.inner and change > threshold:
            count = min(1 if threshold > 0 else _TOGETHER, settings.inner - done)
            iterate(rows, height, width, count, settings, scratch, changes)
            change = changes[count - 1]
            done += count


@njit(**EXACT)
def solve_as_cuda_class(rows, height, width, settings, scratch):
    """Iterations whose change is looked at now and then: the larger it was, the longer the next look waits."""
    changes = np.zeros(_TOGETHER)
    threshold = settings.epsilon * settings.epsilon * height * width
    credit = 0.0  # the last change seen, lowered by the threshold at every iteration since
    done, total = 0, settings.outer * settings.inner
    while done < total:
        count, look = 0, False
        while count < _TOGETHER and done + count < total and not look:
            look = threshold > 0 and (done + count) % 2 == 1 and credit < threshold
            credit -= threshold
            count += 1
        iterate(rows, height, width, count, settings, scratch, changes)
        done += count
        if look:
            credit = changes[count - 1]
            if credit <= threshold:
                break
