"""Batch norm whose statistics are those of all processes' inputs together, on CPU and GPU.

torch.nn.SyncBatchNorm works on GPUs only. Training on CPUs needs this one in any case, so GPUs use it too: there is one
arithmetic, which the tests compare with that of a single process, and a process without a video takes part in the same
way on both (`absent`).

Letters: N C H W of one process's input, n = N*H*W of all processes together.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn


class SyncBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, in training over the inputs of all processes of the group, which must call it equally often."""

    absent = False
    """Take part in the exchange only: the input counts for nothing, and no gradient comes back."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalised.apply(x, self.weight, self.bias, self.eps, self.absent)
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            with torch.no_grad():
                unbiased = variance * (count / (count - 1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
                self.num_batches_tracked += 1
        return y


def convert_batch_norm(model: nn.Module) -> None:
    """Replaces every batch norm of `model` by a `SyncBatchNorm` with the same parameters and running statistics."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncBatchNorm):
                norm = SyncBatchNorm(child.num_features, child.eps, child.momentum)
                norm.weight, norm.bias = child.weight, child.bias
                norm.running_mean, norm.running_var = child.running_mean, child.running_var
                norm.num_batches_tracked = child.num_batches_tracked
                setattr(module, name, norm.train(child.training))


class _Normalised(torch.autograd.Function):
    """(x, weight, bias) -> weight * (x - mean) / sqrt(variance + eps) + bias, and mean, variance [C], n."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, absent: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance, count = _all_statistics(values, absent)
        factor = torch.rsqrt(variance + eps)
        y = (values - _wide(mean)) * _wide(factor * weight) + _wide(bias)
        ctx.save_for_backward(x, weight, mean, factor, count)
        ctx.absent = absent
        ctx.mark_non_differentiable(mean, variance, count)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With u = (x - mean) * factor and the means over all n: dx = weight * factor * (dy - mean(dy) - u mean(u dy)).

        The gradients of weight and bias are this process's; they are averaged with all others.
        """
        x, weight, mean, factor, count = ctx.saved_tensors
        dy = gradients[0].to(mean.dtype)
        normalised = (x.to(mean.dtype) - _wide(mean)) * _wide(factor)
        sums = torch.stack([dy.sum((0, 2, 3)), (dy * normalised).sum((0, 2, 3))])
        if ctx.absent:
            sums = torch.zeros_like(sums)
        d_bias, d_weight = sums.clone()
        distributed.all_reduce(sums)
        if ctx.absent:
            return torch.zeros_like(x), torch.zeros_like(d_weight), torch.zeros_like(d_bias), None, None
        mean_dy, mean_udy = sums / count
        dx = _wide(weight * factor) * (dy - _wide(mean_dy) - normalised * _wide(mean_udy))
        return dx.to(x.dtype), d_weight, d_bias, None, None


def _all_statistics(values: Tensor, absent: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance [C] over all processes, and n (a scalar), from each one's own (Chan et al. 1979)."""
    channels = values.shape[1]
    own = values.new_zeros(distributed.get_world_size(), 2 * channels + 1)
    if not absent:
        variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
        own[distributed.get_rank()] = torch.cat([mean, variance, mean.new_full((1,), values.numel() / channels)])
    distributed.all_reduce(own)  # every row but one's own is zero: this gathers them
    means, variances, counts = own[:, :channels], own[:, channels:-1], own[:, -1:]
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    variance = (counts * (variances + (means - mean).square())).sum(0) / count
    return mean, variance, count


def _wide(values: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]"""
    return values.view(1, -1, 1, 1)
