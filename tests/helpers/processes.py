"""Processes started by tests: nothing is waited for without a limit."""

import select
from typing import IO


def first_line(output: IO[bytes], within: float = 120.0) -> bytes:
    """The first line that a process prints to this pipe.

    Args:
        output: the process's end of a pipe, of which nothing was read before
        within: seconds after which the test fails
    """
    readable, _, _ = select.select([output], [], [], within)
    assert readable, f"the process has printed nothing for {within:g} s"
    return output.readline()
