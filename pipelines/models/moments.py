"""The moments of what comes into a batch norm, over many batches."""

import torch
from torch import Tensor


class Moments:
    """Mean and variance of every channel of what came into one batch norm, over all batches."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())  # sum of squared distances from the mean

    def add(self, x: Tensor) -> None:
        """Takes x [N, C, H, W] in (Chan et al. 1983: the moments of two sets from those of each)."""
        variance, mean = torch.var_mean(x.detach().float(), dim=(0, 2, 3), correction=0)
        variance, mean, count = variance.double(), mean.double(), x.numel() // x.shape[1]
        total, difference = self.count + count, mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + variance * count + difference.square() * (self.count * count / total)
        self.mean = self.mean.to(mean) + difference * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Unbiased, as torch keeps it."""
        return self.squares / max(1, self.count - 1)
