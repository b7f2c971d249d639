"""From what the loaders ship to what the network takes, on the device: cut, mirror, resize, normalise, stack.

This is the one definition of the order and the geometry, for training and test; the numbers of normalising are those of
`pipelines.models.normalise`. Resizing is bilinear between pixel centers without antialiasing (what OpenCV calls
INTER_LINEAR), in float32 and not rounded back to bytes.

Letters: B videos, T frames, n distinct pictures of C channels, P pictures a frame takes, H W pixels, h w input.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.datasets.clips import Clip, Clips, Frames
from pipelines.models import Normalise
from pipelines.storage.quantise import mirror_x_flow


class Prepare(nn.Module):
    """Both streams of a batch -> the two inputs of `STResNet.forward`, channels_last in memory.

    normalise: the network's; None for torchvision's. dtype: of what it gives; None for float32, in which it computes.
    on_gpu: adds channels of zeros up to a multiple of 8, which the first convolution ignores: there is no fast kernel
    for 3 or 20 channels of 16 bits. rgb, flow: `Clips`, or uint8 tensors [B, T, C, h, w] that need no more than
    normalising; either may be None and then stays None. Computes where the pixels are. Raises `UsageError` for tensors
    that are not uint8.
    """

    def __init__(
        self, normalise: Normalise | None = None, dtype: torch.dtype | None = None, *, on_gpu: bool = False
    ) -> None:
        super().__init__()
        self.normalise = normalise or Normalise()
        self.dtype = dtype
        self.multiple = 8 if on_gpu and dtype is not None else 1

    def forward(self, rgb: Frames | None, flow: Frames | None) -> tuple[Tensor | None, Tensor | None]:
        return self._rgb(rgb), self._flow(flow)

    def _rgb(self, rgb: Frames | None) -> Tensor | None:
        if isinstance(rgb, Clips):
            return _stacked(rgb, mirror_rgb, self.normalise.frames_, self.dtype, self.multiple)
        return self._reduced(self.normalise(rgb, None)[0])

    def _flow(self, flow: Frames | None) -> Tensor | None:
        if isinstance(flow, Clips):
            return _stacked(flow, mirror_x_flow, self.normalise.fields_, self.dtype, self.multiple)
        return self._reduced(self.normalise(None, flow)[1])

    def _reduced(self, x: Tensor | None) -> Tensor | None:
        return x if x is None or self.dtype is None else x.to(self.dtype)


def reduced(precision: str) -> torch.dtype | None:
    """What autocast rounds a convolution's input to; None where it does not."""
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def as_bytes(rgb: Clips | None, flow: Clips | None) -> tuple[Tensor | None, Tensor | None]:
    """The same pictures not normalised and rounded to bytes, which is how an exported file takes them: uint8
    [B, T, 3, h, w] and [B, T, 2L, h, w]. Where nothing is resized they are the stored ones."""
    return (
        None if rgb is None else _stacked(rgb, mirror_rgb, torch.round).to(torch.uint8),
        None if flow is None else _stacked(flow, mirror_x_flow, torch.round).to(torch.uint8),
    )


def mirror_rgb(frames: Tensor) -> Tensor:
    """[..., H, W] mirrored left-right. Flow has a rule of its own: `mirror_x_flow`."""
    return frames.flip(-1)


def _stacked(
    clips: Clips,
    mirror: Callable[[Tensor], Tensor],
    normalise: Callable[[Tensor], Tensor],
    dtype: torch.dtype | None = None,
    multiple: int = 1,
) -> Tensor:
    """[B, T, P*C, h, w], channels of zeros added up to a multiple: every picture is resized and normalised once,
    wherever it then stands."""
    batch, frames, channels, height, width = clips.shape
    added = -channels % multiple
    out = torch.empty(batch, frames, height, width, channels + added, dtype=dtype, device=clips.device)
    out[..., channels:] = 0
    for into, clip in zip(out, clips, strict=True):
        pictures = normalise(_resized(clip, mirror)).permute(2, 3, 0, 1)
        for target, index in zip(into, clip.frame_index.tolist(), strict=True):
            target[..., :channels].unflatten(-1, (len(index), -1)).copy_(_picked(pictures, index))
    return out.movedim(-1, -3)


def _resized(clip: Clip, mirror: Callable[[Tensor], Tensor]) -> Tensor:
    """float32 [n, C, h, w] on 0..255; [h, w, n, C] in memory.

    All pictures at once, as the channels of one: on one CPU core 0.15 ms for ten fields of 71x57 to 80x64, as a batch
    of ten 0.25.
    """
    pixels = mirror(clip.cropped()) if clip.crop.mirror else clip.cropped()
    planes = pixels.flatten(0, 1).unsqueeze(0).contiguous(memory_format=torch.channels_last)
    values = planes.to(torch.float32)
    if pixels.shape[2:] != clip.size:
        values = F.interpolate(values, size=clip.size, mode="bilinear", align_corners=False)
    return values.view(-1, pixels.shape[1], *clip.size)


def _picked(pictures: Tensor, places: list[int]) -> Tensor:
    """[h, w, n, C] -> [h, w, P, C]; a slice wherever it can be one, which copies twice as fast."""
    first = places[0]
    if places == list(range(first, first + len(places))):
        return pictures[:, :, first : first + len(places)]
    return torch.stack([pictures[:, :, place] for place in places], 2)  # a list as index would wait for a GPU
