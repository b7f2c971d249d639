"""From artifacts to what the device prepares: samples of the training, whole videos of the test, and their loaders.

Letters: B videos, T frames, L flow fields of a stack, V views, H W stored pixels, h w the network's input.

Every draw of a sample comes from `default_rng((seed, step_index, epoch, i))`, never from a worker's state: numbers of
workers and interruptions change no sample. A damaged artifact gives a `BadSample`, never an exception, never another
video.
"""

import contextlib
import copy
import io
import itertools
import mmap
import os
import pickle
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.reduction import DupFd
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipelines.artifacts import ArtifactError
from pipelines.datasets.augmentation import (
    INPUT_FRACTION,
    Crop,
    Scheme,
    Size,
    ViewName,
    draw_crop,
    view_crops,
)
from pipelines.datasets.catalogue import Video
from pipelines.datasets.clips import Clip, Clips, Frames, joined
from pipelines.datasets.order import Item
from pipelines.datasets.reading import BOTH_STREAMS, Pixels, StreamName, VideoReader
from pipelines.datasets.sampling import TemporalSampling, sample_centres, spaced_centres
from pipelines.errors import MissingError
from pipelines.interruption import STOP_SIGNALS
from pipelines.workers import Limits, start_fork_server


@dataclass(frozen=True)
class BadSample:
    """A video that could not be read, and why."""

    index: int
    id: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """One training sample: what `rgb` [T,3,h,w] and `flow` [T,2L,h,w] are made of; None for a stream not asked for."""

    rgb: Clip | None
    flow: Clip | None
    label: int
    index: int


@dataclass(frozen=True)
class TestSample:
    """One video of the test: what `rgb` [V,T,3,h,w] and `flow` [V,T,2L,h,w] are made of; None for a stream not asked
    for. Views come first as they are, then all of them mirrored. They share the pixels of whole pictures."""

    __test__ = False  # no test, whatever pytest makes of the name

    rgb: Clips | None
    flow: Clips | None
    label: int
    index: int

    def seen(self, size: Size, *, views: ViewName, mirror: bool, reference: float) -> Self:
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
        return type(self)(rgb, flow, self.label, self.index)


