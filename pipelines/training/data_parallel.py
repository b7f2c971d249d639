"""How a training step is divided between the ranks of torchrun, so that their number changes nothing but rounding.

A batch is cut into micro-batches, by its number of places and the recipe alone. Either the ranks deal whole
micro-batches among themselves, and each takes the batch-norm statistics of its own; or they go through every one
together, each with a part of it, and batch norm takes its statistics over all parts (`sync_norm`). Gradients are
averaged by DistributedDataParallel.

Letters: B videos.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.errors import UsageError
from pipelines.models.dropout import VideoDropout
from pipelines.runtime.ranks import Ranks, ranks
from pipelines.training.recipes import Step
from pipelines.training.running_stats import Moments, MomentsOfRanks, MomentsOfUpdate
from pipelines.training.sync_batch_norm import SyncBatchNorm, synchronise


@dataclass(frozen=True)
class Part:
    """What one rank does of one micro-batch.

    number       of the micro-batch in its batch
    first, size  the micro-batch's first place in the batch, and its number of places
    start, stop  this rank's places
    """

    number: int
    first: int
    size: int
    start: int
    stop: int


def even_parts(count: int, largest: int) -> list[tuple[int, int]]:
    """0..count cut into as few parts of at most `largest` as possible, of sizes that differ by one at most. No part is
    a single one where more than one is allowed, which batch norm has no statistics of: then one part fewer is cut."""
    parts = -(-count // largest)
    if largest > 1 and parts > 1 and count < 2 * parts:
        parts -= 1
    cuts = [count * part // parts for part in range(parts + 1)] if parts else []
    return list(itertools.pairwise(cuts))


def parts_of(places: int, micro_batch: int, rank: int = 0, size: int = 1, *, together: bool = False) -> list[Part]:
    """The share of `rank` among `size` in a batch of so many places: whole micro-batches, or a part of each."""
    cuts = list(enumerate(even_parts(places, micro_batch)))
    if not together:
        mine = cuts[len(cuts) * rank // size : len(cuts) * (rank + 1) // size]
        return [Part(number, start, stop - start, start, stop) for number, (start, stop) in mine]
    return [
        Part(
            number,
            start,
            stop - start,
            start + (stop - start) * rank // size,
            start + (stop - start) * (rank + 1) // size,
        )
        for number, (start, stop) in cuts
    ]


def goes_together(step: Step, videos: int, size: int, sync_bn: bool | None) -> bool:
    """Whether `size` ranks go through every micro-batch together: as asked, or where a batch has too few to deal.

    Raises `UsageError` where neither way gives every rank something to do.
    """
    batch = min(step.batch_size, videos * step.passes(videos))
    micro_batches = len(even_parts(batch, step.micro_batch))
    together = size > 1 and (micro_batches < size if sync_bn is None else sync_bn)
    largest = min(step.micro_batch, batch)
    if together and largest < size:
        raise UsageError(
            f"{step.name}: {size} processes cannot share micro-batches of {largest} videos, of which a batch has "
            f"{micro_batches}: start at most {max(micro_batches, largest)}, or give a larger --micro-batch"
        )
    if not together and micro_batches < size:
        raise UsageError(
            f"{step.name}: without --sync-bn {size} processes need as many micro-batches, and a batch has "
            f"{micro_batches} of {step.micro_batch} videos: give a smaller --micro-batch, or --sync-bn"
        )
    return together


class Sharing:
    """One rank's side of a step that all ranks train: what it does of a batch, and what they have to agree on.

    Alone, every method gives back what it is given.
    """

    def __init__(self, step: Step, videos: int, sync_bn: bool | None = None) -> None:
        self.ranks: Ranks = ranks()
        self.micro_batch = step.micro_batch
        self.together = goes_together(step, videos, self.ranks.size, sync_bn)

    @property
    def size(self) -> int:
        return self.ranks.size

    def parts(self, places: int) -> list[Part]:
        """This rank's share of a batch of so many places."""
        return parts_of(places, self.micro_batch, self.ranks.rank, self.size, together=self.together)

    def share(self, batch: Sequence[Any]) -> list[Any]:
        """What stands in this rank's places of a batch."""
        return [batch[place] for part in self.parts(len(batch)) for place in range(part.start, part.stop)]

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over the ranks, and all ranks at rank 0's weights.

        Its running moments stay equal on all ranks by themselves (`moments`, `sync_norm`), so that they need
        not be copied from rank 0 at every step.
        """
        if self.size == 1:
            return model
        wrapped = DistributedDataParallel(model)
        wrapped.broadcast_buffers = False  # the argument of that name is deprecated, what replaces it is new
        return wrapped

    def prepare(self, model: nn.Module) -> Moments:
        """Makes the batch norms of `model` fit the way of sharing; gives what moves their running moments."""
        if self.together:
            synchronise(model)
        return MomentsOfRanks(model) if self.size > 1 and not self.together else MomentsOfUpdate(model)

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all ranks, in double precision."""
        return self._reduced(values, "SUM")

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of all ranks."""
        return self._reduced(values, "MAX")

    def _reduced(self, values: Sequence[float], operation: str) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(tensor, getattr(distributed.ReduceOp, operation))
        return tensor.tolist()

    def gather(self, content: Any) -> list[Any]:
        """The `content` of all ranks, in their order."""
        found = [content] * self.size
        if self.size > 1:
            distributed.all_gather_object(found, content)
        return found

    def from_first(self, content: Any) -> Any:
        """Rank 0's `content`, with its tensors, on all ranks."""
        if self.size == 1:
            return content
        box = [content]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


def without_exchange(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """While this holds, gradients only add up; those of the backward pass after it are averaged with them."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()


@contextlib.contextmanager
def taking_no_part(model: nn.Module) -> Iterator[None]:
    """For a pass through the network with which a rank that has no video only keeps up with the others: nothing is
    dropped, batch norm learns nothing from it, and synchronised batch norm does not count it."""
    synchronised = [module for module in model.modules() if isinstance(module, SyncBatchNorm)]
    others = [
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d | VideoDropout) and not isinstance(module, SyncBatchNorm)
    ]
    for norm in synchronised:
        norm.absent = True
    for module in others:
        module.eval()
    try:
        yield
    finally:
        for norm in synchronised:
            norm.absent = False
        for module in others:
            module.train()
