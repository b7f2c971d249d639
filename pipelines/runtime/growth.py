"""How many worker processes are best, found out while they work: on a GPU, which several may feed faster than one, or
keep from one another; and whether one more, which computes for all of them, helps.
"""

from collections.abc import Sequence
from typing import Protocol

_WORTH = 1.1  # times the rate, for which the next number is tried
_SECONDS = 5.0  # that a number is measured for
_REPORTS_EACH = 3  # and the least that each process has reported by then: it reports whole batches


class Helper(Protocol):
    """A process that does something for all workers, who do it themselves while it does not run."""

    def start(self) -> None: ...

    @property
    def at_work(self) -> bool:
        """Whether it has begun to help."""

    @property
    def ended(self) -> bool:
        """Whether it has died."""

    def close(self) -> None: ...


class Growth:
    """Begins with the first of `steps`, ascending numbers of processes, and goes on by the rates measured; then tries
    `helped` processes with the `helper`, if there is one, and keeps what was fastest of all."""

    def __init__(self, steps: Sequence[int], helper: Helper | None = None, helped: int = 0) -> None:
        self.steps = tuple(steps)
        self.helper, self.helped = helper, helped
        self.rates: dict[int, float] = {}
        """Units a second by number of processes."""
        self.count = self.steps[0]
        """The processes to work with now."""
        self.with_helper = False
        """Whether the helper helps them now."""
        self.helped_rate: float | None = None
        """Units a second with it, once measured."""
        self.settled = len(self.steps) == 1 and helper is None
        self._since: float | None = None  # when what counts began
        self._units = self._reports = 0

    def add(self, units: int, now: float, at_work: int) -> None:
        """Counts what was done at this second of a clock. Nothing counts before all processes are `at_work`: they
        start, load and compile first; so does the helper."""
        if self.with_helper and self.helper is not None and self.helper.ended:
            self._do_without()
        if self.settled or at_work < self.count or not self._helper_is_ready():
            return
        if self._since is None:
            self._since, self._units, self._reports = now, 0, 0
            return
        self._units += units
        self._reports += 1
        seconds = now - self._since
        if seconds >= _SECONDS and self._reports >= _REPORTS_EACH * self.count:
            self._go_on(self._units / seconds)
            self._since = None

    def _go_on(self, rate: float) -> None:
        """After this rate of what is tried now."""
        if self.with_helper:
            self.helped_rate, self.settled = rate, True
            if rate <= max(self.rates.values()):
                self._do_without()
            return
        self.rates[self.count] = rate
        self.count = next_count(self.steps, list(self.rates.values()))
        if self.count in self.rates and self.helper is not None:
            self.helper.start()
            self.with_helper, self.count = True, self.helped
        else:
            self.settled = self.count in self.rates

    def _helper_is_ready(self) -> bool:
        return not self.with_helper or (self.helper is not None and self.helper.at_work)

    def _do_without(self) -> None:
        assert self.helper is not None
        self.helper.close()
        self.with_helper, self.settled = False, True
        self.count = max(self.rates, key=lambda count: self.rates[count])


def next_count(steps: Sequence[int], rates: Sequence[float]) -> int:
    """Of the numbers of processes `steps`, the first of which gave these rates: the next one as long as each gave a
    tenth more than the one before, then the one with the highest rate."""
    pays = len(rates) < 2 or rates[-1] > _WORTH * rates[-2]
    if pays and len(rates) < len(steps):
        return steps[len(rates)]
    return steps[rates.index(max(rates))]