@dataclass(frozen=True)
class Batch:
    """Samples side by side: `rgb` and `flow` as loaded, or as uint8 [B,T,3,h,w] and [B,T,2L,h,w] (None for an absent
    stream, and where every sample was bad), `labels` and `indices` int64 [B]; `bad` maps the ids of unreadable videos
    to the reason, and `missing` lists their places among the samples asked for. `preparation.Prepare` makes the
    network's input of both."""

    rgb: Frames | None
    flow: Frames | None
    labels: torch.Tensor
    indices: torch.Tensor
    bad: dict[str, str] = field(default_factory=dict)
    missing: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def joined(cls, parts: Sequence["Batch"]) -> "Batch":
        """The samples of all, in order."""
        starts = itertools.accumulate((part.places for part in parts), initial=0)
        rgb = [part.rgb for part in parts if part.rgb is not None]
        flow = [part.flow for part in parts if part.flow is not None]
        return cls(
            joined(rgb) if rgb else None,
            joined(flow) if flow else None,
            torch.cat([part.labels for part in parts]),
            torch.cat([part.indices for part in parts]),
            {id_: reason for part in parts for id_, reason in part.bad.items()},
            tuple(start + place for part, start in zip(parts, starts, strict=False) for place in part.missing),
        )

    def part(self, start: int, stop: int) -> "Batch":
        """The samples start..stop-1, without `bad`."""
        rgb, flow = (None if x is None or start >= stop else x[start:stop] for x in (self.rgb, self.flow))
        return Batch(rgb, flow, self.labels[start:stop], self.indices[start:stop])

    @property
    def places(self) -> int:
        """How many samples were asked for."""
        return len(self) + len(self.missing)

    def part_of_places(self, start: int, stop: int) -> "Batch":
        """The readable ones of the samples start..stop-1 that were asked for, without `bad`."""
        first, last = (place - sum(missing < place for missing in self.missing) for place in (start, stop))
        return self.part(first, last)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device; does not wait for copies out of pinned memory."""
        rgb, flow = (None if x is None else x.to(device, non_blocking=True) for x in (self.rgb, self.flow))
        return Batch(rgb, flow, self.labels.to(device, non_blocking=True), self.indices, self.bad, self.missing)

    def pin_memory(self) -> "Batch":
        rgb, flow = (None if x is None else x.pin_memory() for x in (self.rgb, self.flow))
        return Batch(rgb, flow, self.labels.pin_memory(), self.indices, self.bad, self.missing)


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
        tuple(place for place, sample in enumerate(samples) if isinstance(sample, BadSample)),
    )


def _together(clips: Sequence[Clip | None]) -> Clips | None:
    present = [clip for clip in clips if clip is not None]
    if not present:
        return None
    return Clips(present) if get_worker_info() is None else Clips(present).packed()


# ------------------------------------------------------------------ data sets


class TrainingSamples(Dataset[Sample | BadSample]):
    """Training samples by `Item` (epoch, place in it, video), as `StepSampler` deals them.

    videos, labels  the training videos and their class indices
    sampling        T, stride, L
    scheme, mirror  the crops of `augmentation.draw_crop`, and whether half of them are mirrored
    size            (h, w) of the network's input
    streams         what to read
    seed, step_index  with epoch and place, the seed of every draw
    """

    def __init__(
        self,
        videos: Sequence[Video],
        labels: Sequence[int],
        *,
        sampling: TemporalSampling,
        scheme: Scheme,
        size: Size,
        streams: Iterable[StreamName] = BOTH_STREAMS,
        seed: int,
        step_index: int,
        mirror: bool = True,
    ) -> None:
        self.videos, self.labels = _labelled(videos, labels)
        self.sampling = sampling
        self.scheme = scheme
        self.size = (int(size[0]), int(size[1]))
        self.seed, self.step_index = seed, step_index
        self.mirror = mirror
        self.reader = VideoReader(streams, sampling.stack)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, item: Item) -> Sample | BadSample:
        return self.make(item, *self.labelled(item))

    def labelled(self, item: Item) -> tuple[Video, int]:
        """The video that the item names, and its class index."""
        return self.videos[item.video], self.labels[item.video]

    def make(self, item: Item, video: Video, label: int) -> Sample | BadSample:
        """The item's sample, of its video; looks at neither `videos` nor `labels`."""
        epoch, i, index = item
        rng = np.random.default_rng((self.seed, self.step_index, epoch, i))
        try:
            centres = sample_centres(_length(video), self.sampling, rng, video.flow_step)
            pixels = self.reader.read(video, centres)
        except ArtifactError as error:
            return BadSample(index, video.id, str(error))
        height, width = pixels.sizes()[0]
        crop = draw_crop(self.scheme, height, width, self.size, rng, mirror=self.mirror)
        return Sample(pixels.rgb(crop, self.size), pixels.flow(crop, self.size), label, index)


