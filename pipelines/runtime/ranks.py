"""The processes that torchrun started for one command, and what they tell each other.

    torchrun --nnodes=4 --nproc-per-node=8 ... -m stres_cli extract-flow videos/

Everything but the gradients goes through torchrun's rendezvous store: no files, no locks, one machine or many. Each
process is a rank; rank 0 speaks for all and writes what is written once. Without torchrun there is one rank, its
methods do nothing but call what they are given, and torch.distributed is not imported.

Values travel pickled between the processes of one job, as in torch.distributed's own functions for objects. All ranks
call the methods in the same order.
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

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

Value = TypeVar("Value")
Outcome = TypeVar("Outcome")

_PIECE = 4 * 2**20  # bytes; the store takes no values above 8 MiB
_SHORTEST, _LONGEST = 0.005, 0.25  # seconds between two looks at the store
_PATIENCE = 5.0  # seconds for another rank to tell its error


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
    """One process among `size`: its number `rank`, and its place among those of its machine."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self._calls = itertools.count()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    # -------------------------------------------------------------- one for all

    def first_tells(self, function: Callable[[], Value]) -> Value:
        """What `function()` gives on rank 0, on all ranks; the others wait for it and call nothing."""
        if self.size == 1:
            return function()
        key = self._key()
        if self.is_first:
            value = function()
            self._put(key, value)
            return value
        return self._wait(key)

    def first_then_others(self, function: Callable[[], Value]) -> Value:
        """`function()` on every rank, but on the others once rank 0 is done: what it left on disk they find."""
        if self.is_first:
            value = function()
            self.first_tells(lambda: None)
            return value
        self.first_tells(lambda: None)
        return function()

    def gather(self, value: Value) -> list[Value]:
        """Every rank's `value` in their order, on all ranks."""
        if self.size == 1:
            return [value]
        key = self._key()
        self._put(f"{key}/{self.rank}", value)
        return [self._wait(f"{key}/{rank}") for rank in range(self.size)]

    # -------------------------------------------------------------- many share

    def pool(
        self, count: int, work: Callable[[Iterator[int]], Generator[Outcome]]
    ) -> Generator[tuple[int, Outcome], None, None]:
        """Works through the numbers 0..count-1, each on exactly one rank; whoever is ready takes the next.

        `work(numbers)` yields one outcome for each number it takes. Rank 0 gets (rank, outcome) of all of them, as they
        come; on the others the iteration does their share and yields nothing. Use `contextlib.closing`.
        """
        if self.size == 1:
            with contextlib.closing(work(iter(range(count)))) as outcomes:
                yield from ((0, outcome) for outcome in outcomes)
            return
        post = _Post(self, self._key())
        with contextlib.closing(work(self._deal(self._key(), count))) as own:
            if not self.is_first:
                for outcome in own:
                    post.send(outcome)
                return
            arrived = 0
            for outcome in own:
                yield 0, outcome
                for letter in post.delivered():
                    yield letter
                    arrived += 1
                arrived += 1
        pause = _Pause()
        while arrived < count:
            for letter in post.delivered():
                yield letter
                arrived += 1
                pause = _Pause()
            pause()

    def _deal(self, key: str, count: int) -> Iterator[int]:
        while (number := self.store.add(key, 1) - 1) < count:
            yield number

    # -------------------------------------------------------------- errors

    @contextlib.contextmanager
    def telling_an_error(self) -> Iterator[bool]:
        """Gives whether this rank is the first to end with an error, which it is to tell in the block. The others,
        which torchrun ends because of it, wait until that is done."""
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
            self.store.set("told", "")
            return
        deadline = time.monotonic() + _PATIENCE
        while not self.store.check(["told"]) and time.monotonic() < deadline:
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
        """While the block runs, torch.distributed's process group: NCCL between GPUs, gloo between CPUs.

        After an error it is left as it is, since the process ends soon: taking it down would make the others
        fail of that before this rank has told what went wrong.
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
        """Stores `value` in pieces, the number of them last: who finds that finds all."""
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
        return self._take(key)

    def _take(self, key: str) -> Any:
        count = int(self.store.get(key))
        return pickle.loads(b"".join(self.store.get(f"{key}/piece{number}") for number in range(count)))

    def _forget(self, key: str) -> None:
        """Frees the store of a value that nobody else reads."""
        for number in range(int(self.store.get(key))):
            self.store.delete_key(f"{key}/piece{number}")
        self.store.delete_key(key)


class _Post:
    """Letters of all ranks to rank 0, each delivered once."""

    def __init__(self, ranks: Ranks, key: str) -> None:
        self.ranks, self.key = ranks, key
        self.read = 0

    def send(self, value: Any) -> None:
        number = self.ranks.store.add(f"{self.key}/sent", 1) - 1
        self.ranks._put(f"{self.key}/{number}", (self.ranks.rank, value))

    def delivered(self) -> Iterator[Any]:
        """What has arrived since the last time."""
        sent = self.ranks.store.add(f"{self.key}/sent", 0)
        while self.read < sent:
            key = f"{self.key}/{self.read}"
            self.read += 1
            yield self.ranks._wait(key)
            self.ranks._forget(key)


class _Pause:
    """Waits a little, longer each time."""

    def __init__(self) -> None:
        self.seconds = _SHORTEST

    def __call__(self) -> None:
        time.sleep(self.seconds)
        self.seconds = min(_LONGEST, 1.5 * self.seconds)


def local_gpu(count: int) -> int:
    """The GPU of this rank among the machine's `count`. Raises `MissingError` where there are fewer than ranks."""
    here = ranks()
    if here.local_rank >= count:
        raise MissingError(
            f"torchrun started {here.local_size} processes on a machine with {count} GPUs: give "
            f"--nproc-per-node={count}, or --device cpu"
        )
    return here.local_rank
