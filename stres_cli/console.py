"""What a user sees of a command: progress, warnings, the error, the result and the exit code.

Progress and errors go to stderr, the result to stdout; with `--json` stdout holds one JSON document and nothing else.
"""

import contextlib
import dataclasses
import math
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from pipelines.errors import Interrupted, MissingError, StresError, UsageError
from pipelines.interface.wording import printable
from pipelines.runtime.progress import Progress
from pipelines.runtime.ranks import launched, ranks
from pipelines.runtime.signals import STOP_SIGNALS, StopRequest, stop_requests
from pipelines.storage.atomic import json_text
from stres_cli import INTERRUPTED


class CommandUI:
    """The output of one command."""

    def __init__(self, as_json: bool) -> None:
        from stres_cli.progress_view import progress_view  # loads rich.progress, which --help can do without

        self.as_json = as_json
        quiet = not ranks().is_first  # one of torchrun's processes speaks for all
        self.out = PlainConsole(stderr=as_json, highlight=False, markup=False, emoji=False, quiet=quiet)
        self.err = PlainConsole(stderr=True, highlight=False, markup=False, emoji=False, quiet=quiet)
        self.exit_code = 0
        self.document: Any = None
        self.interrupted = INTERRUPTED
        """What to tell a user who stops the command."""
        self.stop = StopRequest()
        self._progress = progress_view(self.err)

    def on_progress(self, progress: Progress) -> None:
        """Shows a stage's progress. Raises `Interrupted` if the exception of a signal was lost."""
        self.stop.check()
        if progress.phase:
            self._progress.show(progress)
        if progress.message:
            self.err.say(progress.message, "yellow")

    def finish(self, result: Any, *, exit_code: int = 0) -> None:
        """Ends the progress display, and keeps the result for `--json`."""
        self._progress.close()
        self.exit_code = exit_code
        self.document = result

    def close(self) -> None:
        """Ends the progress display."""
        self._progress.close()

    def fail(self, message: str, exit_code: int) -> None:
        """Ends the command with one sentence; under torchrun, only the first rank to fail prints it."""
        self.finish(error_document(message, exit_code), exit_code=exit_code)
        error = exit_code < 128  # from there on a signal's: what a user asked for
        text = Text(printable(f"error: {message}" if error else message), style="red" if error else "yellow")
        with ranks().report_error_once() as mine:
            self.err.quiet = not mine
            self.err.say(text)
            if mine:
                self.print_document()

    def print_document(self) -> None:
        """Prints what `finish` kept, with `--json`."""
        if self.as_json:
            print_json(self.document)


def interrupted_text(config: Any) -> str:
    """What to tell a user who stopped a command with this `Config`."""
    if config.dry_run:
        return "interrupted: nothing was written"
    if getattr(config, "overwrite", False):
        return INTERRUPTED.replace("command", "command without --overwrite")
    return INTERRUPTED


@contextlib.contextmanager
def command(as_json: bool, debug: bool, *, shared: bool = False) -> Iterator[CommandUI]:
    """Runs a command's body: an error becomes one sentence and an exit code; SIGINT, SIGTERM and SIGHUP end it cleanly.

    Args:
        as_json: Whether to print the result as one JSON document.
        debug: Whether to print the traceback of an error.
        shared: Whether the processes of torchrun share the command's work. Other commands refuse to be started by it.

    Raises:
        typer.Exit: With 1, 2, 3, 4, 129, 130 or 143 (docs/start.md, "When something goes wrong").
    """
    ui = CommandUI(as_json)
    # `Interrupted` is raised, so that every `finally` runs, and noted: an exception raised during an import or in a
    # destructor may be swallowed, or surface as another one.
    with stop_requests(at_once=True) as ui.stop:
        try:
            if launched() and not shared:
                raise UsageError("this command does not run on several processes: start it without torchrun")
            yield ui
        except typer.Exit:
            raise
        except (Exception, Interrupted) as error:
            if debug and isinstance(error, Exception):
                ui.err.print(traceback.format_exc(), soft_wrap=True)
            if ui.stop.signal_number is not None:  # during an import, a signal may surface as another exception
                error = Interrupted(ui.stop.signal_number)
            if isinstance(error, Interrupted):
                ui.fail(ui.interrupted, error.exit_code)
            elif isinstance(error, StresError):
                ui.fail(str(error), error.exit_code)
            elif isinstance(error, OSError) and error.filename is not None:
                place = f"{error.filename} cannot be used ({error.strerror})"
                ui.fail(f"{place}: check the path, and the permissions of the folders above it", MissingError.exit_code)
            else:
                first_line = f"{type(error).__name__}: {error}".partition("\n")[0]
                ui.fail(f"internal error, please report it: {first_line} (--debug shows the traceback)", 4)
        else:
            # The other ranks wait while rank 0 prints: torchrun ends all as soon as one has an exit code.
            if launched():
                for number in STOP_SIGNALS:
                    signal.signal(number, signal.SIG_IGN)  # there is nothing left to stop
                ranks().gather(None)
            ranks().broadcast_from_rank0(ui.print_document)
        finally:
            ui.close()
    if ui.exit_code:
        raise typer.Exit(ui.exit_code)


class PlainConsole(Console):
    """Strips control characters, which could move the cursor or rename the window: any text may contain file names."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    def say(self, text: str | Text, style: str = "") -> None:
        """Prints one line, however long: a terminal wraps it, and a file has it whole."""
        self.print(Text(printable(text), style) if isinstance(text, str) else text, soft_wrap=True)


# ------------------------------------------------------------------ JSON


def error_document(message: str, exit_code: int) -> dict[str, Any]:
    """The JSON document of a command that failed."""
    return {"error": message, "exit_code": exit_code}


def print_json(value: Any) -> None:
    """Prints one document to stdout: strict JSON, in ASCII whatever the locale."""
    sys.stdout.write(json_text(_plain(value), indent=2) + "\n")


def _plain(value: Any) -> Any:
    """`value` in types that JSON has; NaN and infinity become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
