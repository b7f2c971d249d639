"""How many worker processes are best, found out while they work: on a GPU, which several may feed faster than one, or
keep from one another."""

from collections.abc import Sequence

_WORTH = 1.1  # times the rate, for which the next number is tried
_SECONDS = 5.0  # that a number is measured for
_REPORTS_EACH = 3  # and the least that each process has reported by then: it reports whole batches


class Growth:
    """Begins with the first of `steps`, ascending numbers of processes, and goes on by the rates measured."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = tuple(steps)
        self.rates: dict[int, float] = {}
        """Units a second by number of processes."""
        self.count = self.steps[0]
        """The processes to work with now."""
        self.settled = len(self.steps) == 1
        self._since: float | None = None  # when what counts began
        self._units = self._reports = 0

    def add(self, units: int, now: float, at_work: int) -> None:
        """Counts what was done at this second of a clock. Nothing counts before all processes are `at_work`: they
        start, load and compile first."""
        if self.settled or at_work < self.count:
            return
        if self._since is None:
            self._since, self._units, self._reports = now, 0, 0
            return
        self._units += units
        self._reports += 1
        seconds = now - self._since
        if seconds >= _SECONDS and self._reports >= _REPORTS_EACH * self.count:
            self.rates[self.count] = self._units / seconds
            self.count = next_count(self.steps, list(self.rates.values()))
            self.settled = self.count in self.rates
            self._since = None


def next_count(steps: Sequence[int], rates: Sequence[float]) -> int:
    """Of the numbers of processes `steps`, the first of which gave these rates: the next one as long as each gave a
    tenth more than the one before, then the one with the highest rate."""
    pays = len(rates) < 2 or rates[-1] > _WORTH * rates[-2]
    if pays and len(rates) < len(steps):
        return steps[len(rates)]
    return steps[rates.index(max(rates))]
