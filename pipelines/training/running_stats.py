"""Batch norm's running moments under accumulated gradients: they move once an update, as the authors' do.

Torch moves them at every forward pass. In MatConvNet the moments of the sub-batches of an update add up like gradients,
weighted by their videos, and the running ones take that mean once, with the weight 0.05 (paper.md 3.2). With 32
micro-batches an update torch's rule would give the update the weight 1 - 0.95^32 = 0.81, most of it to the last few.

Letters: K channels of all batch norms together.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, distributed, nn


class Moments(Protocol):
    """Moves the running moments of a model once an update."""

    def of_batch(self, shares: Sequence[float]) -> contextlib.AbstractContextManager[None]:
        """Around the micro-batches of an update; `shares`: of each one in the update's videos, 0: left out."""

    def collect(self, number: int) -> None:
        """To be called after micro-batch `number`."""


class MomentsOfUpdate:
    """Where this process goes through every micro-batch: lets the running moments move from the same place in each,
    then takes the mean of where they came to. Nothing is done, or changed, where there is one micro-batch only."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.shares: Sequence[float] = ()
        self.running: list[Tensor] = []
        self.before: list[Tensor] = []
        self.mean: list[Tensor] = []

    @contextlib.contextmanager
    def of_batch(self, shares: Sequence[float]) -> Iterator[None]:
        self.shares = shares
        self.running = _running(self.model) if sum(share > 0 for share in shares) > 1 else []
        self.before = [moment.clone() for moment in self.running]
        self.mean = [torch.zeros_like(moment) for moment in self.running]
        yield
        # mean over parts of (0.95 before + 0.05 part) = 0.95 before + 0.05 (mean over parts)
        if self.running:
            torch._foreach_copy_(self.running, self.mean)

    def collect(self, number: int) -> None:
        if self.running:
            torch._foreach_add_(self.mean, self.running, alpha=self.shares[number])
            torch._foreach_copy_(self.running, self.before)


class MomentsOfRanks:
    """The same where each rank goes through micro-batches of its own: as if one had seen all.

    In a batch every batch norm keeps the moments of its last micro-batch alone (momentum 1); their mean over all ranks
    then enters the running moments.
    """

    def __init__(self, model: nn.Module) -> None:
        self.norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self.weight = float(self.norms[0].momentum or 0)
        assert all(norm.momentum == self.weight for norm in self.norms)
        self.collected: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def of_batch(self, shares: Sequence[float]) -> Iterator[None]:
        running = self._moments()
        self.collected = {}
        self._set_momentum(1.0)
        try:
            yield
        finally:
            self._set_momentum(self.weight)
        moments = running.new_zeros(len(shares), len(running))
        for number, values in self.collected.items():
            moments[number] = values
        distributed.all_reduce(moments)
        running.lerp_(torch.tensor(shares).to(moments) @ moments, self.weight)
        self._put(running)
        for norm in self.norms:
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += sum(share > 0 for share in shares) - len(self.collected)

    def collect(self, number: int) -> None:
        self.collected[number] = self._moments()

    def _set_momentum(self, momentum: float) -> None:
        for norm in self.norms:
            norm.momentum = momentum

    def _buffers(self) -> list[Tensor]:
        found = [buffer for norm in self.norms for buffer in (norm.running_mean, norm.running_var)]
        return [buffer for buffer in found if buffer is not None]

    def _moments(self) -> Tensor:
        """[2K]"""
        return torch.cat([buffer.flatten() for buffer in self._buffers()])

    def _put(self, moments: Tensor) -> None:
        buffers = self._buffers()
        for buffer, values in zip(buffers, moments.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values)


def _running(model: nn.Module) -> list[Tensor]:
    """Means and variances of the batch norms that are in training mode; others do not move."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    return [moment for norm in norms for moment in (norm.running_mean, norm.running_var) if moment is not None]
