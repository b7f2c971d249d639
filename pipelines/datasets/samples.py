"""The samples of training and test, cut out of stored frames and flow; batches of them."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from pipelines.datasets.artifact_reader import ArtifactReader, DecodedClip
from pipelines.datasets.augmentation import (
    INPUT_FRACTION,
    Crop,
    Size,
    draw_crop,
    jitter_colors,
    view_crops,
)
from pipelines.datasets.catalogue import Video
from pipelines.datasets.clips import Clip, Clips, Frames, joined
from pipelines.datasets.sampler import Item
from pipelines.datasets.sampling import TemporalSampling, sample_centers, spaced_centers
from pipelines.interface.options import BOTH_STREAMS, Augmentation, StreamName, ViewName
from pipelines.storage.hdf5 import ArtifactError

NO_CLASS = -100  # a label; torch's cross-entropy passes over it


@dataclass(frozen=True)
class BadSample:
    """A video that could not be read, and why."""

    index: int
    id: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """One training sample."""

    rgb: Clip | None
    """What [T, 3, h, w] is made of; None where the appearance stream was not asked for."""
    flow: Clip | None
    """What [T, 2L, h, w] is made of; None where the motion stream was not asked for."""
    label: int
    """Index of the class."""
    index: int
    """Of the video among the training videos."""


@dataclass(frozen=True)
class TestSample:
    """One video of the test in V views: first as they are, then all of them mirrored.

    They share the pixels of whole pictures.
    """

    __test__ = False  # no test, whatever pytest makes of the name

    rgb: Clips | None
    """What [V, T, 3, h, w] is made of; None where the appearance stream was not asked for."""
    flow: Clips | None
    """What [V, T, 2L, h, w] is made of; None where the motion stream was not asked for."""
    label: int
    """Index of the class."""
    index: int
    """Of the video among the test videos."""

    def with_views(self, size: Size, *, views: ViewName, mirror: bool, reference: float) -> Self:
        """The same pixels in other views, as `TestSamples` with these settings would give them; copies nothing."""
        rgb, flow = (
            None if x is None else _in_views(x[0], size, views=views, mirror=mirror, reference=reference)
            for x in (self.rgb, self.flow)
        )
        return replace(self, rgb=rgb, flow=flow)

    def to(self, device: torch.device | str) -> Self:
        """The same on another device; does not wait for copies out of pinned memory."""
        rgb, flow = (None if x is None else x.to(device, non_blocking=True) for x in (self.rgb, self.flow))
        return replace(self, rgb=rgb, flow=flow)

    def pin_memory(self) -> Self:
        rgb, flow = (None if x is None else x.pin_memory() for x in (self.rgb, self.flow))
        return replace(self, rgb=rgb, flow=flow)


@dataclass(frozen=True)
class Batch:
    """Samples side by side. `preparation.Prepare` makes the network's input of both streams."""

    rgb: Frames | None
    """As loaded, or uint8 [B, T, 3, h, w]; None without the appearance stream, and where every sample was bad."""
    flow: Frames | None
    """As loaded, or levels [B, T, 2L, h, w]; None without the motion stream, and where every sample was bad."""
    labels: torch.Tensor
    """int64 [B], indices of classes, or `NO_CLASS`."""
    indices: torch.Tensor
    """int64 [B], of the videos among the training videos."""
    bad: dict[str, str] = field(default_factory=dict)
    """The ids of videos that could not be read, and why."""
    missing_positions: tuple[int, ...] = ()
    """Where they stood among the samples requested."""

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def joined(cls, parts: Sequence["Batch"]) -> "Batch":
        """The samples of all, in order."""
        starts = itertools.accumulate((part.requested for part in parts), initial=0)
        rgb = [part.rgb for part in parts if part.rgb is not None]
        flow = [part.flow for part in parts if part.flow is not None]
        return cls(
            joined(rgb) if rgb else None,
            joined(flow) if flow else None,
            torch.cat([part.labels for part in parts]),
            torch.cat([part.indices for part in parts]),
            {id_: reason for part in parts for id_, reason in part.bad.items()},
            tuple(
                start + position
                for part, start in zip(parts, starts, strict=False)
                for position in part.missing_positions
            ),
        )

    def part(self, start: int, stop: int) -> "Batch":
        """The samples start..stop-1, without `bad`."""
        rgb, flow = (None if x is None or start >= stop else x[start:stop] for x in (self.rgb, self.flow))
        return Batch(rgb, flow, self.labels[start:stop], self.indices[start:stop])

    @property
    def requested(self) -> int:
        """How many samples were requested."""
        return len(self) + len(self.missing_positions)

    def requested_range(self, start: int, stop: int) -> "Batch":
        """The readable ones of the samples start..stop-1 that were requested, without `bad`."""
        first, last = (bound - sum(missing < bound for missing in self.missing_positions) for bound in (start, stop))
        return self.part(first, last)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device; does not wait for copies out of pinned memory."""
        rgb, flow = (None if x is None else x.to(device, non_blocking=True) for x in (self.rgb, self.flow))
        return replace(self, rgb=rgb, flow=flow, labels=self.labels.to(device, non_blocking=True))

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Says that `stream` uses what another one has copied."""
        for content in (self.rgb, self.flow, self.labels):
            if content is not None:
                content.record_stream(stream)

    def pin_memory(self) -> "Batch":
        rgb, flow = (None if x is None else x.pin_memory() for x in (self.rgb, self.flow))
        return replace(self, rgb=rgb, flow=flow, labels=self.labels.pin_memory())


