"""A pool of worker processes in which a task that kills its process fails alone.

Each process has a pipe to the parent and gets one task at a time. Processes start by forkserver: no state of the parent
(threads, CUDA, HDF5 handles) leaks into them, and the heavy libraries are loaded once, by the server.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipelines.errors import MissingError, StresError, VideoError
from pipelines.runtime.devices import available_cores, available_memory
from pipelines.runtime.growth import Growth
from pipelines.runtime.ranks import ranks
from pipelines.runtime.signals import STOP_SIGNALS

Task = TypeVar("Task")
Value = TypeVar("Value")

Report = Callable[[int], None]
"""Called by a task with the number of further units (frames, pairs) that are done."""

_PRELOAD = ["pipelines.runtime.preloaded"]
NO_MEMORY = "not enough memory for this video: use fewer --workers"
_PATIENCE = 5.0  # seconds a process gets to end before it is made to
_TICK = 5.0  # seconds between two checks for tasks without progress
_LEAST_MEMORY = 4 << 30  # of 16 reference pictures of the largest size, and what is made of them
_LOST_STARTS = 3  # processes in a row that may be killed while they start
_CANNOT_START = (
    "worker processes cannot start ({}): see their output above; a script that starts a stage must do so under "
    '`if __name__ == "__main__":`, and not be read from standard input'
)


class WorkerDied(VideoError):
    """The process died during its task, or was ended because the task made no progress."""


@dataclass(frozen=True)
class Limits:
    """What one task may take before it fails."""

    patience: float = 600.0
    """Seconds without a report of further units."""
    memory: int | None = None
    """Bytes, beyond what the process takes before its first task; None: as much as there is."""


def memory_share(workers: int) -> int:
    """The share of this machine's memory for each of so many processes, bytes, but at least 4 GiB."""
    return max(_LEAST_MEMORY, available_memory() // workers)


def run_tasks(
    function: Callable[[Task, Report], Value],
    tasks: Iterable[Task],
    workers: int | Growth,
    *,
    on_units: Report = lambda units: None,
    limits: Limits = Limits(),
) -> Generator[tuple[Task, Value | VideoError], None, None]:
    """Processes tasks in worker processes. When the iteration ends early, for whatever reason, the processes are
    killed: use `contextlib.closing`.

    A task's outcome is its value or a `VideoError`: the one it raised, or one for memory running out, an unexpected
    exception, exceeding the `limits`, or the death of its process, which is replaced.

    Args:
        function: Importable by name.
        tasks: Picklable, as are the values. No more are taken than there are processes for, so that other pools may
            be dealt from the same ones.
        workers: Number of processes; or how it is found, which ends where there are not tasks enough for all.
        on_units: Receives what a task passes to its `report`.
        limits: Those of one task.

    Yields:
        Each task with its outcome, as they finish.

    Raises:
        StresError: Any that a task raised other than a `VideoError`, such as for a full disk or missing weights.
        MissingError: The processes cannot start.
    """
    growth = workers if isinstance(workers, Growth) else Growth((max(1, workers),))
    remaining = iter(tasks)
    waiting = deque(islice(remaining, growth.count))
    threads = max(1, available_cores() // (max(1, len(waiting)) if growth.settled else growth.steps[-1]))
    pool: list[_Worker[Task]] = []
    lost_starts = 0
    finished = False
    try:
        while True:
            busy = sum(worker.busy for worker in pool)
            waiting.extend(islice(remaining, max(0, growth.count - busy - len(waiting))))
            if not waiting and not busy:
                break
            growth.settled |= len(waiting) + busy < growth.count
            while len(pool) < min(growth.count, len(waiting) + busy):
                pool.append(_Worker(function, threads, limits.memory))
            for worker in pool:  # those that turned out to be too many stay idle
                if worker.idle and waiting and busy < growth.count and worker.give(waiting[0]):
                    waiting.popleft()
                    busy += 1
            for worker in _with_news(pool):
                match worker.receive():
                    case "ready", _:
                        lost_starts = 0
                    case "units", units:
                        worker.at_work = worker.at_work or units > 0
                        growth.add(units, time.monotonic(), sum(other.at_work for other in pool))
                        on_units(units)
                    case "done", value:
                        yield worker.take(), value
                    case "failed", reason:
                        yield worker.take(), VideoError(reason)
                    case "raise", (error, message):
                        raise error(message)
                    case "died", how:
                        pool.remove(worker)
                        was_killed = worker.was_killed
                        worker.close()
                        if worker.busy:
                            yield worker.take(), WorkerDied(f"the worker process died ({how}) on this video")
                        elif not worker.started:
                            lost_starts += 1
                            if not was_killed or lost_starts > _LOST_STARTS:
                                raise MissingError(_CANNOT_START.format(how))
            if any(not worker.started and worker.waited > Limits.patience for worker in pool):
                raise MissingError(_CANNOT_START.format(f"not within {Limits.patience:g} s"))
            for worker in [worker for worker in pool if worker.busy and worker.waited > limits.patience]:
                pool.remove(worker)
                worker.process.kill()
                worker.close()
                yield worker.take(), WorkerDied(no_progress(limits.patience))
        finished = True
    finally:
        for worker in pool:
            worker.connection.close()  # to a process that waits for its next task: the end
            if not finished:
                worker.process.kill()
        for worker in pool:
            worker.close()


def share_tasks(
    function: Callable[[Task, Report], Value],
    tasks: Sequence[Task],
    workers: int | Growth,
    *,
    on_units: Report = lambda units: None,
    limits: Limits = Limits(),
) -> Generator[tuple[int, Task, Value | VideoError], None, None]:
    """As `run_tasks`, but the ranks of torchrun share the tasks, which are the same on each.

    Yields:
        On rank 0 the rank that processed a task, the task and its outcome, of all ranks; on the others, which only do
        their share, nothing. Use `contextlib.closing`.
    """

    def work(numbers: Iterator[int]) -> Generator[tuple[Task, Value | VideoError]]:
        running = run_tasks(function, (tasks[n] for n in numbers), workers, on_units=on_units, limits=limits)
        with contextlib.closing(running) as outcomes:
            yield from outcomes

    with contextlib.closing(ranks().pool(len(tasks), work)) as outcomes:
        yield from ((rank, *task_and_outcome) for rank, task_and_outcome in outcomes)


def _with_news(pool: "list[_Worker[Task]]") -> "list[_Worker[Task]]":
    """Waits, but not for long, until a worker has sent something or died; adds to what each has waited."""
    since = time.monotonic()
    ready = wait([handle for worker in pool for handle in (worker.connection, worker.process.sentinel)], _TICK)
    for worker in pool:  # no more than a tick, since all of us may have been stopped for hours
        worker.waited += min(time.monotonic() - since, _TICK)
    return [worker for worker in pool if worker.connection in ready or worker.process.sentinel in ready]


class _Worker(Generic[Task]):
    """The parent's side of one process."""

    def __init__(self, function: Callable[[Task, Report], Any], threads: int, memory: int | None) -> None:
        start_fork_server()
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, threads, memory), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.started = False
        self.at_work = False  # has reported units
        self.task: Task | None = None
        self.waited = 0.0  # seconds since it was last heard of, or given something

    @property
    def busy(self) -> bool:
        return self.task is not None

    @property
    def idle(self) -> bool:
        return self.started and not self.busy

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the process, or its fork server died (code 255)."""
        code = self.process.exitcode or 0
        return code < 0 or code == 255

    def give(self, task: Task) -> bool:
        """Hands over a task; False if the process has died meanwhile, which `receive` will report."""
        try:
            self.connection.send(task)
        except OSError:
            return False
        self.task, self.waited = task, 0.0
        return True

    def take(self) -> Task:
        task, self.task = self.task, None
        assert task is not None
        return task

    def receive(self) -> tuple[str, Any]:
        """The next message: its kind and content. The kind is "died" where the process has ended."""
        # What was sent before the end still counts.
        with contextlib.suppress(EOFError, OSError):
            if self.connection.poll():
                message = self.connection.recv()
                self.started, self.waited = True, 0.0
                return message
        return "died", self._end()

    def close(self) -> None:
        """Ends the process, if it has not ended."""
        self._end()
        self.connection.close()
        self.process.close()

    def _end(self) -> str:
        """Waits for the process to end, kills it if it does not, and says how it ended."""
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return how_it_ended(self.process.exitcode or 0)


def how_it_ended(code: int) -> str:
    """The exit code of a process in words; negative ones are signals."""
    if code >= 0:
        return f"exit code {code}"
    hint = ", probably out of memory" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code}{hint}"


def arrives(connection: Connection, patience: float) -> bool:
    """Whether something comes, or the other side ends, within `patience` seconds. Waits tick by tick, since all of the
    job may have been stopped for hours."""
    while patience > 0:
        if connection.poll(min(patience, _TICK)):
            return True
        patience -= _TICK
    return False


def no_progress(patience: float) -> str:
    return f"no progress for {patience:g} s, so its process was ended"


def start_fork_server() -> None:
    """Starts the process from which all others are forked, if it does not run yet.

    Signals that reach all processes of a command do not reach it: it would end during its imports, with a traceback, or
    later, and leave nobody to say when the others have ended.

    Raises:
        MissingError: There is no place for its socket.
    """
    forkserver.set_forkserver_preload(_PRELOAD)
    resource_tracker.ensure_running()  # the server would start it, and that lets the signals through again
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    except OSError as error:
        raise MissingError(
            f"worker processes cannot start ({error.strerror or error}): they need a folder for temporary files with "
            "some room in it; free some space in /tmp, or name another folder in the environment variable TMPDIR"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)


# ------------------------------------------------------------------ in the process


def become_worker(memory: int | None) -> None:
    """Leaves the signals that reach all processes of a terminal or a job to the parent, and limits this process's
    memory.

    Args:
        memory: Bytes that may be allocated beyond what is allocated already. More fails, which is an error of one
            video; the system would end some process, and not always the right one. None: no limit.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        allowed = pages * os.sysconf("SC_PAGE_SIZE") + memory
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed if most < 0 else min(allowed, most), most))


def _serve(connection: Connection, function: Callable[[Any, Report], Any], threads: int, memory: int | None) -> None:
    become_worker(memory)
    import cv2
    import torch

    cv2.setNumThreads(1)  # one always: DIS gives other flow with other numbers of threads
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # the parent has closed the pipe, or is gone
        connection.send(("ready", None))
        while True:
            task = connection.recv()
            answer: tuple[str, Any]
            try:
                answer = "done", function(task, lambda units: connection.send(("units", units)))
            except Exception as error:  # one bad video never ends a run
                answer = "failed", reason_of(error)
                if isinstance(error, StresError) and not isinstance(error, VideoError):
                    answer = "raise", (type(error), str(error))
            connection.send(answer)


def reason_of(error: Exception) -> str:
    """Why a video fails for which this was raised."""
    if isinstance(error, VideoError):
        return str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's own kind
        return NO_MEMORY
    return f"unexpected error: {type(error).__name__}: {error}"
