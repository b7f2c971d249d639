"""`stres` and `python -m stres_cli`."""

import contextlib
import errno
import gc
import io
import os
import select
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from pipelines.runtime.signals import STOP_SIGNALS
from stres_cli import INTERRUPTED


def main() -> None:
    """Runs the command line, and exits with the exit code of the command."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and others may have asked
            signal.signal(number, _leave)
    _open_what_is_closed()
    output = _Output(1)
    sys.stdout, sys.stderr = _text(output, sys.stdout), _text(_Output(2), sys.stderr)
    # Before torch loads OpenMP: threads that spin while they wait make a training step 5 to 10 times slower as soon as
    # another process wants a core (measured: 0.5 s against 4 s on two busy cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from stres_cli.app import app  # takes a tenth of a second, in which a signal may arrive

    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
        gc.freeze()  # or Python, as it ends, looks for garbage among all that torch has loaded, for 0.4 s
        sys.exit(output.exit_code(code))


def _leave(number: int, frame: FrameType | None) -> None:
    """Before a command has begun (`console.command`) and after it has ended there is nothing to clean up, and an
    exception could be lost in an import."""
    with contextlib.suppress(OSError, RuntimeError):  # a closed terminal; the signal came amid printing
        sys.stderr.write(f"{INTERRUPTED}\n")
        sys.stderr.flush()
    os._exit(128 + number)


# ------------------------------------------------------------------ standard output and error


class _Output(io.FileIO):
    """Standard output or error, whose disk may be full or whose reader may be gone: neither ends the work.

    What cannot be written is dropped, and `exit_code` reports it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Accepts all of `data`, whether it can be written or not."""
        while self._error is None:
            try:
                if (count := super().write(data)) is not None:
                    return count
                select.select([], [self], [])  # a pipe that another process has made non-blocking, and which is full
            except OSError as error:
                self._error = error
        return memoryview(data).nbytes

    def exit_code(self, code: int) -> int:
        """The command's exit code, or 3, with a sentence on stderr, if its result was lost; a reader that is gone does
        not count."""
        sys.stdout.flush()
        if self._error is None or self._error.errno == errno.EPIPE or code not in (0, 1):
            return code
        reason = self._error.strerror or self._error
        sys.stderr.write(
            f"error: the command finished, but its result cannot be written to standard output ({reason}): redirect it "
            f"or free some space, then run the same command again{_again(sys.argv)}\n"
        )
        return 3


def _again(arguments: Sequence[str]) -> str:
    """How the same command differs, where it would refuse what is there or begin anew."""
    if "--overwrite" in arguments:
        return " without --overwrite: what it made is kept"
    return ", which keeps what it made; export needs --overwrite" if arguments[1:2] == ["export"] else ""


def _open_what_is_closed() -> None:
    """Opens those of the descriptors 0 to 2 that are closed (`>&-`).

    Libraries and child processes take them for standard input, output and error: the next file to be opened would get
    the number, and what is printed with it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free


def _text(output: _Output, stream: Any) -> io.TextIOWrapper:
    """A text stream over `output`, set up like `stream`, which is None if it was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",  # a locale may lack a letter
        line_buffering=stream.line_buffering if stream else False,
        write_through=stream.write_through if stream else False,
    )


if __name__ == "__main__":
    main()