def collate(samples: Sequence[Sample | BadSample]) -> Batch:
    """The good samples stacked, the bad ones listed."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    bad = {sample.id: sample.reason for sample in samples if isinstance(sample, BadSample)}
    return Batch(
        _together([sample.rgb for sample in good]),
        _together([sample.flow for sample in good]),
        torch.tensor([sample.label for sample in good], dtype=torch.int64),
        torch.tensor([sample.index for sample in good], dtype=torch.int64),
        bad,
        tuple(position for position, sample in enumerate(samples) if isinstance(sample, BadSample)),
    )


def _together(clips: Sequence[Clip | None]) -> Clips | None:
    present = [clip for clip in clips if clip is not None]
    if not present:
        return None
    return Clips(present) if get_worker_info() is None else Clips(present).packed()


# ------------------------------------------------------------------ data sets


class _Samples(Dataset[Any]):
    """Samples by what a sampler gives: an `Item`, or the index of a video."""

    def __init__(self, videos: Sequence[Video], labels: Sequence[int], reader: ArtifactReader) -> None:
        if len(videos) != len(labels):
            raise ValueError(f"{len(videos)} videos have {len(labels)} labels")
        self.videos, self.labels, self.reader = list(videos), [int(label) for label in labels], reader

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: Item | int) -> Any:
        return self.make(*self.request(key))

    def request(self, key: Item | int) -> tuple[Any, Video, int]:
        """What `make` takes: the key, the video that it means, and the index of its class."""
        index = key.video if isinstance(key, Item) else key
        return key, self.videos[index], self.labels[index]

    def make(self, key: Any, video: Video, label: int) -> Any:
        """The sample of a video, or a `BadSample`; looks at neither `videos` nor `labels`."""
        raise NotImplementedError


class TrainingSamples(_Samples):
    """Training samples by `Item`, as `StepSampler` gives them."""

    def __init__(
        self,
        videos: Sequence[Video],
        labels: Sequence[int],
        *,
        sampling: TemporalSampling,
        scheme: Augmentation,
        size: Size,
        streams: Iterable[StreamName] = BOTH_STREAMS,
        seed: int,
        step_index: int,
        mirror: bool = True,
        color_jitter: float = 0.0,
        flow_scale: float = 1.0,
    ) -> None:
        """
        Args:
            videos: The training videos.
            labels: The class index of each.
            sampling: T, stride, L.
            scheme: The crops (`augmentation.draw_crop`).
            size: (h, w) of the network's input.
            streams: What to read.
            seed: Of the run; with the step, the epoch and the position in it, the seed of every draw.
            step_index: Of the training step.
            mirror: Whether half of the samples are mirrored.
            color_jitter: How far brightness, contrast and saturation may change (`augmentation.jitter_colors`).
            flow_scale: X of 1 or more; each sample's normalised flow is multiplied by one factor, drawn log-uniformly
                between 1/X and X.
        """
        super().__init__(videos, labels, ArtifactReader(streams, sampling.stack))
        self.sampling = sampling
        self.scheme = scheme
        self.size = (int(size[0]), int(size[1]))
        self.seed, self.step_index = seed, step_index
        self.mirror, self.color_jitter, self.flow_scale = mirror, color_jitter, flow_scale

    def make(self, item: Item, video: Video, label: int) -> Sample | BadSample:
        epoch, i, index = item
        rng = np.random.default_rng((self.seed, self.step_index, epoch, i))
        try:
            centers = sample_centers(_length(video), self.sampling, rng, video.flow_step)
            pixels = self.reader.read(video, centers)
        except ArtifactError as error:
            return BadSample(index, video.id, str(error))
        height, width = pixels.sizes()[0]
        crop = draw_crop(self.scheme, height, width, self.size, rng, mirror=self.mirror)
        rgb, flow = pixels.rgb(crop, self.size), pixels.flow(crop, self.size)
        if rgb is not None and self.color_jitter:
            rgb = replace(rgb, pixels=jitter_colors(rgb.pixels, self.color_jitter, rng))
        if flow is not None and self.flow_scale != 1:
            # Drawn last, so that it changes nothing else.
            flow = replace(flow, gain=self.flow_scale ** rng.uniform(-1, 1))
        return Sample(rgb, flow, label, index)


class TestSamples(_Samples):
    """Whole videos for the test, by their index.

    Windows over time (`sampling.windows`) are cut from these by whoever scores them.
    """

    __test__ = False  # no test, whatever pytest makes of the name

    def __init__(
        self,
        videos: Sequence[Video],
        labels: Sequence[int],
        *,
        size: Size,
        crops: int = 25,
        views: ViewName = "full",
        mirror: bool = True,
        reference: float = INPUT_FRACTION,
        stack: int = 10,
        streams: Iterable[StreamName] = BOTH_STREAMS,
        clip: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            videos: The test videos.
            labels: The class index of each.
            size: (h, w) of the network's input.
            crops: T, frames of a video.
            views: The crops of each frame (`augmentation.view_crops`).
            mirror: Whether the mirrors of all views follow them.
            reference: What the network's training crops covered (`augmentation.REFERENCE` of their scheme).
            stack: L, flow fields around a frame.
            streams: What to read.
            clip: Frames of a clip and their distance, where they are in clips (`sampling.spaced_centers`).
        """
        super().__init__(videos, labels, ArtifactReader(streams, stack))
        self.size = (int(size[0]), int(size[1]))
        self.crops, self.views, self.mirror, self.reference = crops, views, mirror, reference
        self.clip = clip

    def make(self, index: int, video: Video, label: int) -> TestSample | BadSample:
        try:
            centers = spaced_centers(_length(video), self.crops, self.reader.stack, video.flow_step, self.clip)
            pixels = self.reader.read(video, centers)
        except ArtifactError as error:
            return BadSample(index, video.id, str(error))
        rgb, flow = views_of(pixels, self.size, views=self.views, mirror=self.mirror, reference=self.reference)
        return TestSample(rgb, flow, label, index)


