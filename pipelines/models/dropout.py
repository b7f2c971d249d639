"""Dropout whose draws for a video do not depend on which process computes it.

Letters: B videos, T' time steps, C features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class VideoDropout(nn.Module):
    """Dropout over features [B*T', C]; its draws are those for a row of videos of which these are some.

    A process that has a shard of a micro-batch thus drops what it would drop of the whole. Draws come from torch's
    generator, on the device of the features.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.share: tuple[Sequence[int], int] | None = None
        """The positions of these videos in the row, and the number of videos in it; None for the whole row."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        if not self.training or self.p == 0:
            return x
        positions, videos = self.share or (range(len(x) // frames), len(x) // frames)
        kept = torch.empty(videos, frames, x.shape[1], device=x.device).bernoulli_(1 - self.p)
        if len(positions) < videos:
            kept = kept[list(positions)]
        return x * (kept.flatten(0, 1) / (1 - self.p)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"
