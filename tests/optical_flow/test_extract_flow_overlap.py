"""Reading, flow and writing in three threads: the same files as in one, bounded, and safe when any of them fails."""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from pipelines.errors import StorageError, VideoError
from pipelines.extract_flow import gpu_waited
from pipelines.jobs.task import ExtractResult
from pipelines.optical_flow import batch as batches_of_flow
from pipelines.optical_flow import store as extraction
from pipelines.optical_flow.batch import method_input, method_input_on
from pipelines.optical_flow.methods import make_method
from pipelines.optical_flow.mixing import Mixer
from pipelines.optical_flow.store import FlowTask, quantised_flow, store_flow
from pipelines.optical_flow.workers import growth_on, growth_on_gpu, processes_for_gpu
from pipelines.runtime.devices import available_cores, mark_on_gpu, seconds_between
from pipelines.sources.videos import VideoSource
from pipelines.storage.flow_file import FlowFile, FlowWriter
from pipelines.storage.flow_settings import FlowSettings
from pipelines.video.decoding import VideoReader
from pipelines.video.resize import resize
from stres_cli.extraction_view import gpu_line

WriteClip = Callable[..., np.ndarray]
MADE = FlowSettings.of("of the test", {}, 20, 1, "video")


class Still:
    """A method that finds no motion, two pairs at a time."""

    input: ClassVar[Literal["grey"]] = "grey"
    engine: ClassVar[str] = "numpy"
    uses_device = False
    batch_size = 2
    batch_invariant = True
    parameters: ClassVar[dict[str, Any]] = {}

    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        return torch.zeros((len(frame0), 2, *frame0.shape[1:]))


@pytest.fixture(autouse=True)
def no_thread_stays_behind() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture
def task(tmp_path: Path, write_clip: WriteClip) -> FlowTask:
    clip = tmp_path / "videos/c/a.mkv"
    write_clip(clip, frames=70)
    return FlowTask(
        source=VideoSource("c", "a", clip),
        target=tmp_path / "flow/c/a.h5",
        short_side=None,
        allow_truncated=False,
        method_options=(),
        engine="auto",
        device="cpu",
        compression="zstd",
        settings=FlowSettings.of("farneback", {}, 20, 2, "video"),
    )


def store(task: FlowTask) -> bytes:
    """The file's bytes; the file is gone afterwards."""
    assert store_flow(task, lambda units: None) == 68
    content = task.target.read_bytes()
    task.target.unlink()
    return content


def files_of(task: FlowTask) -> list[Path]:
    return [path for path in task.target.parents[1].rglob("*") if path.is_file()]


