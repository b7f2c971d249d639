"""Deferred signal handling: the first signal is noted, the second one acts at once."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from pipelines.errors import Interrupted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; what `kill`, batch systems and torchrun send; a terminal or an ssh connection that closes."""


class StopRequest:
    """Whether one of the `STOP_SIGNALS` has arrived."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def check(self) -> None:
        """Raises `Interrupted` if a signal has arrived."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)


@contextlib.contextmanager
def stop_requests(*, at_once: bool = False) -> Iterator[StopRequest]:
    """Within the block, the first of the `STOP_SIGNALS` only sets the request; a second one raises `Interrupted`.

    The request is never set outside the main thread, where Python allows no handlers, nor for a signal that the command
    was started to ignore, as by nohup and for a shell's background jobs.

    Args:
        at_once: The first one raises `Interrupted` too.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        is_first = request.signal_number is None
        if number == signal.SIGHUP and not is_first:
            return  # a closed terminal sends two: its own and its shell's
        if is_first or at_once:
            request.signal_number = number
        if at_once or not is_first:
            raise Interrupted(number)

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        # Amid a destructor or a callback Python drops what is raised, and would print it; `check` raises it again.
        if not isinstance(ignored.exc_value, Interrupted):
            told(ignored)

    told = sys.unraisablehook
    before = {}
    try:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    except ValueError:
        yield request
        return
    sys.unraisablehook = hook
    try:
        yield request
    finally:
        sys.unraisablehook = told
        for number, handler in before.items():
            signal.signal(number, handler)