def views_of(
    pixels: DecodedClip, size: Size, *, views: ViewName, mirror: bool, reference: float
) -> tuple[Clips | None, Clips | None]:
    """What the test shows a network of a video.

    Args:
        size: (h, w) that the network was trained at.
        views: The crops of each frame.
        mirror: Whether the mirrors of all views follow them.
        reference: What the network's training crops covered.

    Returns:
        What rgb [V, T, 3, h, w] and flow [V, T, 2L, h, w] are made of; None for what `pixels` does not hold.
    """
    whole = Crop(0, 0, *pixels.sizes()[0])
    rgb, flow = (
        None if clip is None else _in_views(clip, size, views=views, mirror=mirror, reference=reference)
        for clip in (pixels.rgb(whole, size), pixels.flow(whole, size))
    )
    return rgb, flow


def _in_views(clip: Clip, size: Size, *, views: ViewName, mirror: bool, reference: float) -> Clips:
    """The views of a clip that holds whole pictures; all share its pixels."""
    crops, size = view_crops(clip.crop.height, clip.crop.width, views, size, reference=reference)
    if mirror:
        crops = crops + [replace(crop, mirror=True) for crop in crops]
    return Clips([replace(clip, crop=crop, size=size) for crop in crops])


def _length(video: Video) -> int:
    if video.damage:
        raise ArtifactError(video.damage)
    if video.frames < 1:
        raise ArtifactError(f"{video.id} has no frames at all: extract it again")
    return video.frames
