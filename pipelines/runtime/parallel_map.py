"""A look at each of very many files: in this process where they are few, else in all cores' and with progress."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipelines.errors import VideoError
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.runtime.worker_pool import Report, run_tasks

Item = TypeVar("Item")
Value = TypeVar("Value")

FEW = 4000  # at half a millisecond a file (an artifact's attributes) as long as worker processes take to start
_PIECE = 256  # items that go to a process together


def look_at_all(
    function: Callable[[Item], Value], items: Sequence[Item], phase: str, on_progress: OnProgress
) -> list[Value | VideoError]:
    """`function(item)` of each, in their order; a `VideoError` of an item over which its process died or failed.

    `function` must be importable by name or a `functools.partial` of one that is, items and values picklable. Progress
    under the name `phase` only where they are many. Any other `StresError` that `function` raises is raised here.
    """
    if len(items) <= FEW:
        return [function(item) for item in items]
    pieces = [range(start, min(start + _PIECE, len(items))) for start in range(0, len(items), _PIECE)]
    found: dict[int, Value | VideoError] = {}
    failed: list[range] = []

    def look(pieces: Sequence[range]) -> None:
        tasks = ((numbers, function, [items[number] for number in numbers]) for numbers in pieces)
        with contextlib.closing(run_tasks(_look_at_piece, tasks, available_cores())) as outcomes:
            for (numbers, _, _), outcome in outcomes:
                if not isinstance(outcome, VideoError):
                    found.update(zip(numbers, outcome, strict=True))
                elif len(numbers) == 1:
                    found[numbers[0]] = outcome
                else:
                    failed.append(numbers)
                on_progress(Progress(phase, len(found), len(items), unit="files"))

    look(pieces)
    look([range(number, number + 1) for numbers in failed for number in numbers])  # which of a piece it was
    return [found[number] for number in range(len(items))]


def _look_at_piece(task: tuple[range, Callable[[Item], Value], Sequence[Item]], report: Report) -> list[Value]:
    _, function, items = task
    return [function(item) for item in items]
