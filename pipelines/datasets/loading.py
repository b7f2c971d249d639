"""Samples made by fresh processes, in the order asked for."""

import copy
import itertools
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipelines.datasets.catalogue import Video
from pipelines.datasets.sampler import Item
from pipelines.datasets.samples import BadSample, Batch, Sample, TestSamples, TrainingSamples, collate
from pipelines.errors import MissingError
from pipelines.interface.wording import plural
from pipelines.runtime.parcel import Parcel
from pipelines.runtime.signals import STOP_SIGNALS, stop_requests
from pipelines.runtime.worker_pool import Limits, start_fork_server

# ------------------------------------------------------------------ loaders

Loaded = TypeVar("Loaded")

_TICK = 5.0  # seconds between two looks at whether the processes still live
SAMPLES_AT_ONCE = 4  # of a batch, which a process makes and ships together: what is on its way takes memory


def make_loader(
    dataset: TrainingSamples | TestSamples,
    sampler: Iterable[list[Item]] | Iterable[int],
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterable[Any]:
    """Loads samples in the order of a sampler, whatever the number of processes.

    These are fresh processes of a fork server: a fork of this one would inherit its CUDA context and thread locks.

    Args:
        dataset: Training samples, which come as `Batch`, or test samples, which come one by one.
        sampler: A `StepSampler` for training samples, indices for test samples. It is gone over once.
        workers: Loader processes; 0 loads in this one.
        device: Where the samples will go: for a GPU they come in pinned memory.
    """
    # A generator of its own: the loader draws a seed when it starts, which must not move the one that dropout uses.
    options: dict[str, Any] = {"num_workers": workers, "generator": torch.Generator().manual_seed(0)}
    options["pin_memory"] = torch.device(device).type == "cuda"
    if workers > 0:
        options |= {"multiprocessing_context": "forkserver", "worker_init_fn": _start_worker, "prefetch_factor": 2}
        _require_room_for_semaphores(workers)
        start_fork_server()
    if isinstance(dataset, TrainingSamples):
        return _batches(dataset, cast("Iterable[list[Item]]", sampler), options)
    requests = (dataset.request(index) for index in cast("Iterable[int]", sampler))
    return _loaded(DataLoader(_Maker(dataset), batch_size=None, sampler=requests, collate_fn=_shipped, **options))


def _batches(dataset: TrainingSamples, sampler: Iterable[list[Item]], options: Mapping[str, Any]) -> Iterator[Batch]:
    """Batches put together from parts, on which all processes work: at a batch of 128 samples each would otherwise
    have two of its own in the making."""
    counts: deque[int] = deque()  # of the parts of each batch that is in the making

    def parts() -> Iterator[list[Any]]:
        for items in sampler:
            starts = range(0, max(1, len(items)), SAMPLES_AT_ONCE)  # a rank's share of a small batch may be none
            counts.append(len(starts))
            for start in starts:
                yield [dataset.request(item) for item in items[start : start + SAMPLES_AT_ONCE]]

    loader = DataLoader(_Maker(dataset), batch_sampler=parts(), collate_fn=_collated, **options)
    loaded: Iterator[Batch] = _loaded(loader)
    for first in loaded:
        yield Batch.joined([first, *itertools.islice(loaded, counts.popleft() - 1)])


def _require_room_for_semaphores(workers: int) -> None:
    """Raises `MissingError` where /dev/shm does not take what torch needs, which would come to a stop half way: each of
    its queues has three semaphores, of a page each, and its event five."""
    context = multiprocessing.get_context("fork")  # whose semaphores have no name, so that nothing is left of them
    try:
        _ = [context.Lock() for _ in range(8 + 3 * workers)]
    except OSError as error:
        loaders = plural(workers, "process that loads videos", "processes that load videos")
        raise MissingError(
            f"/dev/shm takes no semaphores ({error.strerror}), and {loaders} cannot start without: make it writable, "
            "free some space there (in Docker with --shm-size=1g), or load in this process with --workers 0"
        ) from error


class _Maker(Dataset[Any]):
    """What makes samples, without the videos: each comes along with its request, so that a loader process need not be
    given 200,000 of them."""

    def __init__(self, dataset: TrainingSamples | TestSamples) -> None:
        self.dataset = copy.copy(dataset)
        self.dataset.videos, self.dataset.labels = [], []

    def __getitem__(self, request: tuple[Any, Video, int]) -> Any:
        return self.dataset.make(*request)


class _Watch(threading.Thread):
    """Ends the processes of a loader once it has been waited for them for `Limits.patience` seconds.

    torch's own timeout does not count while a process is asked for the memory of what it has loaded, which one that was
    stopped (SIGSTOP) never answers. Tick by tick: all of us may have been stopped for hours.
    """

    def __init__(self, processes: Sequence[Any]) -> None:
        super().__init__(daemon=True)
        self.processes = processes
        self.waited: float | None = None  # None: nobody waits
        self.ended = False
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(_TICK):
            if self.waited is not None:
                self.waited += _TICK
                if self.waited >= Limits.patience:
                    self.ended = True
                    for process in self.processes:
                        process.kill()
                    return


def _loaded(loader: Iterable[Loaded]) -> Iterator[Loaded]:
    """What the loader gives. Raises `MissingError` where one of its processes dies, or where none of them has loaded
    anything for `Limits.patience` seconds. However the iteration ends, they have ended after it."""
    with stop_requests() as request:  # or what a process needs to start would be gone, and it would print where it died
        loaded = iter(loader)
    processes = getattr(loaded, "_workers", [])
    watch = _Watch(processes)
    if processes:
        watch.start()
    try:
        if request.signal_number is not None:
            signal.raise_signal(request.signal_number)
        while True:
            watch.waited = 0.0
            try:
                item = next(loaded)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, EOFError) as error:
                text = str(error)
                if watch.ended:
                    raise MissingError(
                        f"the processes that load videos have loaded nothing for {Limits.patience:g} s and were ended: "
                        "see whether the disk answers; the same command continues, and --workers 0 loads in this "
                        "process"
                    ) from error
                if text.startswith("Too many open files"):
                    raise MissingError(
                        "the processes that load videos have too many open files: raise the limit (ulimit -n 4096) or "
                        "use fewer --workers; the same command continues"
                    ) from error
                # What a process that has just died had loaded may be asked for before torch knows of its end.
                if not isinstance(error, RuntimeError) or text.startswith("DataLoader worker"):
                    raise MissingError(
                        f"a process that loads videos died, probably out of memory ({error}): the same command "
                        "continues; fewer --workers need less"
                    ) from error
                raise
            watch.waited = None
            yield item
    finally:
        watch.stop.set()
        if processes:
            loaded._shutdown_workers()  # type: ignore[attr-defined]
        # One that hangs would be waited for at this process's end: they ignore the SIGTERM that torch sends.
        for process in processes:
            if process.is_alive():
                process.kill()


def _shipped(loaded: Any) -> Any:
    """What has been loaded, on its way out of a loader process."""
    return loaded if get_worker_info() is None else Parcel(loaded)


def _collated(samples: Sequence[Sample | BadSample]) -> Any:
    return _shipped(collate(samples))


def _start_worker(worker: int) -> None:
    """One thread a worker: OpenCV's and torch's own pools would only fight over the same cores. Signals that reach all
    processes (Ctrl-C, torchrun, batch systems) are the parent's to answer: it still wants the batch of its last update.
    """
    import cv2

    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
