"""The size rule and the resizing of frames, whether they are stored, turned into flow or shown to a network.

Letters: H W pixels.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

DEFAULT_SHORT_SIDE = 256
LARGEST_GROWTH = 1.25
SMALLEST_SHORT_SIDE, LARGEST_SHORT_SIDE = 16, 8192


def stored_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Returns the (width, height) at which a picture is stored.

    Args:
        width: Width of the picture, pixels.
        height: Height of the picture, pixels.
        short_side: The short side gets exactly this length, even if that enlarges the picture, and the long side is
            rounded down to an even number: 320x240 becomes 340x256 at 256 (paper.md 1.1). None: 256, but nothing is
            enlarged more than 1.25 times: UCF101's and HMDB51's 240 rows become the paper's 256, which its crops are
            made for, while small clips (80x64) keep their size, since enlarging them four times would add no detail
            and cost 16 times the time and disk.
    """
    if short_side is None:
        if min(width, height) * LARGEST_GROWTH < DEFAULT_SHORT_SIDE:
            return width, height
        short_side = DEFAULT_SHORT_SIDE
    if width == height:
        return short_side, short_side
    long_side = max(width, height) * short_side // min(width, height)
    # A picture barely off square must not have its long side rounded below the short one.
    long_side = max(long_side - long_side % 2, short_side)
    return (long_side, short_side) if width > height else (short_side, long_side)


def resize(picture: "np.ndarray", width: int, height: int) -> "np.ndarray":
    """Resizes uint8 [H, W, 3] to [height, width, 3]; returns the picture itself if it has that size.

    Bicubic with Keys' a = -0.5, widened when shrinking against aliasing, as Pillow and MATLAB define it.
    PyTorch's uint8 kernel does exactly this. Measured on one core, against Pillow's in float, mean error in grey levels
    and milliseconds a frame: 320x240 to 340x256 0.23 and 1.6, 1280x720 to 454x256 (noise) 0.27 and 3.0. swscale's
    BICUBIC in one pass from YUV takes 0.7 and 1.8 ms, but is darker by 0.4 (mean error 0.9 and 7.8: it shrinks
    chroma first); OpenCV's INTER_CUBIC takes 0.6 and 1.5 ms, but aliases when it shrinks (mean error 31.5).
    """
    if picture.shape[:2] == (height, width):
        return picture
    import torch
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
    resized = interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def resize_on(pictures: "torch.Tensor", width: int, height: int) -> "torch.Tensor":
    """The same on any device, bit for bit: uint8 [N, H, W, 3] to [N, height, width, 3].

    PyTorch's kernel for bytes is for the CPU alone. It is integer arithmetic: rows first, then columns, each with
    16-bit weights and rounded to bytes.
    """
    return _along(_along(pictures, 2, width), 1, height)


def _along(pictures: "torch.Tensor", axis: int, size: int) -> "torch.Tensor":
    import torch

    if pictures.shape[axis] == size:
        return pictures
    places, weights, shift = _taps(pictures.shape[axis], size, pictures.device)
    shape = [1] * pictures.ndim
    shape[axis] = size
    total = torch.full((), 1 << (shift - 1), dtype=torch.int32, device=pictures.device)
    for place, weight in zip(places, weights, strict=True):
        total = total + pictures.index_select(axis, place) * weight.view(shape)
    return (total >> shift).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=32)
def _taps(size: int, wanted: int, device: "torch.device") -> tuple["torch.Tensor", "torch.Tensor", int]:
    """For every tap k and place i along a side the source of i and its weight, int32 [k, i], and by how many bits the
    weights are shifted (`_compute_index_ranges_int16_weights` of ATen)."""
    import numpy as np
    import torch

    scale = size / wanted
    widened = max(scale, 1.0)
    centers = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((centers - 2 * widened + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + 2 * widened + 0.5).astype(np.int64), size)
    places = first + np.arange(int((last - first).max()))[:, None]
    x = np.abs((places - centers + 0.5) * (1 / widened))
    keys = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((x - 5) * x + 8) * x * -0.5 + 2, 0.0))
    weights = np.where(places < last, keys, 0.0)
    total = np.zeros(wanted)
    for each in weights:  # in order, as they are added up there
        total += each
    weights *= 1 / total
    shift = 0
    while shift < 22 and int(0.5 + weights.max() * (1 << (shift + 1))) < 1 << 15:
        shift += 1
    rounded = np.trunc(weights * (1 << shift) + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    sources = np.minimum(places, size - 1).astype(np.int32)
    return torch.from_numpy(sources).to(device), torch.from_numpy(rounded).to(device), shift
