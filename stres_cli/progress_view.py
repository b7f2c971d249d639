"""How a stage's progress looks: a bar with rate and remaining time in a terminal, plain lines in a log."""

import time
from collections.abc import Mapping

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from pipelines.interface.wording import duration
from pipelines.runtime.progress import Progress
from stres_cli.console import PlainConsole

SECONDS_BETWEEN_LINES = 5.0
_FEWEST_UNITS = 3  # after which the rate predicts the units to come
_STALLED = 5  # times as long as a unit took so far
_SHORTEST_BAR = 10  # columns


def progress_view(console: PlainConsole) -> "_Bars | _Lines":
    """A bar if `console` is a terminal, else lines. It shows the reports of a stage one after the other; `close` ends
    the display, and the next `show` begins another."""
    return _Bars(console) if console.is_terminal else _Lines(console)


class _Bars:
    """A live bar for the current phase; each finished phase leaves one line above it."""

    def __init__(self, console: PlainConsole) -> None:
        self._console = console
        self._display = _Display(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[phase].last.unit}", markup=False),
            _Rate(),
            TimeElapsedColumn(),
            _Remaining(),
            console=console,
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None
        self._phase: _Phase | None = None

    def show(self, progress: Progress) -> None:
        if self._phase is None or not self._phase.goes_on_with(progress):
            self._finish_phase()
            self._phase = _Phase(progress)
            self._task = self._display.add_task(
                progress.phase, completed=progress.done, total=progress.total, phase=self._phase
            )
        self._phase.report(progress)
        assert self._task is not None
        self._display.update(self._task, completed=progress.done, total=progress.total)
        self._display.start()

    def _finish_phase(self) -> None:
        if self._phase is None or self._task is None:
            return
        self._display.remove_task(self._task)
        self._display.refresh()
        if self._phase.done:
            self._console.say(self._phase.summary())
        self._task = self._phase = None

    def close(self) -> None:
        self._finish_phase()
        self._display.stop()


class _Display(RichProgress):
    """The bar, with the metrics on a line of their own, since 80 columns have no room for both.

    In a terminal too narrow for a bar, a line takes its place, without what does not fit; no number is cut.
    """

    def get_renderables(self) -> "list[RenderableType]":
        lines: list[RenderableType] = []
        for task in self.tasks:
            parts = _parts(task)
            whole = sum(cell_len(part) + 1 for part in parts) + _SHORTEST_BAR + 8  # and gaps beside empty columns
            lines.append(self.make_tasks_table([task]) if whole <= self.console.width else _fitted(parts, self.console))
            if metrics := _describe(task.fields["phase"].last.metrics):
                lines.append(_fitted(metrics.split("  "), self.console, style="dim"))
        return lines


def _parts(task: Task) -> list[str]:
    """The texts of the bar's columns."""
    counted = f"{task.completed:.0f}/{task.total or 0:.0f} {task.fields['phase'].last.unit}"
    times = (column.render(task).plain for column in (_Rate(), TimeElapsedColumn(), _Remaining()))
    return [task.description, counted, *filter(None, times)]


def _fitted(parts: list[str], console: Console, style: str = "") -> Text:
    """As many parts as fit on a line, but always the first two, on several lines if need be."""
    kept = parts[:2]
    for part in parts[2:]:
        if cell_len("  ".join([*kept, part])) > console.width:
            break
        kept.append(part)
    return Text("  ".join(kept), style=style, overflow="fold")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Units per second, by which the bar estimates the remaining time."""
        if not task.speed:
            return Text()
        number = f"{task.speed:.0f}" if task.speed >= 100 else f"{task.speed:.3g}"
        return Text(f"{number}/s", style="progress.data.speed")


class _Remaining(ProgressColumn):
    """ "8 s left"; empty if that is not known."""

    def render(self, task: Task) -> Text:
        left = task.fields["phase"].remaining()
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


class _Lines:
    """Prints the first and the last report of a phase, and one every few seconds."""

    def __init__(self, console: PlainConsole) -> None:
        self._console = console
        self._phase: _Phase | None = None
        self._held_back = False
        self._printed = 0.0

    def show(self, progress: Progress) -> None:
        if self._phase is None or not self._phase.goes_on_with(progress):
            self.close()
            self._phase, self._printed = _Phase(progress), 0.0
        self._phase.report(progress)
        self._held_back = True
        if time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES or progress.done == progress.total:
            self.close()

    def close(self) -> None:
        """Prints the last report if it was held back."""
        if self._phase is not None and self._held_back:
            self._held_back, self._printed = False, time.monotonic()
            self._console.say(self._phase.line())


class _Phase:
    """The reports of a phase: the last, and when and with which count it began, to measure its rate from."""

    def __init__(self, progress: Progress) -> None:
        self.last, self._begun_with = progress, progress.done
        self._time = self._reported = time.monotonic()

    def goes_on_with(self, progress: Progress) -> bool:
        """Whether that is of this phase; a count that starts again is another one: a demo evaluates twice."""
        return progress.phase == self.last.phase and progress.done >= self.last.done

    def report(self, progress: Progress) -> None:
        self.last, self._reported = progress, time.monotonic()

    @property
    def done(self) -> int:
        """Units since it began."""
        return self.last.done - self._begun_with

    def remaining(self) -> float | None:
        """Seconds, from the rate since the phase began.

        None if they cannot be predicted: units take unequally long, too few of them are done, or the current one takes
        much longer than those before.
        """
        rate = self.done / max(self._reported - self._time, 1e-9)
        waited = time.monotonic() - self._reported
        if not self.last.even or self.done < _FEWEST_UNITS or waited > _STALLED * max(1 / rate, 1.0):
            return None
        left = self.last.total - self.last.done
        return max(left / rate - waited, 0) if left > 0 else None

    def line(self) -> str:
        """The progress so far: "train motion: 40/120 updates, 3.2 updates/s, 25 s left, loss 1.2"."""
        last, seconds = self.last, time.monotonic() - self._time
        parts = [f"{last.phase}: {last.done}/{last.total} {last.unit}"]
        if self.done and seconds > 0 and last.done < last.total:
            parts.append(f"{self.done / seconds:.3g} {last.unit}/s")
            if (left := self.remaining()) is not None:
                parts.append(f"{duration(left)} left")
        return ", ".join([*parts, *filter(None, [_describe(last.metrics)])])

    def summary(self) -> str:
        """The outcome: "train motion: 120/120 updates in 38 s, loss 0.9"."""
        last = self.last
        counted = f"{last.phase}: {last.done}/{last.total} {last.unit} in {duration(time.monotonic() - self._time)}"
        return ", ".join([counted, *filter(None, [_describe(last.metrics)])])


def _describe(metrics: Mapping[str, float | int | str]) -> str:
    return "  ".join(
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in metrics.items()
    )