def test_files_are_the_same_byte_for_byte_with_and_without_threads(
    task: FlowTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlapped = store(task)
    monkeypatch.setattr(extraction, "_AHEAD", 1)
    assert store(task) == overlapped

    def in_one_thread(items: Generator[Any], ahead: int) -> Generator[Any]:
        return items

    monkeypatch.setattr(extraction, "prefetch", in_one_thread)
    assert store(task) == overlapped


@pytest.mark.parametrize("error", [VideoError("truncated: decoded 9 of 70"), MemoryError()])
def test_an_error_of_the_reader_leaves_no_file(
    task: FlowTask, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    decode = VideoReader.__iter__

    def failing(reader: VideoReader) -> Iterator[np.ndarray]:
        for number, frame in enumerate(decode(reader)):
            if number == 40:
                raise error
            yield frame

    monkeypatch.setattr(VideoReader, "__iter__", failing)
    with pytest.raises(type(error)) as raised:
        store_flow(task, lambda units: None)
    assert raised.value is error
    assert files_of(task) == []


def test_an_error_of_the_method_leaves_no_file(task: FlowTask, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Still):
        batches = 0

        def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
            self.batches += 1
            if self.batches == 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().flow(frame0, frame1)

    method = Failing()
    monkeypatch.setattr(extraction, "method_of", lambda task: method)
    stored: list[int] = []
    with pytest.raises(VideoError, match=r"memory on the GPU .* --workers"):
        store_flow(task, stored.append)
    assert stored == [2, 2, 2, 2]
    assert files_of(task) == []


def test_an_error_of_writing_stops_reading_and_leaves_no_file(task: FlowTask, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: FlowWriter, fields: np.ndarray) -> None:
        raise StorageError("cannot write: the disk is full")

    monkeypatch.setattr(FlowWriter, "append", full)
    with pytest.raises(StorageError, match="full"):
        store_flow(task, lambda units: None)
    assert files_of(task) == []


def test_whoever_is_interrupted_leaves_no_file(task: FlowTask) -> None:
    def interrupted(units: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_flow(task, interrupted)
    assert files_of(task) == []


def test_memory_holds_a_few_batches_however_long_the_video() -> None:
    read = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in range(2000):
            read += 1
            yield np.zeros((4, 4, 3), np.uint8)

    written = furthest = 0
    with contextlib.closing(quantised_flow(frames(), Still(), MADE)) as batches:
        for made in batches:
            written += len(made.fields)
            furthest = max(furthest, read - written)
    # Two batches wait on either side of the method, one is in it and one with us; a run shares a frame with the next.
    assert furthest <= Still.batch_size * (2 * extraction._AHEAD + 2) + 1
    assert (read, written) == (2000, 1999)


@pytest.mark.parametrize("computes_there", [True, False])
def test_frames_go_to_the_device_of_methods_that_use_it(computes_there: bool) -> None:
    """PyTorch's `meta` stands for a GPU: tensors without content, but with a place."""
    got = []

    class Recording(Still):
        uses_device = computes_there

        def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
            got.extend([frame0, frame1])
            return torch.zeros((len(frame0), 2, *frame0.shape[1:]))

    list(quantised_flow([np.zeros((4, 4, 3), np.uint8)] * 3, Recording(), MADE, "meta"))
    assert {frames.device.type for frames in got} == {"meta" if computes_there else "cpu"}
    assert {frames.dtype for frames in got} == {torch.uint8}


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_on_a_gpu_flow_is_quantised_there_and_arrives_whole(device: str) -> None:
    class Ramp(Still):
        uses_device = True

        def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
            assert frame0.is_cuda
            return torch.stack([frame0, frame1], 1).float() / 10

    frames = [np.full((64, 96, 3), t, np.uint8) for t in range(200)]
    there = torch.cat([made.fields for made in quantised_flow(frames, Ramp(), MADE, device)])
    on_cpu = type("RampOnCPU", (Still,), {"flow": lambda self, a, b: torch.stack([a, b], 1).float() / 10})()
    assert torch.equal(there, torch.cat([made.fields for made in quantised_flow(frames, on_cpu, MADE)]))


@pytest.mark.parametrize(
    ("cores", "gigabytes", "processes"), [(2, 16, 2), (16, 80, 12), (16, 24, 6), (64, 140, 12), (8, 3, 1)]
)
def test_processes_of_a_gpu_fit_its_memory(cores: int, gigabytes: int, processes: int) -> None:
    assert processes_for_gpu(cores, gigabytes * 10**9) == processes


def test_on_the_cpu_the_number_of_processes_is_not_measured():
    cpu = growth_on("cpu")
    assert (cpu.settled, cpu.count) == (True, available_cores())


@pytest.mark.parametrize(
    ("cores", "gigabytes", "steps", "fed"),
    [(16, 140, (1, 4, 12), 12), (16, 24, (1, 4, 6), 5), (4, 140, (1, 4), 4), (16, 11, (1, 2), 1), (1, 140, (1,), 1)],
)
def test_on_a_gpu_the_processes_are_measured_and_one_that_computes_for_all_where_there_is_room(
    cores, gigabytes, steps, fed
):
    mixer = Mixer("tvl1", {}, "cuda", "auto")
    growth = growth_on_gpu(cores, gigabytes * 10**9, mixer)
    assert (growth.steps, growth.helper, growth.helped) == (steps, mixer if fed > 1 else None, fed)
    assert growth_on_gpu(cores, gigabytes * 10**9, None).helper is None  # of a method that depends on the batch


def test_the_gpu_line_says_how_many_processes_were_fastest():
    result = ExtractResult(stage="extract-flow", skipped=0, failed=0, ignored=0, unit="pairs")
    assert gpu_line(result) == ""
    measured = replace(result, gpu_waited=0.12, gpu_processes=4, process_rates={1: 510.2, 4: 1800.0, 12: 1750.0})
    assert gpu_line(measured) == (
        "; at least 12.0 % of the time the GPU waited; 4 processes on the GPU; "
        "measured pairs/s: 510 with 1, 1800 with 4, 1750 with 12"
    )
    mixed = replace(measured, gpu_processes=12, gpu_mixed=True, mixed_rate=2400.0)
    assert gpu_line(mixed).endswith(
        "; one process on the GPU for 12 processes; measured pairs/s: 510 with 1, 1800 with 4, 1750 with 12, "
        "2400 with one that computes for all"
    )


class _Event:
    """Of a GPU whose clock goes on by a second with every mark."""

    marked = 0

    def __init__(self, **_settings):
        pass

    def record(self, _stream):
        _Event.marked += 1
        self.time = _Event.marked

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1000.0 * (end.time - self.time)


def test_the_share_of_time_that_the_gpu_waited(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    seconds = sum(seconds_between(mark_on_gpu(gpu), mark_on_gpu(gpu)) for _ in range(3))
    assert (seconds, seconds_between(mark_on_gpu(cpu), mark_on_gpu(cpu))) == (3, 0)
    assert gpu_waited([seconds, 1.0], 5.0, 1) == pytest.approx(0.2)
    assert gpu_waited([seconds, 1.0], 5.0, 2) == pytest.approx(0.6)
    assert gpu_waited([9.0], 5.0, 1) == 0  # of processes that count each other's time
    assert gpu_waited([0.0], 5.0, 1) is None


@pytest.mark.parametrize("takes", ["grey", "rgb"])
def test_a_gpu_makes_the_same_bytes_of_a_frame_as_the_cpu(monkeypatch, takes):
    """On the CPU, in several parts: the arithmetic is that of integers."""
    monkeypatch.setattr(batches_of_flow, "_PREPARED_AT_ONCE", 2)
    method: Any = type("Method", (Still,), {"input": takes})()
    frames = np.random.default_rng(0).integers(0, 256, (5, 30, 40, 3), dtype=np.uint8)
    for size in (None, (48, 64)):
        found = method_input_on(torch.from_numpy(frames), method, size).numpy()
        height, width = size or (30, 40)
        assert np.array_equal(found, np.stack([method_input(resize(frame, width, height), method) for frame in frames]))


@pytest.mark.parametrize(
    ("device", "largest", "there"), [("cuda", 64 * 48, True), ("cuda", 1, False), ("cpu", 64 * 48, False)]
)
def test_small_frames_come_as_decoded_where_a_gpu_resizes_them(monkeypatch, task, device, largest, there):
    monkeypatch.setattr(extraction, "_LARGEST_RESIZED_ON_A_GPU", largest)
    monkeypatch.setattr(extraction, "method_of", lambda task: type("Method", (Still,), {"uses_device": True})())
    with extraction.open_frames(replace(task, device=device, short_side=96)) as frames:
        assert frames.size == ((96, 128) if there else None)
        assert next(iter(frames)).shape == ((48, 64, 3) if there else (96, 128, 3))
        assert (frames.attributes()["height"], frames.attributes()["width"]) == (96, 128)


@pytest.mark.cuda
def test_what_a_gpu_resizes_has_the_flow_of_what_the_cpu_resizes(monkeypatch, task, tmp_path):
    flow = []
    settings = FlowSettings.of("tvl1", make_method("tvl1").parameters, 20, 1, "video")
    for largest in (10**9, 0):
        monkeypatch.setattr(extraction, "_LARGEST_RESIZED_ON_A_GPU", largest)
        here = replace(task, settings=settings, target=tmp_path / f"{largest}.h5", device="cuda", short_side=96)
        store_flow(here, lambda units: None)
        with FlowFile(here.target) as file:
            flow.append(file.read(0, 3))
    assert np.array_equal(*flow)
