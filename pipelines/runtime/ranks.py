"""The processes (ranks) that torchrun started for one command, and the values they exchange.

    torchrun --nnodes=4 --nproc-per-node=8 ... -m stres_cli extract-flow videos/

Everything but gradients goes through torchrun's rendezvous store: no files, no locks, one machine or many. Rank 0
speaks for all and writes what is written once. Without torchrun there is a single rank, whose methods only call what
they are given, and torch.distributed is not imported.

Values are pickled, as by torch.distributed's own functions for objects. All ranks must call the methods in the same
order.
"""

import contextlib
import functools
import itertools
import os
import pickle
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import MissingError
from pipelines.interface.wording import plural
from pipelines.runtime.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

Value = TypeVar("Value")
Outcome = TypeVar("Outcome")

_PIECE = 4 * 2**20  # bytes; the store takes no values above 8 MiB
_SHORTEST, _LONGEST = 0.005, 0.25  # seconds between two polls of the store
_PATIENCE = 5.0  # seconds for another rank to report its error


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@functools.cache
def ranks() -> "Ranks":
    """The ranks of this process's job; a single one without torchrun."""
    if not launched():
        return Ranks()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Ranks(*(int(os.environ[name]) for name in names))


class Ranks:
    """This process (`rank` of `size`, `local_rank` of `local_size` on its machine) and its exchange with the others."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self._calls = itertools.count()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def speaker(self, on_progress: OnProgress) -> OnProgress:
        """`on_progress` on rank 0, which speaks for all; on the others one that tells nothing."""
        return on_progress if self.is_first else ignore_progress

    # -------------------------------------------------------------- exchanging values

    def broadcast_from_rank0(self, function: Callable[[], Value]) -> Value:
        """Calls `function` on rank 0 only and returns its value on all ranks; the others wait for it."""
        if self.size == 1:
            return function()
        key = self._key()
        if not self.is_first:
            return self._wait(key)
        value = function()
        self._put(key, value)
        return value

    def rank0_first(self, function: Callable[[], Value]) -> Value:
        """Calls `function` on every rank, on rank 0 before the others: they find what it left on disk."""
        if not self.is_first:
            self.broadcast_from_rank0(lambda: None)
            return function()
        value = function()
        self.broadcast_from_rank0(lambda: None)
        return value

    def gather(self, value: Value) -> list[Value]:
        """Returns the `value` of every rank, in the order of the ranks, on all of them."""
        if self.size == 1:
            return [value]
        key = self._key()
        self._put(f"{key}/{self.rank}", value)
        return [self._wait(f"{key}/{rank}") for rank in range(self.size)]

    # -------------------------------------------------------------- sharing work

    def pool(
        self, count: int, work: Callable[[Iterator[int]], Generator[Outcome]]
    ) -> Generator[tuple[int, Outcome], None, None]:
        """Shares the tasks 0..count-1 among the ranks; a rank that is ready takes the next one.

        Args:
            count: Number of tasks.
            work: Given an iterator of task numbers, yields one outcome for each number it takes.

        Yields:
            On rank 0 (rank, outcome) of every task as it finishes; on the others, which only do their share, nothing.
            Use `contextlib.closing`.
        """
        if self.size == 1:
            with contextlib.closing(work(iter(range(count)))) as outcomes:
                yield from ((0, outcome) for outcome in outcomes)
            return
        mailbox, counter = _Mailbox(self, self._key()), self._key()
        dealt = (self.store.add(counter, 1) - 1 for _ in itertools.count())
        numbers = itertools.takewhile(lambda number: number < count, dealt)
        with contextlib.closing(work(numbers)) as own:
            if not self.is_first:
                for outcome in own:
                    mailbox.send(outcome)
                return
            arrived = 0
            for outcome in own:
                yield 0, outcome
                for letter in mailbox.delivered():
                    yield letter
                    arrived += 1
                arrived += 1
        pause = _Pause()
        while arrived < count:
            for letter in mailbox.delivered():
                yield letter
                arrived += 1
                pause = _Pause()
            pause()

    # -------------------------------------------------------------- errors

    @contextlib.contextmanager
    def report_error_once(self) -> Iterator[bool]:
        """Gives whether this rank is the first to fail, and so the one to report its error within the block.

        torchrun ends the other ranks because of it; they wait until the report is done.
        """
        if self.size == 1:
            yield True
            return
        try:
            mine = self.store.add("failed", 1) == 1
        except RuntimeError:  # no store, nobody to agree with
            yield True
            return
        if mine:
            yield True
            self.store.set("reported", "")
            return
        deadline = time.monotonic() + _PATIENCE
        while not self.store.check(["reported"]) and time.monotonic() < deadline:
            time.sleep(_SHORTEST)
        yield False

    # -------------------------------------------------------------- torch.distributed

    @functools.cached_property
    def store(self) -> "Store":
        """The store of torchrun's rendezvous."""
        from torch import distributed

        store, _, _ = next(distributed.rendezvous("env://"))
        return distributed.PrefixStore("stres", store)

    @contextlib.contextmanager
    def process_group(self, device: "torch.device") -> Iterator[None]:
        """torch.distributed's process group for the block: NCCL between GPUs, gloo between CPUs.

        After an error the group is left as it is, since the process ends soon: destroying it would make the other
        ranks fail because of that before this one has reported what went wrong.
        """
        if self.size == 1:
            yield
            return
        import torch
        from torch import distributed

        if device.type == "cuda":
            torch.cuda.set_device(device)
        if distributed.is_initialized():  # of a block that ended with an error
            distributed.destroy_process_group()
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=distributed.PrefixStore(self._key(), self.store),
            rank=self.rank,
            world_size=self.size,
        )
        yield
        distributed.destroy_process_group()

    # -------------------------------------------------------------- values in the store

    def _key(self) -> str:
        return f"call{next(self._calls)}"

    def _put(self, key: str, value: Any) -> None:
        """Stores `value` in pieces, their number last: once that is there, all are."""
        data = pickle.dumps(value)
        pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        for number, piece in enumerate(pieces):
            self.store.set(f"{key}/piece{number}", piece)  # type: ignore[arg-type]  # it takes bytes too
        self.store.set(key, str(len(pieces)))

    def _wait(self, key: str) -> Any:
        """The value stored under `key`, once it is there; a signal interrupts."""
        pause = _Pause()
        while not self.store.check([key]):
            pause()
        return pickle.loads(b"".join(self.store.get(name) for name in self._pieces(key)))

    def _pieces(self, key: str) -> list[str]:
        return [f"{key}/piece{number}" for number in range(int(self.store.get(key)))]


