"""Processes that die, fail or hang take nothing with them but their own task."""

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.errors import MissingError, StorageError, VideoError
from pipelines.runtime.devices import available_memory
from pipelines.runtime.growth import Growth
from pipelines.runtime.signals import STOP_SIGNALS
from pipelines.runtime.worker_pool import Limits, WorkerDied, arrives, memory_share, run_tasks
from tests.helpers import worker_functions

Task = tuple[str, str]


def outcomes(tasks: list[Task], workers: int = 2) -> dict[Task, str | VideoError]:
    return dict(run_tasks(worker_functions.obey, tasks, workers))


def test_every_task_is_done_once_whatever_the_number_of_processes() -> None:
    tasks = [("say", str(number)) for number in range(20)]
    for workers in (1, 3):
        assert outcomes(tasks, workers) == {task: task[1] for task in tasks}
    assert outcomes([]) == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_tasks_are_taken_than_processes_can_have(workers: int) -> None:
    """So that other machines can be dealt from the same tasks."""
    taken: list[int] = []

    def tasks() -> Iterator[Task]:
        for number in range(6):
            taken.append(number)
            yield "say", str(number)

    for done, _ in enumerate(run_tasks(worker_functions.obey, tasks(), workers)):
        assert len(taken) <= done + workers
    assert taken == list(range(6))


def test_a_signal_to_all_processes_is_the_parents_to_answer() -> None:
    """torchrun and batch systems send SIGTERM to a whole group: the task is finished, or the parent ends it."""
    assert outcomes([("kill", str(int(signal.SIGTERM)))], workers=1) == {("kill", "15"): "15"}


def test_even_one_worker_is_another_process() -> None:
    assert outcomes([("pid", "")], workers=1) != {("pid", ""): str(os.getpid())}


def test_garbage_is_looked_for_but_not_among_the_libraries_that_the_server_has_loaded() -> None:
    task = ("garbage", "")
    assert outcomes([task], workers=1) == {task: "looked for: True, never looked at: True"}


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        (("kill", str(int(signal.SIGKILL))), "killed by signal 9, probably out of memory"),
        (("kill", str(int(signal.SIGSEGV))), "killed by signal 11"),
        (("exit", "3"), "exit code 3"),
    ],
)
def test_a_process_that_dies_fails_only_its_task(death: Task, reason: str) -> None:
    tasks = [("say", "before"), death, ("say", "after"), ("say", "last")]
    for workers in (1, 2):
        result = outcomes(tasks, workers)
        assert isinstance(result[death], WorkerDied)
        assert str(result.pop(death)) == f"the worker process died ({reason}) on this video"
        assert set(result.values()) == {"before", "after", "last"}


def test_errors_of_one_task_are_its_outcome() -> None:
    result = outcomes([("video error", "too short"), ("memory", ""), ("bug", "key"), ("say", "fine")])
    assert {order: str(outcome) for (order, _), outcome in result.items()} == {
        "video error": "too short",
        "memory": "not enough memory for this video: use fewer --workers",
        "bug": "unexpected error: KeyError: 'key'",
        "say": "fine",
    }


def test_a_task_without_progress_is_ended_and_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.runtime.worker_pool._TICK", 0.1)
    tasks = [("say", "before"), ("hang", ""), ("say", "after"), ("say", "last")]
    result = dict(run_tasks(worker_functions.obey, tasks, 1, limits=Limits(patience=2.0)))
    assert isinstance(result[("hang", "")], WorkerDied)
    assert str(result.pop(("hang", ""))) == "no progress for 2 s, so its process was ended"
    assert set(result.values()) == {"before", "after", "last"}


def test_a_task_that_reports_may_take_longer_than_patience_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.runtime.worker_pool._TICK", 0.1)
    task = ("slow report", "5")  # half a second each
    assert dict(run_tasks(worker_functions.obey, [task], 1, limits=Limits(patience=2.0))) == {task: "5"}


@pytest.mark.parametrize("what", ["bytes", "tensor"])
def test_a_task_that_takes_too_much_memory_fails_alone(what: str) -> None:
    tasks = [("take", what), ("say", "after")]
    result = dict(run_tasks(worker_functions.obey, tasks, 1, limits=Limits(memory=1 << 29)))
    assert str(result[("take", what)]) == "not enough memory for this video: use fewer --workers"
    assert result[("say", "after")] == "after"


def test_each_process_may_take_its_share_of_the_machine_but_never_too_little() -> None:
    assert memory_share(1) == max(4 << 30, available_memory())
    assert memory_share(10_000) == 4 << 30


