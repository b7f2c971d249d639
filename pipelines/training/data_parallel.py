"""Data-parallel training under torchrun: everything that the processes of one training have to agree on.

A batch is cut into micro-batches by the number of videos requested and the recipe alone, so that the number of
processes changes nothing but rounding. Either whole micro-batches are dealt out to the processes, and batch norm takes
its statistics over each; or every process takes a shard of each micro-batch, and batch norm takes its statistics over
all shards (`sync_batch_norm`). DistributedDataParallel averages the gradients.

Letters: B videos.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.datasets.samples import Batch
from pipelines.errors import UsageError
from pipelines.interface.wording import plural
from pipelines.models import STResNet
from pipelines.models.dropout import VideoDropout
from pipelines.models.normalise import INPUTS
from pipelines.runtime.ranks import Ranks, ranks
from pipelines.training.recipes import Step
from pipelines.training.sync_batch_norm import SyncBatchNorm, convert_batch_norm

_SMALLEST_INPUT = 32  # pixels a side


@dataclass(frozen=True)
class MicroBatchShard:
    """The positions of a batch that one process takes of one micro-batch."""

    number: int
    """The micro-batch's number in the batch."""
    first: int
    """The micro-batch's first position in the batch."""
    size: int
    """Positions of the whole micro-batch."""
    start: int
    """First position of this process."""
    stop: int
    """One past its last position; equal to `start` where it has none."""


@dataclass(frozen=True)
class LocalMicroBatch:
    """What one process passes through the network for one micro-batch, or for several of equal size at once."""

    batch: Batch
    """The readable videos; where there are none, a blank one for a pass that contributes nothing."""
    videos: int
    """Videos of it that count: 0 for a blank one."""
    number: int
    """The (first) micro-batch's number in the batch."""
    positions: list[int]
    """The videos' positions in the whole micro-batch."""
    size: int
    """Positions of the whole micro-batch."""
    share: float
    """The fraction of the batch's readable videos that is in the whole micro-batch, or in all of them."""
    is_last: bool
    """Whether it is the process's last one of the batch, with which gradients are exchanged."""
    count: int = 1
    """How many micro-batches it is of."""