class _Mailbox:
    """Letters of all ranks to rank 0, each delivered once."""

    def __init__(self, ranks: Ranks, key: str) -> None:
        self.ranks, self.key = ranks, key
        self.read = 0

    def send(self, value: Any) -> None:
        number = self.ranks.store.add(f"{self.key}/sent", 1) - 1
        self.ranks._put(f"{self.key}/{number}", (self.ranks.rank, value))

    def delivered(self) -> Iterator[Any]:
        """What has arrived since the last call."""
        store = self.ranks.store
        sent = store.add(f"{self.key}/sent", 0)
        while self.read < sent:
            key = f"{self.key}/{self.read}"
            self.read += 1
            yield self.ranks._wait(key)
            for name in (*self.ranks._pieces(key), key):  # read only once: free the store of it
                store.delete_key(name)


class _Pause:
    """Sleeps a little, longer each time."""

    def __init__(self) -> None:
        self.seconds = _SHORTEST

    def __call__(self) -> None:
        time.sleep(self.seconds)
        self.seconds = min(_LONGEST, 1.5 * self.seconds)


def local_gpu(count: int) -> int:
    """Returns the index of this rank's GPU among the machine's `count`.

    Raises:
        MissingError: The machine has more ranks than GPUs.
    """
    here = ranks()
    if here.local_rank >= count:
        raise MissingError(
            f"torchrun started {plural(here.local_size, 'process')} on a machine with {plural(count, 'GPU')}: give "
            f"--nproc-per-node={count}, or --device cpu"
        )
    return here.local_rank
