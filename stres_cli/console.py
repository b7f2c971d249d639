"""What a person sees while a command runs: progress, warnings, the error, the result; and the exit code.

Progress and errors go to stderr, the result to stdout. On a terminal a bar with rate and remaining time; elsewhere
plain lines, at most one every few seconds, that can be read in a log.
"""

import contextlib
import dataclasses
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from pipelines.errors import Interrupted, StresError
from pipelines.progress import Progress

SECONDS_BETWEEN_LINES = 5.0


class CommandUI:
    """One command's conversation with its user."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(stderr=as_json, highlight=False)
        self.err = Console(stderr=True, highlight=False)
        self._bars = _Bars(self.err) if self.err.is_terminal else _Lines(self.err)
        self.exit_code = 0
        self.document: Any = None

    def on_progress(self, progress: Progress) -> None:
        """The stage's `on_progress`."""
        if progress.message:
            self._bars.pause()
            self.err.print(Text(progress.message, style="yellow"))
        self._bars.show(progress)

    def finish(self, result: Any, *, exit_code: int = 0) -> None:
        """Ends the progress display and keeps the result for `--json`."""
        self._bars.close()
        self.exit_code = exit_code
        self.document = result

    def close(self) -> None:
        self._bars.close()


@contextlib.contextmanager
def command(as_json: bool, debug: bool) -> Iterator[CommandUI]:
    """Runs a command's body: errors become one sentence and their exit code, SIGTERM an orderly end.

    Raises `typer.Exit` with 0, 1, 2, 3, 4, 130 or 143 (DESIGN, "Exit codes").
    """
    ui = CommandUI(as_json)
    error: str | None = None
    with _terminable():
        try:
            yield ui
        except (StresError, KeyboardInterrupt, Interrupted) as stop:
            ui.close()
            if debug and not isinstance(stop, KeyboardInterrupt):
                traceback.print_exc()
            error, ui.exit_code = _explain(stop)
            ui.err.print(Text(error, style="red" if isinstance(stop, StresError) else "yellow"))
        except typer.Exit:
            raise
        except Exception as stop:
            ui.close()
            if debug:
                traceback.print_exc()
            error = f"error of stres itself, please report it: {type(stop).__name__}: {stop} (--debug shows where)"
            ui.exit_code = 4
            ui.err.print(Text(error, style="red"))
        finally:
            ui.close()
    if as_json:
        document = {"error": error, "exit_code": ui.exit_code} if error else _plain(ui.document)
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if ui.exit_code:
        raise typer.Exit(ui.exit_code)


def _explain(stop: BaseException) -> tuple[str, int]:
    if isinstance(stop, StresError):
        return f"error: {stop}", stop.exit_code
    code = stop.exit_code if isinstance(stop, Interrupted) else 130
    return "interrupted: what is done is kept; the same command continues", code


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises `Interrupted` in the main thread, so that every `finally` runs."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread: the caller keeps its own handling
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def _describe(metrics: Mapping[str, float | int | str]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in metrics.items()}
    return "  ".join(f"{name} {value}" for name, value in shown.items())


class _Bars:
    """A bar a phase, on a terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("[dim]{task.fields[metrics]}[/dim]"),
            console=console,
        )
        self._tasks: dict[str, Any] = {}
        self._started = False

    def show(self, progress: Progress) -> None:
        if not self._started:
            self._bars.start()
            self._started = True
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._bars.add_task(progress.phase, total=None, unit="", metrics="")
        self._bars.update(
            self._tasks[progress.phase],
            completed=progress.done,
            total=progress.total,
            unit=progress.unit,
            metrics=_describe(progress.metrics),
        )

    def pause(self) -> None:
        """Lines printed through the same console appear above the live bars."""

    def close(self) -> None:
        if self._started:
            self._bars.stop()
            self._started = False


class _Lines:
    """Plain lines, for logs: the first and the last of a phase, and one every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._since = (0.0, 0)
        self._last = 0.0
        self._pending: Progress | None = None

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase != self._phase:
            self.pause()
            self._phase, self._since, self._last = progress.phase, (now, progress.done), 0.0
        self._pending = progress
        if now - self._last >= SECONDS_BETWEEN_LINES or progress.done == progress.total:
            self.pause()

    def pause(self) -> None:
        """Prints what was held back."""
        progress, self._pending = self._pending, None
        if progress is None:
            return
        now = self._last = time.monotonic()
        seconds, done = now - self._since[0], progress.done - self._since[1]
        parts = [f"{progress.phase}: {progress.done}/{progress.total} {progress.unit}"]
        if done and seconds > 0 and progress.done < progress.total:
            rate = done / seconds
            parts.append(f"{rate:.3g} {progress.unit}/s, {_duration((progress.total - progress.done) / rate)} left")
        if progress.metrics:
            parts.append(_describe(progress.metrics))
        self._console.print(Text(", ".join(parts)), soft_wrap=True)

    def close(self) -> None:
        self.pause()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
