"""From what the loaders ship to what the network takes, on the device: cut, mirror, resize, normalise, scale, stack.

This is the one definition of the order and the geometry, for training and test; the numbers of normalising are those of
`pipelines.models.normalise`. Resizing is bilinear between pixel centers without antialiasing (what OpenCV calls
INTER_LINEAR), in float32 and not rounded back to bytes. A GPU does it all in one pass, where its kernel is found to
give the same.

Letters: B videos, T frames, n distinct pictures of C channels, P pictures a frame takes, H W pixels, h w input.
"""

import logging
from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.datasets.clips import Clip, Clips, Frames
from pipelines.interface.wording import first_line
from pipelines.models import Normalise
from pipelines.models.normalise import INPUTS
from pipelines.runtime.devices import missing_to_compile
from pipelines.storage.quantise import mirror_x_flow

_log = logging.getLogger("stres")
# Whether the kernel is used for pictures of so many channels: it is compared with torch when it is first to be.
_kernel_agrees: dict[tuple[torch.device, int], bool] = {}


class Prepare(nn.Module):
    """Both streams of a batch -> the two inputs of `STResNet.forward`, channels_last in memory.

    normalise: the network's; None for torchvision's. dtype: of what it gives; None for float32, in which it computes.
    on_gpu: adds channels of zeros up to a multiple of 8, which the first convolution ignores: there is no fast kernel
    for 3 or 20 channels of 16 bits. rgb, flow: `Clips`, or tensors [B, T, C, h, w] as stored, that need no more
    than normalising; either may be None and then stays None. Computes where the pixels are. Raises `UsageError` for
    tensors of another type.
    """

    def __init__(
        self, normalise: Normalise | None = None, dtype: torch.dtype | None = None, *, on_gpu: bool = False
    ) -> None:
        super().__init__()
        self.normalise = normalise or Normalise()
        self.dtype = dtype
        self.multiple = 8 if on_gpu and dtype is not None else 1
        self._lines: dict[tuple[torch.device, int], dict[bool, Tensor]] = {}

    def forward(self, rgb: Frames | None, flow: Frames | None) -> tuple[Tensor | None, Tensor | None]:
        return self._rgb(rgb), self._flow(flow)

    def _rgb(self, rgb: Frames | None) -> Tensor | None:
        if isinstance(rgb, Clips):
            return self._stacked(rgb, mirror_rgb, self.normalise.frames_)
        return self._reduced(self.normalise(rgb, None)[0])

    def _flow(self, flow: Frames | None) -> Tensor | None:
        if isinstance(flow, Clips):
            return self._stacked(flow, mirror_x_flow, self.normalise.fields_)
        return self._reduced(self.normalise(None, flow)[1])

    def _stacked(
        self, clips: Clips, mirror: Callable[[Tensor], Tensor], normalise: Callable[[Tensor], Tensor]
    ) -> Tensor:
        in_passes = partial(_stacked, clips, mirror, normalise, self.dtype, self.multiple)
        if self.dtype is None or self.normalise.camera_motion != "none" or not _has_kernel(clips.device):
            return in_passes()
        kind = clips.device, clips[0].pixels.shape[1]
        if kind not in self._lines:
            self._lines[kind] = _lines(*kind, clips[0].pixels.dtype, mirror, normalise)
        in_one_pass = partial(_in_one_pass, clips, self._lines[kind], self.dtype, self.multiple)
        if kind not in _kernel_agrees:
            _kernel_agrees[kind] = _agree(in_one_pass, in_passes)
        return in_one_pass() if _kernel_agrees[kind] else in_passes()

    def _reduced(self, x: Tensor | None) -> Tensor | None:
        return x if x is None or self.dtype is None else x.to(self.dtype)


def reduced(precision: str) -> torch.dtype | None:
    """What autocast rounds a convolution's input to; None where it does not."""
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def as_stored(rgb: Clips | None, flow: Clips | None) -> tuple[Tensor | None, Tensor | None]:
    """The same pictures not normalised and rounded, which is how an exported file takes them: [B, T, 3, h, w] and
    [B, T, 2L, h, w] of `INPUTS`. Where nothing is resized they are the stored ones."""
    return (
        None if rgb is None else _stacked(rgb, mirror_rgb, torch.round).to(INPUTS["rgb"].type),
        None if flow is None else _stacked(flow, mirror_x_flow, torch.round).to(INPUTS["flow"].type),
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
        if clip.gain != 1:
            pictures.mul_(clip.gain)
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


# ------------------------------------------------------------------ in one pass


@lru_cache
def _has_kernel(device: torch.device) -> bool:
    return device.type == "cuda" and not missing_to_compile(device)


def _in_one_pass(clips: Clips, lines: dict[bool, Tensor], dtype: torch.dtype, multiple: int) -> Tensor:
    """What `_stacked` makes, but for the last bit."""
    from pipelines.datasets.preparation_kernel import prepare_clips  # which needs Triton

    channels = clips.shape[2]
    return prepare_clips(clips, lines, channels + -channels % multiple, dtype)


def _lines(
    device: torch.device,
    channels: int,
    stored: torch.dtype,
    mirror: Callable[[Tensor], Tensor],
    normalise: Callable[[Tensor], Tensor],
) -> dict[bool, Tensor]:
    """What a stored 0 of each channel becomes, and what every step adds, float32 [2, C]; without a mirror, and with
    one: both rules are linear, so that two values tell."""
    ends = torch.tensor([0, 255], dtype=stored, device=device).view(2, 1, 1, 1).repeat(1, channels, 1, 1)
    lines = {}
    for mirrored, pixels in ((False, ends), (True, mirror(ends))):
        first, last = normalise(pixels.to(torch.float32)).flatten(1)
        lines[mirrored] = torch.stack([first, (last - first) / 255])
    return lines


def _agree(in_one_pass: Callable[[], Tensor], in_passes: Callable[[], Tensor]) -> bool:
    """Whether both give the same, but for the last bit; if not, a line in the log says what is wrong."""
    expected = in_passes()
    try:
        torch.testing.assert_close(in_one_pass(), expected, rtol=torch.finfo(expected.dtype).eps, atol=1e-5)
    except Exception as error:  # whatever compiling and launching may raise
        _log.warning("the network's input is made in several passes in place of one: %s", first_line(error))
        return False
    return True
