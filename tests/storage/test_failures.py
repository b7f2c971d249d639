"""Failures reach `failures.csv` soon, all of them, and at a cost that does not grow with the square of their number."""

import pytest

from pipelines.errors import StorageError, VideoError
from pipelines.storage import failures as outcomes
from pipelines.storage.failures import Failure, FailureLog, read_failures, record_outcomes
from pipelines.workspace import Workspace


def failure(number: int) -> Failure:
    return Failure("extract-flow", "walk", f"video{number:04}", "a.avi", "damaged")


def recorded(workspace: Workspace) -> int:
    return len(read_failures(workspace))


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of outcomes in each writing; a clock on which writing takes a millisecond a row and all else one."""
    now, rows = [0.0], [0]
    written: list[int] = []

    def record(workspace, *, failed, succeeded):
        record_outcomes(workspace, failed=failed, succeeded=succeeded)
        written.append(len(failed) + len(succeeded))
        rows[0] += len(failed)
        now[0] += 0.001 * rows[0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    monkeypatch.setattr(outcomes, "record_outcomes", record)
    monkeypatch.setattr(outcomes.time, "monotonic", clock)
    return written


def test_the_first_failure_is_told_at_once(tmp_path, writes) -> None:
    with FailureLog(Workspace(tmp_path)) as outcome:
        outcome.fail(failure(1))
        assert recorded(Workspace(tmp_path)) == 1


def test_many_are_written_together_and_none_is_lost(tmp_path, writes) -> None:
    workspace = Workspace(tmp_path)
    with FailureLog(workspace) as outcome:
        for number in range(500):
            outcome.fail(failure(number))
        for number in range(0, 500, 2):
            outcome.succeed(failure(number).key)
    assert recorded(workspace) == 250
    assert len(writes) < 20


def test_what_waits_is_written_when_it_is_due_though_nothing_more_happens(tmp_path, writes) -> None:
    workspace = Workspace(tmp_path)
    with FailureLog(workspace) as outcome:
        outcome.fail(failure(1))
        outcome.fail(failure(2))
        assert recorded(workspace) == 1
        for _ in range(100):  # reports of a long video
            outcome.write_when_due()
        assert recorded(workspace) == 2
    assert writes == [1, 1]


def fail_twice_and_stop(workspace: Workspace, before_stopping=lambda: None) -> None:
    with FailureLog(workspace) as outcome:
        outcome.fail(failure(1))
        outcome.fail(failure(2))
        before_stopping()
        raise VideoError("stopped")


def test_what_ends_the_block_is_raised_and_what_waits_is_written_before(tmp_path, writes) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(VideoError, match="stopped"):
        fail_twice_and_stop(workspace)
    assert recorded(workspace) == 2


def test_a_disk_that_refuses_is_an_error_but_hides_none(tmp_path, writes, monkeypatch) -> None:
    def refuse(workspace, *, failed, succeeded):
        raise StorageError("the disk is full")

    def fill_the_disk() -> None:
        monkeypatch.setattr(outcomes, "record_outcomes", refuse)

    with pytest.raises(VideoError, match="stopped"):
        fail_twice_and_stop(Workspace(tmp_path), fill_the_disk)
    outcome = FailureLog(Workspace(tmp_path))
    with pytest.raises(StorageError, match="the disk is full"):
        outcome.fail(failure(1))
