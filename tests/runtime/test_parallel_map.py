"""Many files are looked at by several processes, with the results of one."""

import pytest

from pipelines.errors import MissingError
from pipelines.runtime import parallel_map
from pipelines.runtime.progress import Progress, ignore_progress
from pipelines.runtime.worker_pool import WorkerDied
from tests.helpers import worker_functions


def test_few_are_looked_at_in_this_process_without_progress() -> None:
    seen: list[Progress] = []
    here: list[int] = []  # its `append` is no function that another process could import
    assert parallel_map.parallel_map(here.append, [1, 2, 3], "looking", seen.append) == [None] * 3
    assert (here, seen) == ([1, 2, 3], [])


def test_many_come_back_in_their_order_and_one_that_kills_its_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_map, "FEW", 8)
    monkeypatch.setattr(parallel_map, "_CHUNK", 3)
    seen: list[Progress] = []
    found = parallel_map.parallel_map(worker_functions.square_or_die, range(10), "looking", seen.append)
    assert isinstance(found[5], WorkerDied)
    assert [value for number, value in enumerate(found) if number != 5] == [n * n for n in range(10) if n != 5]
    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == ("looking", 10, 10)


def test_an_error_that_ends_a_command_ends_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_map, "FEW", 1)
    with pytest.raises(MissingError, match="there is no hundred"):
        parallel_map.parallel_map(worker_functions.square_or_die, [1, 100], "looking", ignore_progress)
