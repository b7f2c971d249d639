"""Batch norm's running statistics under accumulated gradients: they move once an update, as the authors' do.

Torch moves them at every forward pass. In MatConvNet the statistics of the sub-batches of an update add up like
gradients, weighted by their videos, and the running ones take that mean once, with the weight 0.05 (paper.md 3.2). With
32 micro-batches an update torch's rule would give the update the weight 1 - 0.95^32 = 0.81, most of it to the last few.

Letters: K channels of all batch norms together.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn


class RunningStats:
    """Moves the running statistics of a model once an update.

    In each micro-batch torch moves them from the same point, r -> 0.95 r + 0.05 b; their mean, weighted by videos, is
    where the update's mean b moves them: 0.95 r + 0.05 mean(b).
    """

    def __init__(self, model: nn.Module, *, across_processes: bool = False) -> None:
        """
        Args:
            model: Whose batch norms these are; those in evaluation mode do not move.
            across_processes: Whether each process has micro-batches of its own, whose statistics enter the mean.
        """
        self.model = model
        self.across_processes = across_processes
        self._running: list[Tensor] = []
        self._before: list[Tensor] = []
        self._mean: list[Tensor] = []
        self._collected = 0

    @contextlib.contextmanager
    def of_update(self, micro_batches: int) -> Iterator[None]:
        """Around an update's passes through the network.

        Args:
            micro_batches: Of all processes. If there is only one, and all processes see it, torch's rule is the same.
        """
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
        self._running = []
        if micro_batches > 1 or (micro_batches and self.across_processes):
            self._running = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
        self._before = [statistic.clone() for statistic in self._running]
        self._mean = [torch.zeros_like(statistic) for statistic in self._running]
        self._collected = 0
        yield
        if not self._running:
            return
        if self.across_processes:
            flat = torch.cat([statistic.flatten() for statistic in self._mean])  # [2K]
            distributed.all_reduce(flat)
            pieces = flat.split([statistic.numel() for statistic in self._mean])
            self._mean = [piece.view_as(mean) for piece, mean in zip(pieces, self._mean, strict=True)]
            for norm in norms:
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked += micro_batches - self._collected
        torch._foreach_copy_(self._running, self._mean)

    def collect(self, share: float, micro_batches: int) -> None:
        """To be called after a pass; `share`: its part of the update's videos; `micro_batches`: how many it was of."""
        if self._running:
            torch._foreach_add_(self._mean, self._running, alpha=share)
            torch._foreach_copy_(self._running, self._before)
            self._collected += micro_batches if share > 0 else 0
