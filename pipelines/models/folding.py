"""Batch norm folded into the convolution before it, for a network that is only tested.

With fixed statistics  bn(W x) = g / sqrt(v + eps) * (W x - m) + b  is a convolution with bias: the weights of each
output channel times g / sqrt(v + eps), and b - m g / sqrt(v + eps). Padding with zeros, in space or time, stays as it
is: the bias comes after it.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from pipelines.models.blocks import Bottleneck
from pipelines.models.st_resnet import STResNet
from pipelines.models.stream import Stream
from pipelines.models.temporal import TemporalConv


def folded(network: STResNet) -> STResNet:
    """A copy in evaluation mode that gives the same logits up to rounding, without gradients; `network` stays as it is.

    Its state dict has other keys: it is for computing, not for storing. A network that is folded already is copied.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent, convolution, norm in list(_pairs(network)):
        batch_norm = getattr(parent, norm)
        if isinstance(batch_norm, nn.BatchNorm2d):
            _fold(getattr(parent, convolution), batch_norm)
            setattr(parent, norm, nn.Identity())
    return network


def _pairs(network: STResNet) -> Iterator[tuple[nn.Module, str, str]]:
    """Every module that holds a convolution and the batch norm behind it, with the names of both."""
    for module in network.modules():
        if isinstance(module, Stream):
            yield module, "conv1", "bn1"
        elif isinstance(module, Bottleneck):
            for number in (1, 2, 3):
                yield module, f"conv{number}", f"bn{number}"
            if module.downsample is not None:
                yield module.downsample, "0", "1"


@torch.no_grad()
def _fold(layer: nn.Conv2d | TemporalConv, norm: nn.BatchNorm2d) -> None:
    """In float64, so that only the result is rounded."""
    assert layer.bias is None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    per_channel = scale.view(-1, *[1] * (layer.weight.ndim - 1))
    # copy_ keeps how the weights lie in memory: channels_last.
    layer.weight.copy_(layer.weight.double() * per_channel)
    layer.bias = nn.Parameter(shift.to(layer.weight.dtype), requires_grad=False)
