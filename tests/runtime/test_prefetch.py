"""`prefetch`: order, bounds, errors, and that no thread stays behind."""

import contextlib
import threading
from collections.abc import Generator

import pytest

from pipelines.runtime.prefetch import prefetch


def counting(made: list[int], limit: int = 1000) -> Generator[int]:
    for number in range(limit):
        made.append(number)
        yield number


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_all_items_come_in_order(ahead: int) -> None:
    assert list(prefetch(counting([], 20), ahead)) == list(range(20))
    assert list(prefetch(counting([], 0), ahead)) == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_never_more_than_that_many_wait(ahead: int) -> None:
    made: list[int] = []
    for taken, _ in enumerate(prefetch(counting(made, 50), ahead), start=1):
        assert len(made) <= taken + ahead


def test_it_runs_ahead_in_another_thread() -> None:
    third_made = threading.Event()

    def items() -> Generator[int]:
        yield threading.get_ident()
        yield 1
        third_made.set()
        yield 2

    with contextlib.closing(prefetch(items(), 3)) as ahead:
        assert next(ahead) != threading.get_ident()
        assert third_made.wait(10)  # though only the first was taken


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Generator[int]:
        yield 1
        yield 2
        raise OSError("broken")

    ahead = prefetch(items(), 3)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="broken"):
        next(ahead)


def test_stopping_early_closes_the_source_and_ends_the_thread() -> None:
    closed: list[str] = []

    def endless(name: str, of: Generator[int]) -> Generator[int]:
        try:
            with contextlib.closing(of):
                yield from of
        finally:
            closed.append(name)

    before = threading.active_count()
    inner = prefetch(endless("inner", counting([], 10**9)), 2)
    outer = prefetch(endless("outer", inner), 2)
    with contextlib.closing(outer):
        assert next(outer) == 0
        assert threading.active_count() == before + 2
    assert closed == ["inner", "outer"]
    assert threading.active_count() == before


def test_unstarted_it_starts_nothing() -> None:
    before = threading.active_count()
    prefetch(counting([]), 2).close()
    assert threading.active_count() == before
