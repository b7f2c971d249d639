"""The pixels that some centers of a video need, read once each.

Letters: T centers, L flow fields of a stack, n m distinct frames and fields, H W stored pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.datasets.augmentation import Crop, Size
from pipelines.datasets.catalogue import Video
from pipelines.datasets.clips import Clip
from pipelines.datasets.open_files import OpenArtifactCache
from pipelines.datasets.sampling import contiguous_runs, flow_indices
from pipelines.interface.options import StreamName
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError


class ArtifactReader:
    """Reads the pixels that some centers of a video need, each frame and field once."""

    def __init__(self, streams: Iterable[StreamName], stack: int) -> None:
        """
        Args:
            stack: L, flow fields around a center.
        """
        self.streams, self.stack = tuple(streams), stack
        self.open_files = OpenArtifactCache()

    def read(self, video: Video, centers: np.ndarray) -> "DecodedClip":
        """Reads what a sample of a video needs.

        Args:
            video: With frames or flow, by the streams.
            centers: int64 [T], indices of frames.

        Raises:
            ArtifactError: An artifact is absent, damaged, or does not fit the other.
        """
        frames = fields = None
        frame_index = stack_index = np.empty(0, dtype=np.int64)
        try:
            if "appearance" in self.streams:
                frames, frame_index = self._frames(video, centers)
            if "motion" in self.streams:
                fields, stack_index = self._fields(video, centers)
        except ArtifactError:
            self.open_files.discard(video.frames_file)
            self.open_files.discard(video.flow_file)
            raise
        clip = DecodedClip(frames, frame_index, fields, stack_index)
        sizes = clip.sizes()
        if len(sizes) > 1:
            raise ArtifactError(
                f"{video.frames_file} and {video.flow_file} differ in size (height x width "
                f"{' and '.join(f'{h}x{w}' for h, w in sizes)}): extract both with the same --short-side"
            )
        return clip

    def _frames(self, video: Video, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The distinct frames [n,H,W,3] and, for each center, which of them it is: [T]."""
        if video.frames_file is None:
            raise ArtifactError(f"{video.id} has no frames: run `stres extract-frames`")
        distinct, index = np.unique(centers, return_inverse=True)
        pictures = self.open_files.open(video.frames_file, FrameFile).read([int(center) for center in distinct])
        if len({picture.shape for picture in pictures}) > 1:
            raise ArtifactError(f"{video.frames_file} holds frames of different sizes: extract it again")
        return np.stack(pictures), index

    def _fields(self, video: Video, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The distinct fields [n,2,H,W] and, for each center, which of them make its stack: [T,L]."""
        if video.flow_file is None:
            raise ArtifactError(f"{video.id} has no flow: run `stres extract-flow`")
        stacks = np.stack([flow_indices(int(center), video.flow_fields, self.stack) for center in centers])
        file = self.open_files.open(video.flow_file, FlowFile)
        pieces = [file.read(start, stop) for start, stop in contiguous_runs(stacks)]
        index = np.unique(stacks, return_inverse=True)[1]
        return np.concatenate(pieces), index.reshape(stacks.shape)


@dataclass(frozen=True)
class DecodedClip:
    """The distinct pictures that the T centers of a sample need, and where they stand."""

    frames: np.ndarray | None
    """uint8 [n, H, W, 3]; None where the appearance stream was not read."""
    frame_index: np.ndarray
    """int64 [T]: which of `frames` each center is."""
    fields: np.ndarray | None
    """Levels [m, 2, H, W]; None where the motion stream was not read."""
    stack_index: np.ndarray
    """int64 [T, L]: which of `fields` make each center's stack."""

    def sizes(self) -> list[tuple[int, int]]:
        """The distinct (H, W) of frames and fields: one, unless they do not belong together."""
        sizes = [] if self.frames is None else [self.frames.shape[1:3]]
        sizes += [] if self.fields is None else [self.fields.shape[2:]]
        return sorted(set(sizes))

    def rgb(self, crop: Crop, size: Size) -> Clip | None:
        """The RGB frames of this crop, copied, to be resized to `size`."""
        if self.frames is None:
            return None
        pixels = torch.from_numpy(self.frames.transpose(0, 3, 1, 2))
        return Clip(pixels, self.frame_index[:, None], crop, size).copy_crop()

    def flow(self, crop: Crop, size: Size) -> Clip | None:
        """The flow stacks of this crop, copied, to be resized to `size`."""
        if self.fields is None:
            return None
        return Clip(torch.from_numpy(self.fields), self.stack_index, crop, size).copy_crop()
