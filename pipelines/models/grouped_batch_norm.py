"""Batch norm of several micro-batches in one pass through the network, with statistics of each by itself.

Letters: G micro-batches of equal size, N images of all of them end to end, C channels, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that in training normalises each of `groups` equal parts of the batch by its own statistics.

    Running statistics move once, to the mean of where each part alone would move them.
    """

    groups = 1

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1 or not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        if torch.compiler.is_compiling():
            y, means, variances = _normalised(x, self.weight, self.bias, self.eps, self.groups)
            self.running_mean.lerp_(means.mean(0), self.momentum)
            self.running_var.lerp_(variances.mean(0), self.momentum)
        else:
            moved = [statistic.repeat(self.groups, 1) for statistic in (self.running_mean, self.running_var)]
            y = torch.cat(
                [
                    F.batch_norm(part, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
                    for part, mean, variance in zip(x.chunk(self.groups), *moved, strict=True)
                ]
            )
            self.running_mean.copy_(moved[0].mean(0))
            self.running_var.copy_(moved[1].mean(0))
        self.num_batches_tracked += self.groups
        return y


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same by its definition, which a compiler makes two kernels of, however many groups there are.

    Returns:
        [N, C, H, W], and each group's mean and unbiased variance [G, C].
    """
    values = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(0, (groups, -1))  # [G, N / G, C, H, W]
    variance, mean = torch.var_mean(values, (1, 3, 4), correction=0, keepdim=True)
    y = (values - mean) * (torch.rsqrt(variance + eps) * weight.view(-1, 1, 1)) + bias.view(-1, 1, 1)
    count = values[0, :, 0].numel()
    unbiased = variance.detach() * (count / max(1, count - 1))
    return y.flatten(0, 1).to(x.dtype), mean.detach().flatten(1), unbiased.flatten(1)
