"""Pixels on their way from a loader's process to the device: uint8 as stored, each picture once.

A stack of ten flow fields shares nine with its neighbour's, and a crop is most often smaller than what it is resized
to, so that the distinct pictures, cut out, are what is worth shipping; `preparation` makes the network's input of them.

Letters: T frames, P pictures that make one frame's input (1 RGB frame, L flow fields), n distinct pictures of C
channels (RGB; x and y), H W their pixels, h w the network's input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch

from pipelines.datasets.augmentation import Crop, Size


@dataclass(frozen=True)
class Clip:
    """One stream of one sample.

    pixels  uint8 [n, C, H, W]
    places  int64 [T, P]: the pictures whose channels, one after the other, are the input of each frame
    crop    the part of the pixels to show, and whether mirrored
    size    (h, w), to which it is resized
    """

    pixels: torch.Tensor
    places: np.ndarray
    crop: Crop
    size: Size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input that this becomes: (T, P*C, h, w)."""
        frames, pictures = self.places.shape
        return (frames, pictures * self.pixels.shape[1], *self.size)

    def frames(self, indices: Sequence[int]) -> "Clip":
        """Only these of the T frames; shares the pixels."""
        return replace(self, places=self.places[list(indices)])

    def shown(self) -> torch.Tensor:
        """The pixels of the crop, not mirrored: uint8 [n, C, H', W'], a view."""
        crop = self.crop
        return self.pixels[..., crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]

    def cut(self) -> "Clip":
        """The same with nothing but the crop's pixels, copied."""
        return replace(self, pixels=self.shown().clone(), crop=replace(self.crop, top=0, left=0))


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

    @property
    def nbytes(self) -> int:
        """Of the distinct pixels."""
        return sum({id(clip.pixels): clip.pixels.nbytes for clip in self.clips}.values())

    def frames(self, indices: Sequence[int]) -> "Clips":
        """Only these of the T frames of each."""
        return Clips([clip.frames(indices) for clip in self.clips])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Clips":
        """The same on another device."""
        return self._each(lambda pixels: pixels.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Clips":
        return self._each(torch.Tensor.pin_memory)

    def _each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Clips":
        done: dict[int, torch.Tensor] = {}  # views share their pixels, before and after
        for clip in self.clips:
            if id(clip.pixels) not in done:
                done[id(clip.pixels)] = function(clip.pixels)
        return Clips([replace(clip, pixels=done[id(clip.pixels)]) for clip in self.clips])


Frames = torch.Tensor | Clips
"""One stream of a batch: uint8 [B, T, C, h, w] ready for normalising, or clips that are yet to be resized."""


def joined(parts: Sequence[Frames]) -> Frames:
    """Batches of one stream and shape, all of one kind, as one."""
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    return torch.cat(tensors) if tensors else Clips([clip for part in parts for clip in part])
