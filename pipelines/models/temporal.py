"""What looks along time: the 3x1x1 convolution of block b and the temporal max pooling (paper.md 2.2 and 2.3).

Letters: B videos, T frames, N = B*T frames of all videos end to end, C channels, H W pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipelines.errors import UsageError
from pipelines.options import TemporalInit

TAPS = 3
# At depth 50 and 224 px every layer has 2.6e8 for 5 frames; at width 16 and 80x64 it has 1.6e6, and two threads take
# longer to share so little work than to do it.
LARGE_PRODUCTS = 2e7


class TemporalConv(nn.Module):
    """A 1x1 convolution grown over time: 3x1x1, stride 1, zero padding 1 in time.

    Takes [N, C, H, W] and the number of frames of a video, gives [N, C', H, W]; `weight` is [C', C, 3, 1, 1]. `bias`
    [C'] is None but where a batch norm was folded into the layer (`folding`).
    It starts as a fresh 1x1 convolution would, inflated as `init` says.
    """

    def __init__(self, in_channels: int, out_channels: int, init: TemporalInit) -> None:
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
        """[C', C, 1, 1] -> [C', C, 3, 1, 1]: the weights this layer starts from, given those of the 1x1 convolution.

        `average`: a third of them in each tap, which leaves a constant video unchanged away from its ends
        (paper.md 2.2); `center`: all of them in the middle tap, which changes no video; `random`: Kaiming over all.
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
            y = _Taps.apply(_time_as_height(x, frames).permute(0, 2, 3, 1), kernel, self.bias)
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


class _Taps(torch.autograd.Function):
    """The 3x1x1 convolution as matrix products: one of every frame with the middle tap, and for both others one of the
    frames that have a neighbour there, so that nothing is multiplied by the padding.

    Takes x [B, T, P, C] of P pixels, the kernel [C', 3, C] and the bias [C'] or None, which is not trained; gives
    [B, T, P, C']. Measured forward + backward on one
    CPU core, the 8 layers of a stream of depth 50, 2 videos of 5 frames 224x224: 1.1 s; as a convolution 2.4 s.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kernel)
        y = F.linear(x, kernel[:, 1], bias)
        _add_products(y[:, 1:], x[:, :-1], kernel[:, 0].t())
        _add_products(y[:, :-1], x[:, 1:], kernel[:, 2].t())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, kernel = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ kernel[:, 1]
            _add_products(of_x[:, :-1], gradient[:, 1:], kernel[:, 0])
            _add_products(of_x[:, 1:], gradient[:, :-1], kernel[:, 2])
        of_kernel = torch.zeros_like(kernel, memory_format=torch.contiguous_format)
        for video, upstream in zip(x, gradient, strict=True):
            for tap, of_tap in enumerate(of_kernel.unbind(1)):
                of_tap.addmm_(_shifted(upstream, 1 - tap).flatten(0, 1).t(), _shifted(video, tap - 1).flatten(0, 1))
        return of_x, of_kernel, None


def _add_products(y: Tensor, x: Tensor, matrix: Tensor) -> None:
    """y [B, T, P, C'] += x [B, T, P, C] @ matrix [C, C']."""
    y.flatten(1, 2).baddbmm_(x.flatten(1, 2), matrix.expand(len(x), -1, -1))


def _shifted(video: Tensor, by: int) -> Tensor:
    """The frames t + by of a video [T, P, C], for those t for which there are both."""
    return video[max(by, 0) : len(video) + min(by, 0)]


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
