"""The list of videos that failed: its rows, and that failures reach it soon, all of them, at a cost that does not grow
with the square of their number."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import StorageError, VideoError
from pipelines.storage import failures as outcomes
from pipelines.storage.failures import Failure, FailureLog, read_failures, record_outcomes
from pipelines.storage.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def failure(video: str, reason: str = "damaged", stage: str = "extract-flow", **more: str) -> Failure:
    return Failure(stage, "jump", video, f"/videos/jump/{video}.avi", reason, **more)


def reasons(workspace: Workspace) -> dict[str, str]:
    return {row.video: row.reason for row in read_failures(workspace)}


def test_without_failures_there_is_no_file(workspace):
    assert read_failures(workspace) == []

    record_outcomes(workspace, succeeded=[("extract-flow", "jump", "a")])

    assert not workspace.failures_file.exists()


def test_rows_are_added_replaced_and_removed_and_the_file_goes_with_the_last(workspace):
    record_outcomes(workspace, failed=[failure("a"), failure("b")])
    assert reasons(workspace) == {"a": "damaged", "b": "damaged"}

    record_outcomes(workspace, failed=[failure("a", "truncated")])
    assert reasons(workspace) == {"a": "truncated", "b": "damaged"}

    record_outcomes(workspace, succeeded=[failure("a").key], failed=[failure("c")])
    assert reasons(workspace) == {"b": "damaged", "c": "damaged"}

    record_outcomes(workspace, succeeded=[failure("b").key, failure("c").key])
    assert list(workspace.root.iterdir()) == []


def test_the_success_of_one_stage_leaves_the_rows_of_another(workspace):
    record_outcomes(workspace, failed=[failure("a"), failure("a", stage="extract-frames")])

    record_outcomes(workspace, succeeded=[("extract-frames", "jump", "a")])

    assert [row.stage for row in read_failures(workspace)] == ["extract-flow"]


def test_rows_of_predict_are_of_paths_since_two_videos_may_have_one_name(workspace):
    one, two = (Failure("predict", "unlabelled", "a", f"/{folder}/a.avi", "damaged") for folder in "xy")
    record_outcomes(workspace, failed=[one, two])
    assert [row.path for row in read_failures(workspace)] == ["/x/a.avi", "/y/a.avi"]

    labelled = replace(two, class_name="jump", reason="truncated")
    record_outcomes(workspace, failed=[labelled], succeeded=[one.key])
    assert [(row.class_name, row.path, row.reason) for row in read_failures(workspace)] == [
        ("jump", "/y/a.avi", "truncated")
    ]


def test_a_row_is_complete_and_says_when(workspace):
    record_outcomes(workspace, failed=[failure("a")])

    header, row = workspace.failures_file.read_text(encoding="utf-8").splitlines()
    assert header == "stage,class,video,path,reason,time"
    assert row.startswith("extract-flow,jump,a,/videos/jump/a.avi,damaged,20")


@pytest.mark.parametrize("name", ['a "quoted", name', "ünï", "two\nlines", "carriage\rreturn", "no\udcfftext", "#&[;'"])
def test_any_name_keeps_its_one_row(workspace, name):
    for reason in ("first", "second"):
        record_outcomes(workspace, failed=[failure(name, reason)])
        record_outcomes(workspace, failed=[failure("other")])

    rows = read_failures(workspace)
    assert sorted(row.reason for row in rows) == ["damaged", "second"]
    workspace.failures_file.read_bytes().decode("utf-8")

    record_outcomes(workspace, succeeded=[failure(name).key])
    assert reasons(workspace) == {"other": "damaged"}


def test_an_unchanged_list_is_not_written_again(workspace):
    record_outcomes(workspace, failed=[failure("a", time="2024-01-01")])
    before = workspace.failures_file.stat().st_ino

    record_outcomes(workspace, failed=[failure("a", time="2024-01-01")], succeeded=[failure("b").key])

    assert workspace.failures_file.stat().st_ino == before


def _record(root: Path, process: int) -> None:
    workspace = Workspace(root)
    record_outcomes(workspace, failed=[failure(f"gone-{process}")])
    for number in range(20):
        record_outcomes(workspace, failed=[failure(f"{process}-{number}")])
    record_outcomes(workspace, succeeded=[failure(f"gone-{process}").key])


def test_two_processes_at_once_lose_no_row(workspace):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_record, args=(workspace.root, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)

    assert [process.exitcode for process in processes] == [0, 0]
    assert set(reasons(workspace)) == {f"{process}-{number}" for process in range(2) for number in range(20)}


# ------------------------------------------------------------------ written as they happen


def numbered(number: int) -> Failure:
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
        outcome.fail(numbered(1))
        assert recorded(Workspace(tmp_path)) == 1


def test_many_are_written_together_and_none_is_lost(tmp_path, writes) -> None:
    workspace = Workspace(tmp_path)
    with FailureLog(workspace) as outcome:
        for number in range(500):
            outcome.fail(numbered(number))
        for number in range(0, 500, 2):
            outcome.succeed(numbered(number).key)
    assert recorded(workspace) == 250
    assert len(writes) < 20


def test_what_waits_is_written_when_it_is_due_though_nothing_more_happens(tmp_path, writes) -> None:
    workspace = Workspace(tmp_path)
    with FailureLog(workspace) as outcome:
        outcome.fail(numbered(1))
        outcome.fail(numbered(2))
        assert recorded(workspace) == 1
        for _ in range(100):  # reports of a long video
            outcome.write_when_due()
        assert recorded(workspace) == 2
    assert writes == [1, 1]


def fail_twice_and_stop(workspace: Workspace, before_stopping=lambda: None) -> None:
    with FailureLog(workspace) as outcome:
        outcome.fail(numbered(1))
        outcome.fail(numbered(2))
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
        outcome.fail(numbered(1))