def joined_passes(parts: Sequence[LocalMicroBatch], most: int) -> list[LocalMicroBatch]:
    """Joins up to `most` neighbouring micro-batches of equally many videos, so that there are few sizes of passes."""
    found: list[LocalMicroBatch] = []
    for _, run in itertools.groupby(parts, lambda part: part.videos):
        alike = list(run)
        for start, stop in _ranges(len(alike), -(-len(alike) // most)):
            some = alike[start:stop]
            found.append(
                replace(
                    some[-1],
                    batch=Batch.joined([part.batch for part in some]),
                    videos=sum(part.videos for part in some),
                    share=sum(part.share for part in some),
                    count=len(some),
                )
                if len(some) > 1
                else some[0]
            )
    return found


def micro_batch_ranges(count: int, largest: int) -> list[tuple[int, int]]:
    """Cuts 0..count into as few ranges of at most `largest` as possible, whose sizes differ by at most one.

    Batch norm has no statistics of a single video: where more than one is allowed, one range fewer is cut instead.

    Args:
        count: Positions of a batch.
        largest: Most positions of a micro-batch.

    Returns:
        Start and stop of each.
    """
    parts = -(-count // largest)
    if largest > 1 and parts > 1 and count < 2 * parts:
        parts -= 1
    return _ranges(count, parts)


def _ranges(count: int, parts: int) -> list[tuple[int, int]]:
    """0..count in parts whose sizes differ by at most one."""
    cuts = [count * part // parts for part in range(parts + 1)] if parts else []
    return list(itertools.pairwise(cuts))


def micro_batch_shards(
    count: int, micro_batch: int, rank: int = 0, size: int = 1, *, sync_bn: bool = False
) -> list[MicroBatchShard]:
    """What one process takes of a batch.

    Args:
        count: Positions of the batch.
        micro_batch: Most positions of a micro-batch.
        rank: Number of the process.
        size: Number of processes.
        sync_bn: Whether it takes a shard of every micro-batch, rather than some micro-batches whole.
    """
    ranges = list(enumerate(micro_batch_ranges(count, micro_batch)))
    if not sync_bn:
        mine = ranges[len(ranges) * rank // size : len(ranges) * (rank + 1) // size]
        return [MicroBatchShard(number, start, stop - start, start, stop) for number, (start, stop) in mine]
    found = []
    for number, (first, end) in ranges:
        start, stop = (first + (end - first) * each // size for each in (rank, rank + 1))
        found.append(MicroBatchShard(number, first, end - first, start, stop))
    return found


def uses_sync_bn(step: Step, videos: int, size: int, sync_bn: bool | None) -> bool:
    """Whether processes share every micro-batch: as asked, or where a batch has too few micro-batches to deal out.

    Args:
        videos: Number of training videos.
        size: Number of processes.
        sync_bn: What was asked for; None for no preference.

    Raises:
        UsageError: Neither way gives every process something to do.
    """
    batch = min(step.batch_size, videos * step.passes(videos))
    micro_batches = len(micro_batch_ranges(batch, step.micro_batch))
    shared = size > 1 and (micro_batches < size if sync_bn is None else sync_bn)
    largest = min(step.micro_batch, batch)
    if shared and largest < size:
        raise UsageError(
            f"{step.name}: {size} processes cannot share micro-batches of {plural(largest, 'video')}, of which a "
            f"batch has {micro_batches}: start at most {max(micro_batches, largest)}, or give a larger --micro-batch"
        )
    if not shared and micro_batches < size:
        raise UsageError(
            f"{step.name}: without --sync-bn {size} processes need as many micro-batches, and a batch has "
            f"{micro_batches} of {plural(step.micro_batch, 'video')}: give a smaller --micro-batch, or --sync-bn"
        )
    return shared


class DataParallelPlan:
    """How one process takes part in a training step; without torchrun it does the whole of it."""

    def __init__(self, step: Step, videos: int, sync_bn: bool | None = None) -> None:
        """Raises `UsageError` where a process would have nothing to do (`uses_sync_bn`)."""
        self.ranks: Ranks = ranks()
        self.step = step
        self.sync_bn = uses_sync_bn(step, videos, self.ranks.size, sync_bn)

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.ranks.size

    @property
    def deals_micro_batches(self) -> bool:
        """Whether each of several processes has micro-batches of its own."""
        return self.size > 1 and not self.sync_bn

    # ------------------------------------------------------------------ batches

    def shards(self, count: int) -> list[MicroBatchShard]:
        """This process's part of a batch of `count` positions."""
        return micro_batch_shards(count, self.step.micro_batch, self.ranks.rank, self.size, sync_bn=self.sync_bn)

    def local_items(self, batch: Sequence[Any]) -> list[Any]:
        """Those items of a whole batch that this process loads: of its shards, end to end."""
        return [batch[position] for shard in self.shards(len(batch)) for position in range(shard.start, shard.stop)]

    def micro_batches(self, batch: Batch, model: STResNet) -> tuple[list[LocalMicroBatch], int, int]:
        """Cuts what this process has loaded into what it passes through the network.

        Positions are cut, not readable videos, so that a damaged video moves no other one into another micro-batch. Of
        a micro-batch in which a single video is readable nothing is used, since batch norm has no statistics of one.

        Args:
            batch: Of the items of `local_items`, the readable ones.
            model: Whose input blank videos are made for.

        Returns:
            At least one micro-batch, unless no process has a readable video; the number of micro-batches of all
            processes that are used; and the number of their videos.
        """
        requested = int(self.sum([batch.requested])[0])
        sizes = [stop - start for start, stop in micro_batch_ranges(requested, self.step.micro_batch)]
        shards = self.shards(requested)
        local: list[tuple[MicroBatchShard, Batch, list[int]]] = []
        videos = [0.0] * len(sizes)
        start = 0
        for shard in shards:
            stop = start + shard.stop - shard.start
            readable = [position for position in range(start, stop) if position not in batch.missing_positions]
            positions = [position - start + shard.start - shard.first for position in readable]
            local.append((shard, batch.requested_range(start, stop), positions))
            videos[shard.number] = len(readable)
            start = stop
        videos = [0 if n == 1 < size else n for n, size in zip(self.sum(videos), sizes, strict=True)]
        total = int(sum(videos))
        used = [shard for shard in local if videos[shard[0].number]]
        found = [
            LocalMicroBatch(
                content if positions else self._blank(model),
                len(positions),
                shard.number,
                positions,
                shard.size,
                videos[shard.number] / total,
                is_last=index == len(used) - 1,
            )
            for index, (shard, content, positions) in enumerate(used)
        ]
        if total and not found:  # all of them went to others, who wait for this process when they exchange gradients
            found = [LocalMicroBatch(self._blank(model), 0, 0, [], 1, 0.0, is_last=True)]
        return found, sum(n > 0 for n in videos), total

    def _blank(self, model: STResNet) -> Batch:
        """One video of zeros, small."""
        rgb, flow = (
            torch.zeros(1, self.step.frames, channels, _SMALLEST_INPUT, _SMALLEST_INPUT, dtype=INPUTS[name].type)
            for name, channels in (("rgb", 3), ("flow", model.flow_channels))
        )
        nothing = torch.zeros(1, dtype=torch.int64)
        return Batch(
            rgb if "appearance" in self.step.inputs else None,
            flow if "motion" in self.step.inputs else None,
            nothing,
            nothing,
        )

    # ------------------------------------------------------------------ the network

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over the processes, all of which start from rank 0's weights.

        Batch norm's running statistics stay equal on all processes by themselves (`running_stats`, `sync_batch_norm`),
        so that they need not be copied from rank 0 before every forward pass.
        """
        if self.sync_bn:
            convert_batch_norm(model)
        if self.size == 1:
            return model
        wrapped = DistributedDataParallel(model)
        wrapped.broadcast_buffers = False  # the argument of that name is deprecated, what replaces it is new
        return wrapped

    @contextlib.contextmanager
    def taking_part(self, wrapped: nn.Module, micro_batch: LocalMicroBatch) -> Iterator[None]:
        """For the forward and backward pass of a micro-batch through the network that `wrap` gave.

        Gradients only add up until the process's last micro-batch. A blank one contributes nothing.
        """
        with contextlib.ExitStack() as contexts:
            if isinstance(wrapped, DistributedDataParallel) and not micro_batch.is_last:
                contexts.enter_context(wrapped.no_sync())
            if not micro_batch.videos:
                contexts.enter_context(zero_contribution(wrapped))
            yield

    # ------------------------------------------------------------------ values

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes, in double precision."""
        return self._reduced(values, "SUM")

    def max(self, values: Sequence[float]) -> list[float]:
        """The largest of all processes."""
        return self._reduced(values, "MAX")

    def _reduced(self, values: Sequence[float], operation: str) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(tensor, getattr(distributed.ReduceOp, operation))
        return tensor.tolist()

    def gather(self, content: Any) -> list[Any]:
        """The `content` of all processes, in their order."""
        found = [content] * self.size
        if self.size > 1:
            distributed.all_gather_object(found, content)
        return found

    def broadcast_from_rank0(self, content: Any) -> Any:
        """Rank 0's `content`, with its tensors, on all processes."""
        if self.size == 1:
            return content
        box = [content]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


@contextlib.contextmanager
def zero_contribution(model: nn.Module) -> Iterator[None]:
    """For a pass through the network that a process without a video makes because the others wait for it.

    DistributedDataParallel exchanges gradients in the backward pass, and synchronised batch norm statistics in both, so
    that every process has to make as many passes. DDP's own `join` would let one that has none stop early, but
    exchanges nothing for layers inside the network. Nothing is dropped, batch norm learns nothing from the pass, and
    synchronised batch norm does not count it.
    """
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
