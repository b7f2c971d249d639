"""What the tests make worker processes do: importable by name, as `run_tasks` needs it."""

import gc
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import MissingError, StorageError, VideoError
from pipelines.runtime.worker_pool import Report


def obey(task: tuple[str, str], report: Report) -> str:
    """Does what the task says; its second part is an argument."""
    order, argument = task
    if order == "kill":
        os.kill(os.getpid(), int(argument))
    elif order == "exit":
        os._exit(int(argument))
    elif order == "video error":
        raise VideoError(argument)
    elif order == "memory":
        raise MemoryError
    elif order == "bug":
        raise KeyError(argument)
    elif order == "missing":
        raise MissingError(argument)
    elif order == "storage":
        raise StorageError(argument)
    elif order == "report":
        for _ in range(int(argument)):
            report(2)
    elif order == "slow report":
        for _ in range(int(argument)):
            time.sleep(0.5)
            report(1)
    elif order == "nap":
        for _ in range(int(argument)):
            time.sleep(0.05)
            report(1)
        return str(os.getpid())
    elif order == "take":
        _take(argument, 1 << 30)
    elif order == "pid":
        return str(os.getpid())
    elif order == "garbage":
        return f"looked for: {gc.isenabled()}, never looked at: {gc.get_freeze_count() > 100_000}"
    elif order == "hang":
        report(os.getpid())
        while True:
            time.sleep(60)
    elif order == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    return argument


def _take(what: str, size: int) -> None:
    if what == "bytes":
        bytearray(size)
    else:
        import torch

        torch.zeros(size, dtype=torch.uint8)


def store_or_die(task: object, report: Report) -> int:
    """Stores a flow task, but dies half-way through a video called `deadly`, leaving its temporary file."""
    from pipelines.optical_flow import store as extraction

    assert isinstance(task, extraction.FlowTask)
    if task.source.video != "deadly":
        return extraction.store_flow(task, report)
    with extraction.new_flow_file(task.target) as writer:
        assert list(Path(writer.path.parent).glob(".deadly.h5.tmp-*"))
        os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def store_or_die_amid(task: Any, report: Report) -> int:
    """Stores a flow task; of a video called `deadly` only the first batch."""
    from pipelines.optical_flow.store import store_flow

    def die(units: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return store_flow(task, die if task.source.video == "deadly" else report)


def store_one_and_die(tasks: Sequence[Any], report: Report) -> list[int | VideoError]:
    """Stores the frames of the first of some segments, and dies of the second."""
    from pipelines.jobs import frames

    frames.store_segments(tasks[:1], report)
    os.kill(os.getpid(), signal.SIGSEGV)
    return []


def die(task: object, report: Report) -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def square_or_die(number: int) -> int:
    """What `parallel_map` is given: dies of 5, refuses 100."""
    if number == 5:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 100:
        raise MissingError("there is no hundred")
    return number * number


class DiesOnArrival:
    """Kills the process that receives it, before that comes to work, so many times; says its task afterwards."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times = folder, times

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.folder.mkdir(exist_ok=True)
        if len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, task: tuple[str, str], report: Report) -> str:
        return task[1]


def probe_or_die(task: Any, place: float | None, report: Report) -> Any:
    """Probes a video for a dry run, but dies of one called `deadly`."""
    from pipelines.jobs.task import Probe

    if task.source.video == "deadly":
        os.kill(os.getpid(), signal.SIGABRT)
    return Probe(8) if place is None else Probe(8, 0.1, 100.0)


def never_ready(*arguments: object) -> None:
    """In the place of a worker process that hangs at its start."""
    time.sleep(3600)
