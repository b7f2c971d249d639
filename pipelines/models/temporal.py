"""What looks along time: the 3x1x1 convolution of block b and the temporal max pooling (PAPER 2 and 3).

Letters: B videos, T frames, N = B*T frames of all videos end to end, C channels, H W pixels.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import UsageError

TemporalInit = Literal["average", "centre", "random"]

TAPS = 3


class TemporalConv(nn.Module):
    """A 1x1 convolution grown over time: 3x1x1, stride 1, zero padding 1 in time, no bias.

    Takes [N, C, H, W] and the number of frames of a video, gives [N, C', H, W]; `weight` is [C', C, 3, 1, 1].
    It starts as a fresh 1x1 convolution would, inflated as `init` says.
    """

    def __init__(self, in_channels: int, out_channels: int, init: TemporalInit) -> None:
        super().__init__()
        self.init = init
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, TAPS, 1, 1))
        pointwise = torch.empty(out_channels, in_channels, 1, 1)
        nn.init.kaiming_normal_(pointwise, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            self.weight.copy_(self.inflate(pointwise))

    def inflate(self, pointwise: Tensor) -> Tensor:
        """[C', C, 1, 1] -> [C', C, 3, 1, 1]: the weights this layer starts from, given those of the 1x1 convolution.

        `average`: a third of them in each tap, which leaves a constant video unchanged away from its ends (PAPER 2);
        `centre`: all of them in the middle tap, which changes no video; `random`: Kaiming over all taps instead.
        """
        taps = pointwise.unsqueeze(2).expand(-1, -1, TAPS, -1, -1)
        if self.init == "average":
            return taps / TAPS
        if self.init == "centre":
            return taps * pointwise.new_tensor([0.0, 1.0, 0.0]).view(TAPS, 1, 1)
        return nn.init.kaiming_normal_(torch.empty_like(taps.contiguous()), mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, frames: int) -> Tensor:
        # The same sums as conv3d's, as a (3, 1) convolution over [B, C, T, H*W], for which channels_last frames need
        # not be moved. Measured forward + backward on one CPU core, 8 videos of 5 frames 64x80, width 16, the 8 layers
        # of a stream: 37 ms; conv3d 89 ms; three 1x1 convolutions, shifted, 53 ms; this on contiguous frames 48 ms.
        y = F.conv2d(_time_as_height(x, frames), self.weight.squeeze(-1), padding=(1, 0))
        return _time_as_frames(y, x.shape[-2:])

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}, init={self.init!r}"


class TemporalMaxPool(nn.Module):
    """The maximum over `size` neighbouring frames, every `stride` frames, without padding (PAPER 3).

    Takes [N, C, H, W] of T frames a video and gives T' = (T - size) // stride + 1 frames a video, and T'.
    Raises `UsageError` where T < size.
    """

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size = size
        self.stride = stride

    def forward(self, x: Tensor, frames: int) -> tuple[Tensor, int]:
        if frames < self.size:
            raise UsageError(
                f"temporal pooling needs at least T = {self.size} frames a video, got T = {frames}: "
                "give more frames, or a smaller temporal_pool"
            )
        pooled = F.max_pool2d(_time_as_height(x, frames), (self.size, 1), (self.stride, 1))
        return _time_as_frames(pooled, x.shape[-2:]), pooled.shape[2]

    def extra_repr(self) -> str:
        return f"size={self.size}, stride={self.stride}"


def _time_as_height(x: Tensor, frames: int) -> Tensor:
    """[N, C, H, W] -> [B, C, T, H*W], without moving data where x is channels_last."""
    channels, height, width = x.shape[1:]
    return x.permute(0, 2, 3, 1).reshape(-1, frames, height * width, channels).permute(0, 3, 1, 2)


def _time_as_frames(y: Tensor, size: torch.Size) -> Tensor:
    """[B, C, T, H*W] -> [N, C, H, W], the inverse of `_time_as_height`."""
    return y.permute(0, 2, 3, 1).reshape(-1, *size, y.shape[1]).permute(0, 3, 1, 2)
