"""Batch norm's running moments under accumulated gradients: they move once an update, as the authors' do.

Torch moves them at every forward pass. In MatConvNet the moments of the sub-batches of an update add up like gradients,
weighted by their videos, and the running ones take that mean once, with the weight 0.05 (PAPER, Training). With 32
micro-batches an update torch's rule would give the update the weight 1 - 0.95^32 = 0.81, most of it to the last few.
"""

import torch
from torch import Tensor, nn


class MomentsOfUpdate:
    """Lets the running moments of `model` move from the same place in every micro-batch of an update, then takes the
    mean of where they came to. Nothing is done, or changed, where there is one micro-batch only.

    Call `add` after each micro-batch, with its share of the update's videos, and `finish` after the last.
    """

    def __init__(self, model: nn.Module, parts: int) -> None:
        self.running = _running_moments(model) if parts > 1 else []
        self.before = [moment.clone() for moment in self.running]
        self.mean = [torch.zeros_like(moment) for moment in self.running]

    def add(self, share: float) -> None:
        if self.running:
            torch._foreach_add_(self.mean, self.running, alpha=share)
            torch._foreach_copy_(self.running, self.before)

    def finish(self) -> None:
        # mean over parts of (0.95 before + 0.05 part) = 0.95 before + 0.05 (mean over parts)
        if self.running:
            torch._foreach_copy_(self.running, self.mean)


def _running_moments(model: nn.Module) -> list[Tensor]:
    """Means and variances of the batch norms that are in training mode; others do not move."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    return [moment for norm in norms for moment in (norm.running_mean, norm.running_var) if moment is not None]
