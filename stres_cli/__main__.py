"""`stres` and `python -m stres_cli`."""

import contextlib
import os
import signal
import sys
from types import FrameType

from stres_cli import INTERRUPTED


def main() -> None:
    """Runs the command line; the process ends with the exit code of the command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup and others may have asked
            signal.signal(number, _leave)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a locale may lack a letter
    # Before torch loads OpenMP: threads that spin while they wait make a training step 5 to 10 times slower as soon as
    # another process wants a core (measured: 0.5 s against 4 s on two busy cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from stres_cli.app import app  # takes a tenth of a second, in which a signal may arrive

    app()


def _leave(number: int, frame: FrameType | None) -> None:
    """Before a command has begun (`console.command`) and after its end there is nothing to put in order. An exception
    might be lost in the middle of an import."""
    with contextlib.suppress(OSError, RuntimeError):  # a closed terminal; the signal came amid printing
        sys.stderr.write(f"{INTERRUPTED}\n")
        sys.stderr.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    main()
