"""The bottleneck block of a residual network, opened up where the two streams meet.

    x ----------------+------------------------ shortcut ---------+
                      |                                           |
    residual_input -> F: conv1 bn relu, conv2 bn relu, conv3 bn --+--> before_relu --> relu --> after_relu

Without a connection `residual_input` is x, and this is torchvision's block, key for key. The form says where a block
that halves the picture does so: "v1" (He et al., CVPR 2016, and the paper's) in the first 1x1 convolution, "v1.5"
(torchvision) in the 3x3. The weights have the same names and shapes, but those of one are wrong in the other.
Letters: N frames of all videos end to end, C channels, H W pixels.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.interface.options import ResNetForm, TemporalInit
from pipelines.models.grouped_batch_norm import GroupedBatchNorm
from pipelines.models.temporal import TemporalConv

EXPANSION = 4
BATCH_NORM_MOMENTUM = 0.05  # paper.md 3.2: running moments take the new batch with this weight


class BlockOutput(NamedTuple):
    """What a block gives."""

    before_relu: Tensor
    """[N, C, H, W], the paper's x."""
    after_relu: Tensor
    """[N, C, H, W], the paper's f(x)."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        form: ResNetForm = "v1.5",
        temporal: TemporalInit | None = None,
    ) -> None:
        """
        Args:
            in_channels: Of its input; its output has 4 times `width`.
            width: Channels of the 3x3 convolution.
            stride: In pixels, of the convolution that the form says; 1 for a block with temporal kernels.
            form: Of the ResNet.
            temporal: Makes both 1x1 convolutions 3x1x1 over time, and says how they start (paper.md 2.2).
        """
        super().__init__()
        assert temporal is None or stride == 1
        out_channels = EXPANSION * width
        stride_of_first, stride_of_second = (stride, 1) if form == "v1" else (1, stride)
        self.conv1 = _pointwise_or_temporal(in_channels, width, temporal, stride=stride_of_first)
        self.bn1 = batch_norm(width)
        self.conv2 = convolution(width, width, 3, stride=stride_of_second)
        self.bn2 = batch_norm(width)
        self.conv3 = _pointwise_or_temporal(width, out_channels, temporal)
        self.bn3 = batch_norm(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                convolution(in_channels, out_channels, 1, stride=stride), batch_norm(out_channels)
            )

    def forward(self, x: Tensor, frames: int, residual_input: Tensor | None = None) -> Tensor:
        """The block's output f(x).

        Args:
            x: [N, C, H, W].
            frames: T of the videos in it.
            residual_input: What the residual branch takes instead of x, of the same shape.
        """
        return F.relu(self._before_relu(x, frames, residual_input), inplace=True)

    def opened(self, x: Tensor, frames: int) -> BlockOutput:
        """The same with what stands before the ReLU, for the other stream."""
        before = self._before_relu(x, frames)
        return BlockOutput(before, F.relu(before))

    def _before_relu(self, x: Tensor, frames: int, residual_input: Tensor | None = None) -> Tensor:
        residual = x if residual_input is None else residual_input
        residual = F.relu(self.bn1(_convolve(self.conv1, residual, frames)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(_convolve(self.conv3, residual, frames))
        # In place: batch norm's backward pass does not look at what it gave.
        return residual.add_(x if self.downsample is None else self.downsample(x))


def convolution(in_channels: int, out_channels: int, size: int, *, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded to keep the size; starts as torchvision's: Kaiming fan-out."""
    layer = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def batch_norm(channels: int) -> GroupedBatchNorm:
    """Batch norm whose running moments move at the paper's rate."""
    return GroupedBatchNorm(channels, momentum=BATCH_NORM_MOMENTUM)


def _pointwise_or_temporal(
    in_channels: int, out_channels: int, temporal: TemporalInit | None, *, stride: int = 1
) -> nn.Module:
    if temporal is None:
        return convolution(in_channels, out_channels, 1, stride=stride)
    return TemporalConv(in_channels, out_channels, temporal)


def _convolve(layer: nn.Module, x: Tensor, frames: int) -> Tensor:
    return layer(x, frames) if isinstance(layer, TemporalConv) else layer(x)
