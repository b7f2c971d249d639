"""95 % intervals of accuracies: none is a point, also where every video is right.

An accuracy: Wilson's score interval (Wilson, "Probable inference", JASA 1927), by SciPy. A mean of accuracies, of
classes or of splits: the Wilson intervals of its parts, combined as in Donner and Zou, "Closed-form confidence
intervals for functions of the normal mean and standard deviation" (Stat. Methods Med. Res. 2012): the distance to each
end is the root of the summed squares of the parts' distances. A difference of two accuracies on the same videos: the
score interval of Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design" (Stat. Med. 1998).
"""

import math
from collections.abc import Sequence

Interval = tuple[float, float]

_LEVEL = 0.95
_Z = 1.959963984540054  # the normal distribution's quantile of 0.975
_FAR = 1e6  # standard errors, in place of infinitely many

_COMBINED = "Wilson intervals of the {}, combined by root of summed squares (Donner and Zou 2012)"


def methods(splits: int = 1) -> dict[str, str]:
    """How the intervals of each accuracy are made, of one split or of a mean of several."""
    top = "Wilson" if splits == 1 else _COMBINED.format("splits")
    parts = "classes" if splits == 1 else "classes and splits"
    return {"top1": top, "top5": top, "mean_class_accuracy": _COMBINED.format(parts)}


def wilson(right: int, videos: int) -> Interval:
    """Of `right` among one or more `videos`."""
    from scipy.stats import binomtest

    found = binomtest(int(right), int(videos)).proportion_ci(_LEVEL, method="wilson")
    return float(found.low), float(found.high)


def of_mean(counts: Sequence[tuple[int, int]]) -> Interval:
    """Of the mean of independent accuracies, each (right, videos) with one or more videos."""
    return combined([right / videos for right, videos in counts], [wilson(*count) for count in counts])


def combined(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Of the mean of independent values with these intervals."""
    mean = math.fsum(values) / len(values)
    below = math.hypot(*(value - low for value, (low, _) in zip(values, intervals, strict=True))) / len(values)
    above = math.hypot(*(high - value for value, (_, high) in zip(values, intervals, strict=True))) / len(values)
    return max(0.0, mean - below), min(1.0, mean + above)


def of_paired_difference(only_first: int, only_second: int, videos: int) -> Interval:
    """Of the accuracy of a first less that of a second, of `videos` that both were tested on."""
    from scipy.optimize import brentq

    difference = (only_first - only_second) / videos

    def score(assumed: float) -> float:
        """How many standard errors the difference lies above `assumed`, were that the true one."""
        # The most likely share of videos that only the second gets right: the larger root of a quadratic.
        linear = (2 * videos - only_first + only_second) * assumed - only_first - only_second
        constant = -only_second * assumed * (1 - assumed)
        share = (math.sqrt(max(0.0, linear**2 - 8 * videos * constant)) - linear) / (4 * videos)
        variance = max(0.0, videos * (2 * share + assumed * (1 - assumed)))
        distance = only_first - only_second - videos * assumed
        if abs(distance) < 1e-9:
            return 0.0
        return max(-_FAR, min(_FAR, distance / math.sqrt(variance))) if variance > 0 else math.copysign(_FAR, distance)

    def end(outermost: float) -> float:
        wanted = math.copysign(_Z, difference - outermost)
        if abs(score(outermost)) <= _Z:
            return outermost
        return float(brentq(lambda assumed: score(assumed) - wanted, difference, outermost))

    return end(-1.0), end(1.0)
