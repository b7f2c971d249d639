"""Worker processes that outlive their work: a task that kills its process fails alone.

Each process has a pipe to the parent and gets one task at a time. Processes start by forkserver: no state of the parent
(threads, CUDA, HDF5 handles) leaks into them, and the heavy libraries are loaded once, by the server.
"""

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from pipelines.devices import available_cores
from pipelines.errors import MissingError, StresError, VideoError

Task = TypeVar("Task")
Value = TypeVar("Value")

Report = Callable[[int], None]
"""Told by a task how many further units (frames, pairs) of it are done."""

_PRELOAD = ["numpy", "torch", "cv2", "av", "h5py", "hdf5plugin"]
_PATIENCE = 5.0  # seconds a process gets to end before it is made to
_LOST_STARTS = 3  # processes in a row that may be killed before they come to work


_CANNOT_START = (
    "worker processes cannot start ({}): see their output above; a script that starts a stage must do so under "
    '`if __name__ == "__main__":`, and not be read from standard input'
)


class WorkerDied(VideoError):
    """The process died under its task."""


def run_tasks(
    function: Callable[[Task, Report], Value],
    tasks: Iterable[Task],
    workers: int,
    *,
    on_units: Report = lambda units: None,
) -> Generator[tuple[Task, Value | VideoError], None, None]:
    """Works through `tasks` in `workers` processes; yields each task with its outcome, as they finish. No more tasks
    are taken than there are processes for, so that others may be dealt from the same ones.

    `function(task, report)` must be importable by name, its tasks and values picklable; what it passes to `report`
    arrives at `on_units`. A `VideoError` is the task's outcome, and so are memory running out, any unexpected
    exception, and the death of the process, which is replaced. Every other `StresError` (a full disk, missing weights)
    ends the work and is raised here. When the iteration ends early, for whatever reason, the processes are killed:
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
                pool.append(_Worker(function, threads))
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
        finished = True
    finally:
        _end(pool, gently=finished)


def _with_news(pool: "list[_Worker[Task]]") -> "list[_Worker[Task]]":
    """Waits until a worker has sent something or died."""
    ready = wait([handle for worker in pool for handle in (worker.connection, worker.process.sentinel)])
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

    def __init__(self, function: Callable[[Task, Report], Any], threads: int) -> None:
        start_fork_server()
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, threads), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.started = False
        self.task: Task | None = None

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
        self.task = task
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
                self.started = True
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
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"killed by signal {-code}{hint}"


def start_fork_server() -> None:
    """Starts the process from which all others are forked, if it does not run yet.

    Signals that reach all processes of a command do not reach it: it would end amid its imports, and print where, or
    later, and leave nobody to say when the others have ended.
    Raises `MissingError` where there is no place for its socket.
    """
    forkserver.set_forkserver_preload(_PRELOAD)
    resource_tracker.ensure_running()  # the server would start it, and that lets the signals through again
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
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


def _serve(connection: Connection, function: Callable[[Any, Report], Any], threads: int) -> None:
    """Works until the parent closes the pipe, or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, torchrun and batch systems reach all processes
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    _limit_threads(threads)
    with contextlib.suppress(EOFError, OSError):
        connection.send(("ready", None))
        while True:
            connection.send(_attempt(function, connection.recv(), connection))


def _limit_threads(threads: int) -> None:
    import cv2
    import torch

    cv2.setNumThreads(1)  # one always: DIS gives other flow with other numbers of threads
    torch.set_num_threads(threads)


def _attempt(function: Callable[[Any, Report], Any], task: Any, connection: Connection) -> tuple[str, Any]:
    def report(units: int) -> None:
        connection.send(("units", units))

    try:
        return "done", function(task, report)
    except VideoError as error:
        return "failed", str(error)
    except StresError as error:
        return "raise", (type(error), str(error))
    except MemoryError:
        return "failed", "not enough memory for this video: use fewer --workers"
    except Exception as error:  # one bad video never ends a run
        return "failed", f"unexpected error: {type(error).__name__}: {error}"
