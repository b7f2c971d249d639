"""Pixels on their way from a loader's process to the device: as stored, each picture once.

A stack of ten flow fields shares nine with its neighbour's, and a crop is most often smaller than what it is resized
to, so that the distinct pictures, cut out, are what is worth shipping; `preparation` makes the network's input of them.

Letters: T frames, P pictures that make one frame's input (1 RGB frame, L flow fields), n distinct pictures of C
channels (RGB; x and y), H W their pixels, h w the network's input.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import numpy as np
import torch

from pipelines.datasets.augmentation import Crop, Size


@dataclass(frozen=True)
class Clip:
    """One stream of one sample."""

    pixels: torch.Tensor
    """[n, C, H, W], distinct pictures."""
    frame_index: np.ndarray
    """int64 [T, P]: the pictures whose channels, one after the other, are the input of each frame."""
    crop: Crop
    """The part of the pixels to show, and whether mirrored."""
    size: Size
    """(h, w), to which it is resized."""
    gain: float = 1.0
    """What the input is multiplied by once it is normalised."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input that this becomes: (T, P*C, h, w)."""
        frames, pictures = self.frame_index.shape
        return (frames, pictures * self.pixels.shape[1], *self.size)

    def frames(self, indices: Sequence[int]) -> "Clip":
        """Only these of the T frames; shares the pixels."""
        return replace(self, frame_index=self.frame_index[list(indices)])

    def cropped(self) -> torch.Tensor:
        """The pixels of the crop, not mirrored: [n, C, H', W'], a view."""
        crop = self.crop
        return self.pixels[..., crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]

    def copy_crop(self) -> "Clip":
        """The same with nothing but the crop's pixels, copied."""
        return replace(self, pixels=self.cropped().clone(), crop=replace(self.crop, top=0, left=0))


class Clips(Sequence[Clip]):
    """One stream of several samples of equal shape, or the views of one video, which share their pixels."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.clips = tuple(clips)
        assert len({clip.shape for clip in self.clips}) == 1, "clips of one batch have one shape"

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> "Clips": ...
    def __getitem__(self, index: int | slice) -> "Clip | Clips":
        return Clips(self.clips[index]) if isinstance(index, slice) else self.clips[index]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input that these become: (B, T, P*C, h, w)."""
        return (len(self), *self.clips[0].shape)

    @property
    def device(self) -> torch.device:
        return self.clips[0].pixels.device

    def frames(self, indices: Sequence[int]) -> "Clips":
        """Only these of the T frames of each."""
        return Clips([clip.frames(indices) for clip in self.clips])

    def packed(self) -> "Clips":
        """The same with all pixels end to end in one buffer: one file in shared memory, one copy to a device."""
        buffer = torch.empty(sum(clip.pixels.numel() for clip in self.clips), dtype=self.clips[0].pixels.dtype)
        pieces = buffer.split([clip.pixels.numel() for clip in self.clips])
        clips = []
        for clip, piece in zip(self.clips, pieces, strict=True):
            piece.view(clip.pixels.shape).copy_(clip.pixels)
            clips.append(replace(clip, pixels=piece.view(clip.pixels.shape)))
        return Clips(clips)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Clips":
        """The same on another device."""
        return self._with_buffers([buffer.to(device, non_blocking=non_blocking) for buffer in self._buffers()])

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        for clip in self._first_of_each():
            clip.pixels.record_stream(stream)

    def pin_memory(self) -> "Clips":
        return self._with_buffers([buffer.pin_memory() for buffer in self._buffers()])

    def __reduce__(self) -> tuple[Any, ...]:
        """Buffers and where in them: a tensor each would be an open file each on its way between processes."""
        return _rebuilt, (self._buffers(), self._where(), self._without_pixels())

    def _buffers(self) -> list[torch.Tensor]:
        """The stretches of memory that hold the pixels, [pixels] each."""
        return [
            pixels.as_strided((stop - start,), (1,), start)
            for pixels, start, stop in (
                (clip.pixels, *self._stretches[_memory(clip)]) for clip in self._first_of_each()
            )
        ]

    def _where(self) -> list[tuple[int, int]]:
        """For each clip the number of its buffer and its place there."""
        numbers = {_memory(clip): number for number, clip in enumerate(self._first_of_each())}
        return [
            (numbers[_memory(clip)], int(clip.pixels.storage_offset()) - self._stretches[_memory(clip)][0])
            for clip in self.clips
        ]

    def _first_of_each(self) -> list[Clip]:
        return list({_memory(clip): clip for clip in reversed(self.clips)}.values())[::-1]

    @cached_property
    def _stretches(self) -> dict[int, tuple[int, int]]:
        """The bytes start..stop-1 that these clips take of each piece of memory, of which others may hold more."""
        found: dict[int, tuple[int, int]] = {}
        for clip in self.clips:
            pixels = clip.pixels
            first = int(pixels.storage_offset())
            last = first + sum((size - 1) * stride for size, stride in zip(pixels.shape, pixels.stride(), strict=True))
            start, stop = found.get(_memory(clip), (first, last + 1))
            found[_memory(clip)] = (min(start, first), max(stop, last + 1))
        return found

    def _with_buffers(self, buffers: Sequence[torch.Tensor]) -> "Clips":
        return _rebuilt(buffers, self._where(), self._without_pixels())

    def _without_pixels(self) -> list[tuple[Any, ...]]:
        return [
            (clip.pixels.shape, clip.pixels.stride(), clip.frame_index, clip.crop, clip.size, clip.gain)
            for clip in self.clips
        ]


def _rebuilt(
    buffers: Sequence[torch.Tensor], where: Sequence[tuple[int, int]], rest: Sequence[tuple[Any, ...]]
) -> Clips:
    """Views of one place and shape become one tensor again."""
    views: dict[tuple[Any, ...], torch.Tensor] = {}
    clips = []
    for (number, start), (shape, stride, *others) in zip(where, rest, strict=True):
        key = (number, start, shape, stride)
        if key not in views:
            offset = int(buffers[number].storage_offset()) + start
            views[key] = buffers[number].as_strided(shape, stride, offset)
        clips.append(Clip(views[key], *others))
    return Clips(clips)


def _memory(clip: Clip) -> int:
    return clip.pixels.untyped_storage()._cdata


Frames = torch.Tensor | Clips
"""One stream of a batch: as stored, [B, T, C, h, w], ready for normalising, or clips that are yet to be resized."""


def joined(parts: Sequence[Frames]) -> Frames:
    """Batches of one stream and shape, all of one kind, as one."""
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    return torch.cat(tensors) if tensors else Clips([clip for part in parts for clip in part])
