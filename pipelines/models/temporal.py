"""What looks along time: the 3x1x1 convolution of block b and the temporal max pooling (paper.md 2.2 and 2.3).

Letters: B videos, T frames, N = B*T frames of all videos end to end, C channels, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import UsageError
from pipelines.interface.options import TemporalInit
from pipelines.models.temporal_cpu import temporal_conv_by_products

TAPS = 3
# At depth 50 and 224 px every layer has 2.6e8 for 5 frames; at width 16 and 80x64 it has 1.6e6, and two threads take
# longer to share so little work than to do it.
LARGE_PRODUCTS = 2e7


class TemporalConv(nn.Module):
    """A 1x1 convolution grown over time: 3x1x1, stride 1, zero padding 1 in time.

    Takes [N, C, H, W] and the number of frames of a video, gives [N, C', H, W]; `weight` is [C', C, 3, 1, 1]. `bias`
    [C'] is None but where a batch norm was folded into the layer (`folding`).
    """

    def __init__(self, in_channels: int, out_channels: int, init: TemporalInit) -> None:
        """
        Args:
            in_channels: C.
            out_channels: C'.
            init: How a fresh 1x1 convolution is inflated (`inflate`).
        """
        super().__init__()
        self.init = init
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, TAPS, 1, 1))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None)
        pointwise = torch.empty(out_channels, in_channels, 1, 1)
        nn.init.kaiming_normal_(pointwise, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            self.weight.copy_(self.inflate(pointwise))

    def inflate(self, pointwise: Tensor) -> Tensor:
        """The weights this layer starts from.

        `average`: a third of the 1x1 weights in each tap, which leaves a constant video unchanged away from its ends
        (paper.md 2.2); `center`: all of them in the middle tap, which changes no video; `random`: Kaiming over all.

        Args:
            pointwise: [C', C, 1, 1], those of the 1x1 convolution.

        Returns:
            [C', C, 3, 1, 1].
        """
        taps = pointwise.unsqueeze(2).expand(-1, -1, TAPS, -1, -1)
        if self.init == "average":
            return taps / TAPS
        if self.init == "center":
            return taps * pointwise.new_tensor([0.0, 1.0, 0.0]).view(TAPS, 1, 1)
        return nn.init.kaiming_normal_(torch.empty_like(taps.contiguous()), mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, frames: int) -> Tensor:
        if self._by_products(x, frames):
            # [N, C, H, W] -> [B, T, H*W, C], and back
            kernel = self.weight.flatten(2).transpose(1, 2)
            y = temporal_conv_by_products(_time_as_height(x, frames).permute(0, 2, 3, 1), kernel, self.bias)
            return _time_as_frames(y.permute(0, 3, 1, 2), x.shape[-2:])
        # conv3d's sums as a (3, 1) convolution over [B, C, T, H*W]: channels_last frames need not be moved for it.
        y = F.conv2d(_time_as_height(x, frames), self.weight.squeeze(-1), self.bias, padding=(1, 0))
        return _time_as_frames(y, x.shape[-2:])

    def _by_products(self, x: Tensor, frames: int) -> bool:
        """On the CPU at full precision, where the products are large: a compiler, an export and cuDNN know convolutions
        better. Asked first, as an exported network's frames have no number to compare."""
        if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return False
        work = frames * x.shape[2:].numel() * self.weight.shape[:2].numel()  # multiplications of a tap and a video
        return work >= LARGE_PRODUCTS

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}, init={self.init!r}"


class TemporalMaxPool(nn.Module):
    """The maximum over `size` neighbouring frames, every `stride` frames, without padding (paper.md 2.3).

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