@pytest.mark.parametrize(("order", "kind"), [("storage", StorageError), ("missing", MissingError)])
def test_a_full_disk_or_missing_weights_end_the_work(order: str, kind: type[Exception]) -> None:
    tasks = [("hang", ""), (order, "the disk is full"), ("say", "never")]
    with pytest.raises(kind, match="the disk is full"):
        outcomes(tasks)
    assert multiprocessing.active_children() == []


def test_units_arrive_while_a_task_runs() -> None:
    seen: list[int] = []
    assert len(list(run_tasks(worker_functions.obey, [("report", "5"), ("report", "4")], 2, on_units=seen.append))) == 2
    assert seen == [2] * 9


def test_ctrl_c_is_for_the_parent_to_decide() -> None:
    assert outcomes([("interrupt", "survived")]) == {("interrupt", "survived"): "survived"}


def test_stopping_early_kills_what_still_runs() -> None:
    pids: list[int] = []

    def stop(pid: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        contextlib.closing(run_tasks(worker_functions.obey, [("hang", "")], 1, on_units=stop)) as running,
    ):
        list(running)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_processes_that_cannot_start_are_one_clear_error() -> None:
    # A script without `if __name__ == "__main__"` starts itself again in each process.
    script = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from pipelines.runtime.worker_pool import run_tasks\nfrom tests.helpers import worker_functions\n"
        "list(run_tasks(worker_functions.obey, [('say', 'x')], 1))\n"
    )
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, timeout=60)
    assert "MissingError: worker processes cannot start" in done.stderr
    assert '__name__ == "__main__"' in done.stderr


def test_a_process_killed_before_it_comes_to_work_is_replaced(tmp_path: Path) -> None:
    """The first one is, as when memory runs out: no video is to blame."""
    tasks = [(str(tmp_path / "killed"), str(number)) for number in range(3)]
    assert dict(run_tasks(worker_functions.DiesOnArrival(tmp_path / "killed", 1), tasks, 1)) == {
        task: task[1] for task in tasks
    }


def test_processes_that_are_all_killed_before_they_come_to_work_end_the_command(tmp_path: Path) -> None:
    function = worker_functions.DiesOnArrival(tmp_path / "killed", 100)
    with pytest.raises(
        MissingError, match=r"worker processes cannot start .killed by signal 9, probably out of memory"
    ):
        list(run_tasks(function, [("", "x")], 1))


def test_no_room_for_temporary_files_is_a_full_disk_and_not_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipelines.runtime.worker_pool.forkserver.ensure_running", full)
    with pytest.raises(MissingError, match=r"No space left on device.*TMPDIR"):
        outcomes([("say", "x")])