class TestSamples(Dataset[TestSample | BadSample]):
    """Whole videos for the test, by their index: `crops` centres, all views, and their mirrors where asked for.

    `reference` is what the network's training crops covered (`augmentation.REFERENCE` of their scheme). Windows over
    time (`sampling.windows`) are cut from these by whoever scores them.
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
    ) -> None:
        self.videos, self.labels = _labelled(videos, labels)
        self.size = (int(size[0]), int(size[1]))
        self.crops, self.views, self.mirror, self.reference = crops, views, mirror, reference
        self.reader = VideoReader(streams, stack)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> TestSample | BadSample:
        return self.make(index, *self.labelled(index))

    def labelled(self, index: int) -> tuple[Video, int]:
        """The video of that index, and its class index."""
        return self.videos[index], self.labels[index]

    def make(self, index: int, video: Video, label: int) -> TestSample | BadSample:
        """The sample of a video; looks at neither `videos` nor `labels`."""
        try:
            centres = spaced_centres(_length(video), self.crops, self.reader.stack, video.flow_step)
            pixels = self.reader.read(video, centres)
        except ArtifactError as error:
            return BadSample(index, video.id, str(error))
        rgb, flow = views_of(pixels, self.size, views=self.views, mirror=self.mirror, reference=self.reference)
        return TestSample(rgb, flow, label, index)


def views_of(
    pixels: Pixels, size: Size, *, views: ViewName, mirror: bool, reference: float
) -> tuple[Clips | None, Clips | None]:
    """What the test shows a network trained at `size` of these pixels: what rgb [V,T,3,h,w] and flow [V,T,2L,h,w] are
    made of; None for what they do not hold. Views come first as they are, then all of them mirrored where `mirror` asks
    for it."""
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


def _labelled(videos: Sequence[Video], labels: Sequence[int]) -> tuple[list[Video], list[int]]:
    if len(videos) != len(labels):
        raise ValueError(f"{len(videos)} videos have {len(labels)} labels")
    return list(videos), [int(label) for label in labels]


def _length(video: Video) -> int:
    if video.damage:
        raise ArtifactError(video.damage)
    if video.frames < 1:
        raise ArtifactError(f"{video.id} has no frames at all: extract it again")
    return video.frames


# ------------------------------------------------------------------ loaders

Loaded = TypeVar("Loaded")

_ALIGNED = 64  # bytes: where each of a parcel's arrays begins
_TICK = 5.0  # seconds between two looks at whether the processes still live
SAMPLES_AT_ONCE = 4  # of a batch, which a process makes and ships together: what is on its way takes memory


def make_loader(
    dataset: TrainingSamples | TestSamples,
    sampler: Iterable[list[Item]] | Iterable[int],
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Iterable[Any]:
    """A loader in the order of `sampler`, whatever the number of `workers`, in pinned memory for a GPU.

    Training samples come as `Batch` (`sampler` is a `StepSampler`), test samples one by one (`sampler` lists indices).
    Workers are fresh processes of a fork server: a fork of this one would inherit its CUDA context and thread locks.
    """
    # A generator of its own: the loader draws a seed when it starts, which must not move the one that dropout uses.
    options: dict[str, Any] = {"num_workers": workers, "generator": torch.Generator().manual_seed(0)}
    options["pin_memory"] = torch.device(device).type == "cuda"
    if workers > 0:
        options |= {"multiprocessing_context": "forkserver", "worker_init_fn": _start_worker, "prefetch_factor": 2}
        options["timeout"] = _TICK
        _require_room_for_semaphores(workers)
        start_fork_server()
    if isinstance(dataset, TrainingSamples):
        return _Batches(dataset, cast("Iterable[list[Item]]", sampler), options)
    requests = _Requests(dataset, sampler)
    return _loaded(DataLoader(_Maker(dataset), batch_size=None, sampler=requests, collate_fn=_shipped, **options))


def _require_room_for_semaphores(workers: int) -> None:
    """Raises `MissingError` where /dev/shm is so full that torch would come to a stop half way: each of its queues has
    three semaphores, of a page each, and its event five."""
    with contextlib.suppress(OSError):  # elsewhere they lie somewhere else
        shared = os.statvfs("/dev/shm")
        if shared.f_bavail * shared.f_frsize < (8 + 3 * workers) * mmap.PAGESIZE:
            raise MissingError(
                f"/dev/shm is full, and {workers} processes that load videos cannot start without a little of it: free "
                "some space there (in Docker with --shm-size=1g), or load in this process with --workers 0"
            )


class _Maker(Dataset[Any]):
    """What makes samples, without the videos: each comes along with its request, so that a loader process need not be
    given 200,000 of them."""

    def __init__(self, dataset: TrainingSamples | TestSamples) -> None:
        self.dataset = copy.copy(dataset)
        self.dataset.videos, self.dataset.labels = [], []

    def __getitem__(self, request: tuple[Any, Video, int]) -> Any:
        return self.dataset.make(*request)


class _Requests:
    """Sampler of what a `_Maker` takes."""

    def __init__(self, dataset: TrainingSamples | TestSamples, sampler: Iterable[Any]) -> None:
        self.dataset, self.sampler = dataset, sampler

    def __iter__(self) -> Iterator[tuple[Any, Video, int]]:
        for item in self.sampler:
            yield item, *self.dataset.labelled(item)


def _loaded(loader: Iterable[Loaded], patience: float = Limits.patience) -> Iterator[Loaded]:
    """What the loader gives. Raises `MissingError` where one of its processes dies, or where none of them has loaded
    anything for `patience` seconds. However the iteration ends, they have ended after it."""
    loaded = iter(loader)
    processes = getattr(loaded, "_workers", [])
    waited = 0.0
    try:
        while True:
            try:
                item = next(loaded)
            except StopIteration:
                return
            except RuntimeError as error:
                text = str(error)
                if text.startswith("DataLoader timed out"):  # tick by tick: all of us may have been stopped for hours
                    waited += _TICK
                    if waited < patience:
                        continue
                    for process in processes:
                        process.kill()
                    raise MissingError(
                        f"the processes that load videos have loaded nothing for {patience:g} s and were ended: see "
                        "whether the disk answers; the same command continues, and --workers 0 loads in this process"
                    ) from error
                if text.startswith("Too many open files"):
                    raise MissingError(
                        "the processes that load videos have too many open files: raise the limit (ulimit -n 4096) or "
                        "use fewer --workers; the same command continues"
                    ) from error
                if text.startswith("DataLoader worker"):
                    raise MissingError(
                        f"a process that loads videos died, perhaps for want of memory ({error}): the same command "
                        "continues; fewer --workers need less"
                    ) from error
                raise
            waited = 0.0
            yield item
    finally:
        _end(loaded, processes)


def _end(loaded: Iterator[Any], processes: Sequence[Any]) -> None:
    """Ends the loader's processes, of which one that hangs would be waited for at this process's end: they ignore the
    SIGTERM that torch sends."""
    if processes:
        loaded._shutdown_workers()  # type: ignore[attr-defined]
    for process in processes:
        if process.is_alive():
            process.kill()


def _shipped(loaded: Any) -> Any:
    """What has been loaded, on its way out of a loader process."""
    return loaded if get_worker_info() is None else _Parcel(loaded)


class _Parcel:
    """Comes out of the queue as what was put in, its pixels in memory that the two processes share.

    torch's queue would put them into /dev/shm, of which a container has 64 MB, and in a thread that drops what does not
    fit without a word, so that the other side waits for ever (pytorch/pytorch#5040). A memory file has no such limit,
    and what is refused is an error here, in the process's main thread.
    """

    def __init__(self, loaded: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        content = io.BytesIO()
        _Pickler(content, protocol=5, buffer_callback=buffers.append).dump(loaded)
        pieces = [buffer.raw() for buffer in buffers]
        file = os.memfd_create("stres", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as written:
                for piece in pieces:
                    written.write(piece)
                    written.write(bytes(-piece.nbytes % _ALIGNED))
            self._arguments = (DupFd(file), [piece.nbytes for piece in pieces], content.getvalue())
        finally:
            os.close(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, self._arguments


class _Pickler(pickle.Pickler):
    """Takes tensors as NumPy arrays, whose bytes it leaves to the buffers."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, torch.Tensor) else NotImplemented


def _unpacked(handle: Any, sizes: Sequence[int], content: bytes) -> Any:
    """What was put into a `_Parcel`; the memory is freed with the last of its tensors."""
    file = handle.detach()
    *starts, end = itertools.accumulate((size + -size % _ALIGNED for size in sizes), initial=0)
    try:
        memory = memoryview(mmap.mmap(file, end)) if end else memoryview(bytearray())
    finally:
        os.close(file)
    return pickle.loads(
        content, buffers=[memory[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    )


def _collated(samples: Sequence[Sample | BadSample]) -> Any:
    return _shipped(collate(samples))


class _Batches:
    """Batches put together from parts, on which all processes work: at a batch of 128 samples each would otherwise
    have two of its own in the making."""

    def __init__(self, dataset: TrainingSamples, sampler: Iterable[list[Item]], options: dict[str, Any]) -> None:
        self.dataset, self.sampler, self.options = dataset, sampler, options

    def __iter__(self) -> Iterator[Batch]:
        order = _Parts(self.dataset, self.sampler)
        loader = DataLoader(_Maker(self.dataset), batch_sampler=order, collate_fn=_collated, **self.options)
        parts: Iterator[Batch] = _loaded(loader)
        for first in parts:
            yield Batch.joined([first, *itertools.islice(parts, order.counts.popleft() - 1)])


class _Parts:
    """Batch sampler of the parts of each batch; `counts` of how many each has, in order."""

    def __init__(self, dataset: TrainingSamples, sampler: Iterable[list[Item]]) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.counts: deque[int] = deque()

    def __iter__(self) -> Iterator[list[tuple[Item, Video, int]]]:
        for items in self.sampler:
            parts = [items[start : start + SAMPLES_AT_ONCE] for start in range(0, len(items), SAMPLES_AT_ONCE)]
            parts = parts or [[]]  # a rank's share of a small batch
            self.counts.append(len(parts))
            yield from (list(_Requests(self.dataset, part)) for part in parts)


def _start_worker(worker: int) -> None:
    """One thread a worker: OpenCV's and torch's own pools would only fight over the same cores. Signals that reach all
    processes (Ctrl-C, torchrun, batch systems) are the parent's to answer: it still wants the batch of its last update.
    """
    import cv2

    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
