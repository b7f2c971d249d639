"""Worker processes that outlive their work: a task that kills its process fails alone.

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
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from pipelines.errors import MissingError, StresError, VideoError
from pipelines.runtime.devices import available_cores, available_memory
from pipelines.runtime.signals import STOP_SIGNALS

Task = TypeVar("Task")
Value = TypeVar("Value")

Report = Callable[[int], None]
"""Told by a task how many further units (frames, pairs) of it are done."""

_PRELOAD = ["numpy", "torch", "cv2", "av", "pipelines.storage.hdf5_plugins"]
NO_MEMORY = "not enough memory for this video: use fewer --workers"
_PATIENCE = 5.0  # seconds a process gets to end before it is made to
_TICK = 5.0  # seconds between two looks at who is late
_LEAST_MEMORY = 4 << 30  # of 16 reference pictures of the largest size, and what is made of them
_LOST_STARTS = 3  # processes in a row that may be killed before they come to work


_CANNOT_START = (
    "worker processes cannot start ({}): see their output above; a script that starts a stage must do so under "
    '`if __name__ == "__main__":`, and not be read from standard input'
)


class WorkerDied(VideoError):
    """The process died under its task, or was ended because the task came no further."""


@dataclass(frozen=True)
class Limits:
    """What one task may take before it fails, whatever its data make the libraries do.

    patience  seconds without a report of further units
    memory    bytes, beside what the process takes before its first task; None: as much as there is
    """

    patience: float = 600.0
    memory: int | None = None


def memory_share(workers: int) -> int:
    """The bytes that each of so many processes may take of this machine's memory, but at least 4 GiB."""
    return max(_LEAST_MEMORY, available_memory() // workers)


def usual_limits(workers: int) -> Limits:
    """Those of so many processes that compute on the CPU."""
    return Limits(memory=memory_share(workers))


def run_tasks(
    function: Callable[[Task, Report], Value],
    tasks: Iterable[Task],
    workers: int,
    *,
    on_units: Report = lambda units: None,
    limits: Limits = Limits(),
) -> Generator[tuple[Task, Value | VideoError], None, None]:
    """Works through `tasks` in `workers` processes; yields each task with its outcome, as they finish. No more tasks
    are taken than there are processes for, so that others may be dealt from the same ones.

    `function(task, report)` must be importable by name, its tasks and values picklable; what it passes to `report`
    arrives at `on_units`. A `VideoError` is the task's outcome, and so are memory running out, any unexpected
    exception, exceeding the `limits`, and the death of the process, which is replaced. Every other `StresError` (a full
    disk, missing weights) ends the work and is raised here. When the iteration ends early, for whatever reason, the
    processes are killed:
    use `contextlib.closing`.
    """
    remaining = iter(tasks)
    waiting = deque(islice(remaining, max(1, workers)))
    count = max(1, len(waiting))
    threads = max(1, available_cores() // count)
    pool: list[_Worker[Task]] = []
    lost_starts = 0
    finished = False
    try:
        while True:
            busy = sum(worker.busy for worker in pool)
            waiting.extend(islice(remaining, count - busy - len(waiting)))
            if not waiting and not busy:
                break
            while len(pool) < min(count, len(waiting) + busy):
                pool.append(_Worker(function, threads, limits.memory))
            for worker in pool:
                if worker.idle and waiting and worker.give(waiting[0]):
                    waiting.popleft()
            for worker in _with_news(pool):
                kind, content = worker.receive()
                if kind == "ready":
                    lost_starts = 0
                elif kind == "units":
                    on_units(content)
                elif kind == "raise":
                    raise content[0](content[1])
                elif kind == "done":
                    yield worker.take(), content
                elif kind == "failed":
                    yield worker.take(), VideoError(content)
                elif kind == "died":
                    pool.remove(worker)
                    was_killed = worker.was_killed
                    worker.close()
                    if worker.busy:
                        yield worker.take(), WorkerDied(f"the worker process died ({content}) on this video")
                    elif not worker.started:
                        lost_starts += 1
                        if not was_killed or lost_starts > _LOST_STARTS:
                            raise MissingError(_CANNOT_START.format(content))
            if any(not worker.started and worker.waited > Limits.patience for worker in pool):
                raise MissingError(_CANNOT_START.format(f"not within {Limits.patience:g} s"))
            for worker in [worker for worker in pool if worker.busy and worker.waited > limits.patience]:
                pool.remove(worker)
                worker.process.kill()
                worker.close()
                yield worker.take(), WorkerDied(no_progress(limits.patience))
        finished = True
    finally:
        _end(pool, gently=finished)


def _with_news(pool: "list[_Worker[Task]]") -> "list[_Worker[Task]]":
    """Waits until a worker has sent something or died, but not for long; adds to what each has waited."""
    since = time.monotonic()
    ready = wait([handle for worker in pool for handle in (worker.connection, worker.process.sentinel)], _TICK)
    for worker in pool:  # no more than a tick, since all of us may have been stopped for hours
        worker.waited += min(time.monotonic() - since, _TICK)
    return [worker for worker in pool if worker.connection in ready or worker.process.sentinel in ready]


def _end(pool: "list[_Worker[Task]]", *, gently: bool) -> None:
    for worker in pool:
        worker.connection.close()  # to a process that waits for its next task: the end
        if not gently:
            worker.process.kill()
    for worker in pool:
        worker.close()


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
        """Whether a signal ended the process, or its fork server died, after which nobody knows (code 255)."""
        code = self.process.exitcode or 0
        return code < 0 or code == 255

    def give(self, task: Task) -> bool:
        """Hands over a task; False if the process has died meanwhile, which `receive` will tell."""
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
        """The next message: its kind and content; where there is none because the process has ended, how it did."""
        # What was sent before the end still counts.
        with contextlib.suppress(EOFError, OSError):
            if self.connection.poll():
                message = self.connection.recv()
                self.started, self.waited = True, 0.0
                return message
        return "died", self._end()

    def close(self) -> None:
        """Sees to it that the process has ended."""
        self._end()
        self.connection.close()
        self.process.close()

    def _end(self) -> str:
        """Waits for the process to end, makes it if it does not, and says how it did."""
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return how_it_ended(self.process.exitcode or 0)


def how_it_ended(code: int) -> str:
    """The exit code of a process in words; negative ones are signals."""
    if code >= 0:
        return f"exit code {code}"
    hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code}{hint}"


def arrives(connection: Connection, patience: float) -> bool:
    """Whether something comes, or the other side ends, within `patience` seconds. Waits tick by tick: all of us may
    have been stopped for hours."""
    while patience > 0:
        if connection.poll(min(patience, _TICK)):
            return True
        patience -= _TICK
    return False


def no_progress(patience: float) -> str:
    return f"no progress for {patience:g} s, so its process was ended"


def start_fork_server() -> None:
    """Starts the process from which all others are forked, if it does not run yet.

    Signals that reach all processes of a command do not reach it: it would end amid its imports, and print where, or
    later, and leave nobody to say when the others have ended.
    Raises `MissingError` where there is no place for its socket.
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


def _serve(connection: Connection, function: Callable[[Any, Report], Any], threads: int, memory: int | None) -> None:
    """Works until the parent closes the pipe, or is gone."""
    for number in STOP_SIGNALS:  # they reach all processes of a terminal or a job
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    _limit_threads(threads)
    if memory is not None:
        limit_memory(memory)
    with contextlib.suppress(EOFError, OSError):
        connection.send(("ready", None))
        while True:
            connection.send(_attempt(function, connection.recv(), connection))


def _limit_threads(threads: int) -> None:
    import cv2
    import torch

    cv2.setNumThreads(1)  # one always: DIS gives other flow with other numbers of threads
    torch.set_num_threads(threads)


def limit_memory(beside: int) -> None:
    """Makes allocating more than `beside` bytes beside what is taken already fail, which is an error of one video; the
    system would end some process, and not always the right one."""
    pages = int(open("/proc/self/statm").read().split()[5])  # noqa: SIM115
    allowed = pages * os.sysconf("SC_PAGE_SIZE") + beside
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed if most < 0 else min(allowed, most), most))


def _attempt(function: Callable[[Any, Report], Any], task: Any, connection: Connection) -> tuple[str, Any]:
    def report(units: int) -> None:
        connection.send(("units", units))

    try:
        return "done", function(task, report)
    except StresError as error:
        if not isinstance(error, VideoError):
            return "raise", (type(error), str(error))
        return "failed", failure(error)
    except Exception as error:  # one bad video never ends a run
        return "failed", failure(error)


def failure(error: Exception) -> str:
    """Why a video fails on which this was raised."""
    if isinstance(error, VideoError):
        return str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's own kind
        return NO_MEMORY
    return f"unexpected error: {type(error).__name__}: {error}"
