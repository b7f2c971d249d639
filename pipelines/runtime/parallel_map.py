"""A parallel `map` over very many files."""

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
_CHUNK = 256  # items that go to a process together


def parallel_map(
    function: Callable[[Item], Value], items: Sequence[Item], phase: str, on_progress: OnProgress
) -> list[Value | VideoError]:
    """Calls `function` on every item: in this process for few items, else in one worker process per core.

    Args:
        function: Importable by name, or a `functools.partial` of such a function.
        items: Picklable, as are the values.
        phase: Name of the progress display, which appears only with worker processes.

    Returns:
        The values in the order of `items`; a `VideoError` for an item whose process died or failed.

    Raises:
        StresError: Whatever `function` raises other than a `VideoError`.
    """
    if len(items) <= FEW:
        return [function(item) for item in items]
    found: dict[int, Value | VideoError] = {}
    failed: list[range] = []

    def look(chunks: Sequence[range]) -> None:
        tasks = ((numbers, function, [items[number] for number in numbers]) for numbers in chunks)
        with contextlib.closing(run_tasks(_map_chunk, tasks, available_cores())) as outcomes:
            for (numbers, _, _), outcome in outcomes:
                if not isinstance(outcome, VideoError):
                    found.update(zip(numbers, outcome, strict=True))
                elif len(numbers) == 1:
                    found[numbers[0]] = outcome
                else:
                    failed.append(numbers)
                on_progress(Progress(phase, len(found), len(items), unit="files"))

    look([range(start, min(start + _CHUNK, len(items))) for start in range(0, len(items), _CHUNK)])
    look([range(number, number + 1) for numbers in failed for number in numbers])  # which item of a chunk it was
    return [found[number] for number in range(len(items))]


def _map_chunk(task: tuple[range, Callable[[Item], Value], Sequence[Item]], report: Report) -> list[Value]:
    _, function, items = task
    return [function(item) for item in items]