def test_signals_to_all_processes_do_not_end_the_fork_server() -> None:
    """Without it nobody knows when a killed process has ended, and its temporary file stays."""
    script = (
        "from multiprocessing import forkserver; from pathlib import Path; from pipelines.runtime import worker_pool\n"
        "worker_pool._PRELOAD = []; worker_pool.start_fork_server()\n"
        "print(Path(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    blocked = int(next(line for line in done.stdout.splitlines() if line.startswith("SigBlk:")).split()[1], 16)
    for number in STOP_SIGNALS:
        assert blocked & 1 << number - 1


def test_a_process_that_never_comes_to_work_ends_the_command(monkeypatch):
    """One that hangs while it loads its libraries, from a disk that does not answer."""
    monkeypatch.setattr("pipelines.runtime.worker_pool._TICK", 0.05)
    monkeypatch.setattr("pipelines.runtime.worker_pool._serve", worker_functions.never_ready)
    monkeypatch.setattr("pipelines.runtime.worker_pool.Limits.patience", 0.1)
    with pytest.raises(MissingError, match=r"worker processes cannot start \(not within 0.1 s\)"):
        outcomes([("say", "x")])


def test_a_pipe_is_waited_for_tick_by_tick_and_not_longer_than_the_patience(monkeypatch):
    monkeypatch.setattr("pipelines.runtime.worker_pool._TICK", 0.01)
    ours, theirs = multiprocessing.Pipe()
    assert not arrives(ours, 0.03)
    theirs.send("x")
    assert arrives(ours, 0.03)
    assert ours.recv() == "x"
    theirs.close()
    assert arrives(ours, 0.03)  # its end


# ------------------------------------------------------------------ growing


def grown(rates: dict[int, float]) -> tuple[int, dict[int, float]]:
    """What is chosen, and measured, where so many processes have these rates and report ten units at a time."""
    growth, now, seen = Growth(list(rates)), 0.0, set()
    while not growth.settled:
        seen.add(growth.count)
        for at_work in range(growth.count):  # while they start, which takes long
            growth.add(10, now := now + 100, at_work)
        before = len(growth.rates)
        while len(growth.rates) == before:
            growth.add(10, now := now + 10 / rates[growth.count], growth.count)
    assert seen == set(growth.rates)
    return growth.count, growth.rates


@pytest.mark.parametrize(
    ("rates", "chosen", "tried"),
    [
        ({1: 500, 4: 1800, 12: 3500}, 12, 3),
        ({1: 500, 4: 1800, 12: 1700}, 4, 3),
        ({1: 500, 4: 1800, 12: 400}, 4, 3),
        ({1: 500, 4: 1800, 12: 1850}, 12, 3),
        ({1: 500, 4: 540, 12: 3000}, 4, 2),
        ({1: 500, 4: 490, 12: 3000}, 1, 2),
        ({1: 2, 4: 8}, 4, 2),
        ({3: 2}, 3, 0),
    ],
)
def test_processes_become_more_while_that_gives_a_tenth_and_the_fastest_number_is_kept(
    rates: dict[int, float], chosen: int, tried: int
) -> None:
    found, measured = grown(rates)
    assert (found, len(measured)) == (chosen, tried)
    assert measured == pytest.approx({count: rates[count] for count in measured})


class Helping:
    """Helps from the third time on that it is asked; `dies`: never."""

    def __init__(self, *, dies: bool = False) -> None:
        self.dies, self.asked, self.calls = dies, 0, list[str]()

    def start(self) -> None:
        self.calls.append("start")

    def close(self) -> None:
        self.calls.append("close")

    @property
    def at_work(self) -> bool:
        self.asked += 1
        return self.asked > 2

    @property
    def ended(self) -> bool:
        return self.dies


def helped(helper: Helping, rate: float) -> Growth:
    """Settled where 4 processes do 700 a second, 12 do 600, and 8 with the helper this."""
    rates, now = {1: 500.0, 4: 700.0, 12: 600.0}, 0.0
    growth = Growth(list(rates), helper, 8)
    while not growth.settled:
        assert growth.with_helper == (growth.count == 8)
        growth.add(10, now := now + 10 / rates.get(growth.count, rate), 12)
    return growth


def test_the_helper_is_tried_last_and_kept_where_it_is_fastest() -> None:
    helper = Helping()
    growth = helped(helper, 800)
    assert (growth.with_helper, growth.count, helper.calls) == (True, 8, ["start"])
    assert growth.helped_rate == pytest.approx(800)
    assert list(growth.rates) == [1, 4, 12]
    slow = Helping()
    growth = helped(slow, 690)
    assert (growth.with_helper, growth.count, slow.calls) == (False, 4, ["start", "close"])
    assert growth.helped_rate == pytest.approx(690)


def test_without_its_helper_growth_goes_back_to_what_was_fastest() -> None:
    helper = Helping(dies=True)
    growth = helped(helper, 800)
    assert (growth.with_helper, growth.count, growth.helped_rate) == (False, 4, None)
    later = Helping()
    growth = helped(later, 800)
    later.dies = True
    growth.add(10, 0.0, 8)
    assert (growth.with_helper, growth.count, later.calls) == (False, 4, ["start", "close"])


def test_a_pool_grows_and_shrinks_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.runtime.growth._SECONDS", 0.1)
    monkeypatch.setattr("pipelines.runtime.growth.next_count", lambda steps, rates: (1, 2, 1)[len(rates)])
    growth = Growth((1, 2))

    def tasks() -> Iterator[Task]:
        while not growth.settled:
            yield "nap", "3"
        yield from [("nap", "1")] * 10

    pids = [pid for _, pid in run_tasks(worker_functions.obey, tasks(), growth)]
    assert list(growth.rates) == [1, 2]
    assert growth.count == 1
    assert len(set(pids)) == 2
    assert len(set(pids[-8:])) == 1


def test_where_there_are_not_tasks_for_all_processes_nothing_is_measured() -> None:
    growth = Growth((2, 3))
    assert len(list(run_tasks(worker_functions.obey, [("report", "50")], growth))) == 1
    assert (growth.count, growth.settled, growth.rates) == (2, True, {})
