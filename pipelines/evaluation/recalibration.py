"""Batch-norm statistics as a network sees them in the test: taken anew on training videos (`--recalibrate-bn`).

In training a network sees T frames, in the paper's test one sequence of 25: more of its frames have neighbours in time
on both sides, and the 3x1x1 convolutions pad fewer of them with zeros. The running statistics are those of training.

Letters: V views, T frames of the test, L flow fields of a stack, h w network input.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from pipelines.datasets.clips import Frames, joined
from pipelines.datasets.preparation import Prepare
from pipelines.models import STResNet
from pipelines.models.moments import Moments

Clip = tuple[Frames | None, Frames | None]
"""`rgb` and `flow` of a test sample; None for a stream that the network lacks."""
PIXELS_AT_ONCE = 16e6
"""Of a batch: bounds memory (four clips of 25 frames 340x256 with their mirrors). Every batch norm normalises by its
batch, and the more videos that holds the nearer it is to all: two of 64x64 took away what tells classes apart."""


@torch.no_grad()
def recalibrate_batch_norm(network: STResNet, clips: Iterable[Clip], device: torch.device) -> int:
    """Replaces the running statistics of a network by those of clips.

    While they are taken every batch norm normalises by its batch, clips of one size side by side, dropout is off and no
    weight changes.

    Args:
        network: On `device`.
        clips: Whole test samples: `rgb` and `flow` as loaded, or as stored, [V, T, 3, h, w] and [V, T, 2L, h, w]; None
            for a stream that the network lacks.

    Returns:
        How many clips there were.

    Raises:
        ValueError: There was none.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    moments = [Moments() for _ in norms]
    momenta = [norm.momentum for norm in norms]
    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs, moment=moment: moment.add(inputs[0]))
        for norm, moment in zip(norms, moments, strict=True)
    ]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 0.0  # the running statistics are ours to set
    prepare, clip_count = Prepare(network.normalise()).to(device), 0
    try:
        for batch in _batches(clips):
            rgb, flow = ([part for part in parts if part is not None] for parts in zip(*batch, strict=True))
            network(*prepare(*(joined(parts).to(device) if parts else None for parts in (rgb, flow))))
            clip_count += len(batch)
    finally:
        for hook, norm, momentum in zip(hooks, norms, momenta, strict=True):
            hook.remove()
            norm.momentum = momentum
        network.eval()
    if not clip_count:
        raise ValueError("batch-norm statistics need at least one clip")
    for norm, moment in zip(norms, moments, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(moment.mean)
        norm.running_var.copy_(moment.variance)
    return clip_count


def _batches(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """The clips, all views, in batches of one size of picture and at most PIXELS_AT_ONCE."""
    waiting: list[Clip] = []
    for clip in clips:
        if waiting and (_shape(clip) != _shape(waiting[0]) or _pixels(clip) * (len(waiting) + 1) > PIXELS_AT_ONCE):
            yield waiting
            waiting = []
        waiting.append(clip)
    if waiting:
        yield waiting


def _shape(clip: Clip) -> list[tuple[int, ...] | None]:
    return [None if part is None else part.shape for part in clip]


def _pixels(clip: Clip) -> int:
    """Pixels of all frames of all views of a clip."""
    views, frames, _channels, height, width = next(part for part in clip if part is not None).shape
    return views * frames * height * width
