"""How a stage's progress looks: a bar with rate and remaining time in a terminal, plain lines in a log."""

import time
from collections.abc import Mapping
from typing import Protocol

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

SECONDS_BETWEEN_LINES = 5.0
_FEWEST_UNITS = 3  # after which the rate predicts the units to come
_STALLED = 5  # times as long as a unit took so far
_SHORTEST_BAR = 10  # columns


class ProgressView(Protocol):
    """Shows the reports of a stage one after the other."""

    def show(self, progress: Progress) -> None: ...

    def close(self) -> None:
        """Ends the display; the next `show` begins another."""


def progress_view(console: Console) -> ProgressView:
    """A bar if `console` is a terminal, else lines."""
    return _Bars(console) if console.is_terminal else _Lines(console)


class _Bars:
    """A live bar for the current phase; each finished phase leaves one line above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display = _Display(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            _Rate(),
            TimeElapsedColumn(),
            _Remaining(),
            console=console,
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None
        self._begun: _Begun | None = None
        self._last: Progress | None = None

    def show(self, progress: Progress) -> None:
        if self._last is None or self._begun is None or not _continues(self._last, progress):
            self._finish_phase()
            self._begun = _Begun(progress)
            self._task = self._display.add_task(
                progress.phase,
                completed=progress.done,
                total=progress.total,
                unit=progress.unit,
                metrics="",
                begun=self._begun,
                last=progress,
            )
        self._last = progress
        assert self._task is not None
        metrics = _describe(progress.metrics)
        self._begun.reported()
        self._display.update(self._task, completed=progress.done, total=progress.total, metrics=metrics, last=progress)
        self._display.start()

    def _finish_phase(self) -> None:
        if self._last is None or self._begun is None or self._task is None:
            return
        self._display.remove_task(self._task)
        self._display.refresh()
        if self._last.done > self._begun.done:
            self._console.print(Text(self._begun.summary(self._last)), soft_wrap=True)
        self._task = self._begun = self._last = None

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
            if task.fields["metrics"]:
                lines.append(_fitted(task.fields["metrics"].split("  "), self.console, style="dim"))
        return lines


def _parts(task: Task) -> list[str]:
    """The texts of the bar's columns."""
    counted = f"{task.completed:.0f}/{task.total or 0:.0f} {task.fields['unit']}"
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
        begun, last = task.fields["begun"], task.fields["last"]
        left = begun.remaining(last)
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


class _Lines:
    """Prints the first and the last report of a phase, and one every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: _Begun | None = None
        self._last: Progress | None = None
        self._held_back = False
        self._printed = 0.0

    def show(self, progress: Progress) -> None:
        if self._begun is None or self._last is None or not _continues(self._last, progress):
            self.close()
            self._begun, self._printed = _Begun(progress), 0.0
        self._begun.reported()
        self._last, self._held_back = progress, True
        if time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES or progress.done == progress.total:
            self.close()

    def close(self) -> None:
        """Prints the last report if it was held back."""
        if self._last is None or self._begun is None or not self._held_back:
            return
        self._held_back, self._printed = False, time.monotonic()
        self._console.print(Text(self._begun.line(self._last)), soft_wrap=True)


class _Begun:
    """The time and count at which a phase began, to measure its rate from."""

    def __init__(self, progress: Progress) -> None:
        self.done = progress.done
        self._time = self._reported = time.monotonic()

    def reported(self) -> None:
        """Notes the time of a report."""
        self._reported = time.monotonic()

    def remaining(self, progress: Progress) -> float | None:
        """Seconds, from the rate since the phase began.

        None if they cannot be predicted: units take unequally long, too few of them are done, or the current one takes
        much longer than those before.
        """
        done = progress.done - self.done
        rate = done / max(self._reported - self._time, 1e-9)
        waited = time.monotonic() - self._reported
        if not progress.even or done < _FEWEST_UNITS or waited > _STALLED * max(1 / rate, 1.0):
            return None
        left = progress.total - progress.done
        return max(left / rate - waited, 0) if left > 0 else None

    def line(self, progress: Progress) -> str:
        """The progress so far: "train motion: 40/120 updates, 3.2 updates/s, 25 s left, loss 1.2"."""
        parts = [f"{progress.phase}: {progress.done}/{progress.total} {progress.unit}"]
        seconds, done = time.monotonic() - self._time, progress.done - self.done
        if done and seconds > 0 and progress.done < progress.total:
            parts.append(f"{done / seconds:.3g} {progress.unit}/s")
            if (left := self.remaining(progress)) is not None:
                parts.append(f"{duration(left)} left")
        if progress.metrics:
            parts.append(_describe(progress.metrics))
        return ", ".join(parts)

    def summary(self, progress: Progress) -> str:
        """The outcome: "train motion: 120/120 updates in 38 s, loss 0.9"."""
        counted = f"{progress.done}/{progress.total} {progress.unit} in {duration(time.monotonic() - self._time)}"
        return ", ".join([f"{progress.phase}: {counted}", *([_describe(progress.metrics)] if progress.metrics else [])])


def _continues(before: Progress, now: Progress) -> bool:
    """Whether both report the same phase; a count that starts again is another one: a demo evaluates twice."""
    return now.phase == before.phase and now.done >= before.done


def _describe(metrics: Mapping[str, float | int | str]) -> str:
    return "  ".join(
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in metrics.items()
    )
