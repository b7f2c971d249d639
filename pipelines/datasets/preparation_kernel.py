# mypy: ignore-errors
"""The network's input on a GPU in one pass, from bytes to 16 bits: what `preparation.Prepare` else does in several.

It knows geometry only: which pixels a crop, its mirror and bilinear resizing take. What a byte stands for, mirrored or
not, it is told as a line, since both rules are linear in the byte: it makes no difference whether they or resizing come
first.

Letters: B clips, T frames, P pictures that a frame takes, n distinct pictures of C channels, H W pixels, h w input.
"""

from collections.abc import Mapping

import numpy as np
import torch
import triton
import triton.language as tl

from pipelines.datasets.clips import Clips

_PIXELS = 64  # of a program, by all channels: reasoned, not yet measured
_VARYING = (
    *("pixels", "frame_index", "picture_stride", "channel_stride", "row_stride", "top", "left", "crop_height"),
    *("crop_width", "mirrored", "height", "width", "scale_y", "scale_x", "gain"),
)


@triton.jit(do_not_specialize=_VARYING)  # one compilation for all crops and sizes, wherever the pixels begin
def prepare(
    pixels, frame_index, lines, out,
    picture_stride, channel_stride, row_stride, column_stride,
    top, left, crop_height, crop_width, mirrored, height, width, scale_y, scale_x, gain,
    CHANNELS_EACH: tl.constexpr, PICTURES: tl.constexpr, CHANNELS: tl.constexpr,
    CHANNELS_UP: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Some pixels of a frame: [T, h, w, CHANNELS] of [n, C, H, W]; channels that no picture has are 0.

    lines: float32 [2, C], what byte 0 stands for in each channel, and what a step from byte to byte adds.
    CHANNELS_UP: the power of two that CHANNELS is rounded up to.
    """
    frame = tl.program_id(1)
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = place < height * width
    y, x = place // width, place % width
    # As torch's bilinear resizing has it: between the centers of pixels, in this order of operations.
    at_y = tl.maximum((y + 0.5) * scale_y - 0.5, 0.0)
    at_x = tl.maximum((x + 0.5) * scale_x - 0.5, 0.0)
    upper = tl.minimum(at_y.to(tl.int32), crop_height - 1)
    before = tl.minimum(at_x.to(tl.int32), crop_width - 1)
    y1, x1 = (at_y - upper)[None, :], (at_x - before)[None, :]
    lower, after = tl.minimum(upper + 1, crop_height - 1), tl.minimum(before + 1, crop_width - 1)
    if mirrored:
        before, after = crop_width - 1 - before, crop_width - 1 - after
    channel = tl.arange(0, CHANNELS_UP)
    is_given = channel < PICTURES * CHANNELS_EACH
    picture = tl.load(frame_index + frame * PICTURES + channel // CHANNELS_EACH, mask=is_given, other=0).to(tl.int64)
    of_picture = channel % CHANNELS_EACH
    plane = (pixels + picture * picture_stride + of_picture * channel_stride)[:, None]
    above, below = (top + upper) * row_stride, (top + lower) * row_stride
    before, after = (left + before) * column_stride, (left + after) * column_stride
    # Channels by pixels: the threads of a warp read bytes that lie side by side, and write after the turn.
    wanted = is_given[:, None] & inside[None, :]
    a = tl.load(plane + (above + before)[None, :], mask=wanted, other=0).to(tl.float32)
    b = tl.load(plane + (above + after)[None, :], mask=wanted, other=0).to(tl.float32)
    c = tl.load(plane + (below + before)[None, :], mask=wanted, other=0).to(tl.float32)
    d = tl.load(plane + (below + after)[None, :], mask=wanted, other=0).to(tl.float32)
    value = (1.0 - y1) * ((1.0 - x1) * a + x1 * b) + y1 * ((1.0 - x1) * c + x1 * d)
    start = tl.load(lines + of_picture, mask=is_given, other=0.0)[:, None]
    slope = tl.load(lines + CHANNELS_EACH + of_picture, mask=is_given, other=0.0)[:, None]
    made = tl.trans((gain * (start + slope * value)).to(out.dtype.element_ty))
    target = out + (frame * height * width + place).to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(target, made, mask=inside[:, None] & (channel < CHANNELS)[None, :])


def prepare_clips(clips: Clips, lines: Mapping[bool, torch.Tensor], channels: int, dtype: torch.dtype) -> torch.Tensor:
    """The input that clips become, [B, T, channels, h, w] and channels_last in memory, on their device.

    Args:
        clips: Whose pixels are [n, C, H, W], in whatever order in memory.
        lines: float32 [2, C]: what a stored 0 stands for in each channel, and what every step adds; without a mirror,
            and with one.
        channels: P*C or more; those that are more are 0.
    """
    batch, frames, _, height, width = clips.shape
    out = torch.empty((batch, frames, height, width, channels), dtype=dtype, device=clips.device)
    index = torch.from_numpy(np.stack([clip.frame_index for clip in clips]).astype(np.int32))
    if clips.device.type == "cuda":
        index = index.pin_memory().to(clips.device, non_blocking=True)
    with torch.cuda.device_of(out):  # Triton launches on the thread's current GPU, which need not be the clips'
        for clip, of_clip, into in zip(clips, index, out, strict=True):
            crop = clip.crop
            prepare[(triton.cdiv(height * width, _PIXELS), frames)](
                clip.pixels, of_clip, lines[crop.mirror], into, *clip.pixels.stride(),
                crop.top, crop.left, crop.height, crop.width, int(crop.mirror),
                height, width, crop.height / height, crop.width / width, clip.gain,
                CHANNELS_EACH=clip.pixels.shape[1], PICTURES=index.shape[2], CHANNELS=channels,
                CHANNELS_UP=triton.next_power_of_2(channels), PIXELS=_PIXELS,
            )  # fmt: skip
    return out.movedim(-1, -3)
