"""The iterations of one warp, until the flow hardly changes."""

import numpy as np
from numba import njit

from pipelines.optical_flow.tvl1.kernels.iteration import iterate
from pipelines.optical_flow.tvl1.kernels.median import median_filter
from pipelines.optical_flow.tvl1.kernels.rows import EXACT, copy_state

# Iterations that follow each other through the rows, which are then in the cache: each takes a quarter less time.
_TOGETHER = 4
# But a copy of the rows, needed where one of them may be the last, costs as much as one: it must be likely to pay.
_WORTH_A_COPY = 4

# How far a change is expected to fall: as far as the last time (it falls ever more slowly), or, not knowing that, by
# the first of these factors; and then by the second. In 250 warps of ten pairs hardly any had to be repeated.
_AT_FIRST, _AT_LEAST = 0.1, 0.8


@njit(**EXACT)
def solve_as_cpu_class(rows, saved, height, width, settings, scratch):
    """Iterations in rounds that start with a median filter. `saved` is for a copy of the rows."""
    threshold = settings.epsilon * settings.epsilon * height * width
    change = np.inf
    for _ in range(settings.outer):
        if change <= threshold:
            break
        if settings.median > 1:
            for k in range(2):
                median_filter(rows, k, height, width, settings.median, scratch)
        change = _round(rows, saved, height, width, settings, threshold, scratch)


@njit(**EXACT)
def _round(rows, saved, height, width, settings, threshold, scratch):
    """Iterations up to the first that changes the flow by no more than the threshold; returns its change.

    Where the next few are expected to change more, they are done together; if one did not after all, everything is done
    again, from where that began to where it has to end.
    """
    changes = np.zeros(_TOGETHER)
    previous = change = np.inf
    done, safe = 0, -1
    while done < settings.inner and change > threshold:
        expected = _expected(previous, change, threshold)
        if safe < 0 and threshold > 0:
            if expected > _WORTH_A_COPY:
                copy_state(rows, saved, height, width)
                safe = done
            else:
                expected = 1
        count = min(expected, _TOGETHER, settings.inner - done)
        iterate(rows, height, width, count, settings, scratch, changes)
        for k in range(count - 1):
            if changes[k] <= threshold and threshold > 0:
                copy_state(saved, rows, height, width)
                return _repeat(rows, height, width, done + k + 1 - safe, settings, scratch, changes)
        previous = changes[count - 2] if count > 1 else change
        change = changes[count - 1]
        done += count
    return change


@njit(**EXACT)
def _expected(previous, change, threshold):
    """How many more iterations are expected, the last included; no more than are worth knowing."""
    if change == np.inf or threshold == 0:
        return 1 if threshold > 0 else _TOGETHER
    factor = min(change / previous, 1.0) if previous < np.inf else _AT_FIRST
    count = 1
    while count <= _WORTH_A_COPY and change * factor**count * _AT_LEAST > threshold:
        count += 1
    return count


@njit(**EXACT)
def _repeat(rows, height, width, count, settings, scratch, changes):
    """Exactly so many iterations; returns the change of the last."""
    last = 0
    while count > 0:
        last = min(count, _TOGETHER)
        iterate(rows, height, width, last, settings, scratch, changes)
        count -= last
    return changes[last - 1]


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
