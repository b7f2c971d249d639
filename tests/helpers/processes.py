"""Processes started by tests: nothing is waited for without a limit."""

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

_LOOK = 0.5  # seconds between two looks at all processes


class Process(NamedTuple):
    """What the system says of a living process."""

    parent: int
    seconds: float
    """Of processor time that it has taken."""
    is_computing: bool
    """Whether it computes, or would if it got a core."""


def processes_of(session: int) -> dict[int, Process]:
    """The living processes of a session."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                state, parent, _, of_session, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(of_session) == session and state not in "ZX":
                    seconds = (int(rest[7]) + int(rest[8])) / os.sysconf("SC_CLK_TCK")
                    found[int(folder.name)] = Process(int(parent), seconds, state in "RD")
    return found


class Patience:
    """How long the processes of a session have been waited for: by the clock while all of them sleep, and by the
    processor time they take while one would compute. So none seems to hang because others have the cores."""

    def __init__(self, session: int, limit: float) -> None:
        self.session, self.limit, self.waited = session, limit, 0.0
        self._at, self._taken = time.monotonic(), 0.0

    def is_at_an_end(self) -> bool:
        """Whether they have taken more than `limit` seconds. To be asked again and again."""
        now = time.monotonic()
        if now - self._at >= _LOOK:
            processes = processes_of(self.session).values()
            taken = sum(process.seconds for process in processes)
            if any(process.is_computing for process in processes):
                self.waited += max(0.0, taken - self._taken)
            else:
                self.waited += now - self._at
            self._at, self._taken = now, taken
        return self.waited > self.limit


def run_patiently(command: Sequence[str], limit: float) -> "subprocess.CompletedProcess[str]":
    """`subprocess.run` with what is printed captured, and `Patience`. Raises `subprocess.TimeoutExpired`."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True) as process:
            patience = Patience(process.pid, limit)
            while process.poll() is None:
                if patience.is_at_an_end():
                    for pid in processes_of(process.pid):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, 9)
                    raise subprocess.TimeoutExpired(list(command), limit)
                time.sleep(0.05)
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(list(command), process.returncode, output.read(), errors.read())


def first_line(output: IO[bytes], within: float = 120.0) -> bytes:
    """The first line that a process prints to this pipe.

    Args:
        output: the process's end of a pipe, of which nothing was read before
        within: seconds after which the test fails
    """
    readable, _, _ = select.select([output], [], [], within)
    assert readable, f"the process has printed nothing for {within:g} s"
    return output.readline()
