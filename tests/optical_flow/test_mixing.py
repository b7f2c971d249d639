"""One process that computes the flow of several videos: full batches, the same bits, and nobody depends on it."""

import contextlib
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from pipelines.errors import VideoError
from pipelines.extract_flow import Config, run
from pipelines.optical_flow import mixing
from pipelines.optical_flow import store as extraction
from pipelines.optical_flow.methods import make_method
from pipelines.optical_flow.mixing import Mixer, SharedMethod, flow_by_mixer
from pipelines.optical_flow.store import FlowTask, store_flow
from pipelines.runtime.growth import Growth
from pipelines.runtime.parcel import send_parcel
from pipelines.sources.videos import VideoSource
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from tests.helpers import worker_functions

WriteClip = Callable[..., np.ndarray]
OPTIONS = {"warps": "1", "nscales": "1", "outer_iterations": "1", "inner_iterations": "5"}


class Differences:
    """A method whose flow is the difference of the frames, four pairs at a time. Its first batch waits for `go_on`."""

    input: ClassVar[Literal["grey"]] = "grey"
    batch_invariant: ClassVar[bool] = True
    uses_device = True
    batch_size = 4
    parameters: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.go_on = threading.Event()
        self.engine = ""

    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        self.batches.append(tuple(frame0.shape))
        assert self.go_on.wait(60)
        if frame0.max() == 255:
            raise ValueError("white")
        self.engine = f"for a width of {frame0.shape[2]}"
        return torch.stack([frame1.float() - frame0, frame0.float()], 1)


def computed_at_once(method: Differences, calls: list[torch.Tensor]) -> list[tuple[torch.Tensor, str] | ValueError]:
    """What each of these gets, [N + 1, H, W] frames each; all wait while the first is computed."""
    shared = SharedMethod(method)

    def compute(frames: torch.Tensor) -> tuple[torch.Tensor, str] | ValueError:
        try:
            return shared.flow(frames[:-1], frames[1:]), shared.engine
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        results = []
        for number, frames in enumerate(calls):  # in their order
            results.append(pool.submit(compute, frames))
            while len(shared._waiting) < number + 1:
                time.sleep(0.001)
        method.go_on.set()
        return [result.result(60) for result in results]


def noise(frames: int, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(10 * frames + width)
    return torch.randint(0, 255, (frames, 5, width), dtype=torch.uint8, generator=generator)


def test_pairs_that_wait_together_are_computed_in_full_batches_of_one_size() -> None:
    method = Differences()
    calls = [noise(2), noise(4), noise(7), noise(3, width=8), noise(2)]
    found = computed_at_once(method, calls)
    assert method.batches == [(1, 5, 6), (4, 5, 6), (4, 5, 6), (2, 5, 6), (2, 5, 8)] or method.batches == [
        (1, 5, 6), (4, 5, 6), (4, 5, 6), (2, 5, 8), (2, 5, 6)
    ]  # fmt: skip
    for frames, made in zip(calls, found, strict=True):
        assert isinstance(made, tuple)
        alone = Differences()
        alone.go_on.set()
        assert torch.equal(made[0], alone.flow(frames[:-1], frames[1:]))
        assert made[1] == alone.engine


def test_what_the_method_raises_fails_those_with_pairs_in_that_batch_only() -> None:
    white = torch.full((2, 5, 6), 255, dtype=torch.uint8)
    found = computed_at_once(Differences(), [noise(2), white, noise(6), noise(3)])
    assert [isinstance(made, ValueError) for made in found] == [False, True, True, False]


def test_the_time_in_which_there_is_something_to_compute_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 10, 12, 15, 21, 30, 33, 40])
    monkeypatch.setattr(mixing.time, "monotonic", lambda: next(clock))
    busy = mixing._BusyTime(on_gpu=True)
    with busy:
        with busy:
            pass
        assert busy.told() == 12  # from 0 to 10 one, to 12 two
    assert busy.told() == 3
    with busy:
        pass
    assert busy.told() == 9  # from 21 on
    other = mixing._BusyTime(on_gpu=False)
    with other:
        pass
    assert other.told() == 0


# ------------------------------------------------------------------ the process


def wait_until(happens: Callable[[], bool]) -> None:
    for _ in range(1200):
        if happens():
            return
        time.sleep(0.05)
    raise AssertionError("it does not happen")


def wait_for(mixer: Mixer) -> None:
    def answers() -> bool:
        try:
            Client(mixer.address, "AF_UNIX", authkey=multiprocessing.current_process().authkey).close()
        except OSError:
            return False
        return True

    wait_until(answers)


def memory_files(process: int) -> int:
    """How many a process has open that carry tensors."""
    found = 0
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += os.readlink(link).startswith("/memfd:stres")
    return found


@pytest.fixture
def task(tmp_path: Path) -> FlowTask:
    parameters = make_method("tvl1", OPTIONS).parameters
    return FlowTask(
        source=VideoSource("c", "a", tmp_path / "a.mkv"),
        target=tmp_path / "a.h5",
        settings=FlowSettings.of("tvl1", parameters, 20, 1, "video"),
        method_options=tuple(OPTIONS.items()),
        engine="reference",
    )


@pytest.fixture
def mixer() -> Iterator[Mixer]:
    with Mixer("tvl1", OPTIONS, "cpu", "reference") as mixer:
        yield mixer


def store(task: FlowTask) -> bytes | str:
    """The file's bytes, and it is gone afterwards; or why there is none."""
    try:
        store_flow(task, lambda units: None)
    except VideoError as error:
        return str(error)
    content = task.target.read_bytes()
    task.target.unlink()
    return content


def test_videos_computed_together_have_the_files_that_each_has_alone(
    tmp_path: Path, write_clip: WriteClip, task: FlowTask, mixer: Mixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three sizes, one damaged; and while they are computed the process dies, and with it the last answer."""
    tasks = []
    for number, size in enumerate([(48, 64), (48, 64), (48, 64), (40, 52), (36, 36)]):
        clip = tmp_path / f"{number}.mkv"
        write_clip(clip, frames=5 + 4 * number, height=size[0], width=size[1])
        tasks.append(replace(task, source=VideoSource("c", clip.stem, clip), target=clip.with_suffix(".h5")))
    damaged = tmp_path / "1.mkv"
    damaged.write_bytes(damaged.read_bytes()[: -len(damaged.read_bytes()) // 3])
    alone = [store(each) for each in tasks]
    assert [isinstance(made, bytes) for made in alone] == [True, False, True, True, True]
    tasks = [replace(each, mixer=mixer.address) for each in tasks]
    assert store(tasks[0]) == alone[0]  # the process does not run yet
    assert not mixer.at_work

    mixer.start()
    wait_for(mixer)
    answered = []

    def counting(*arguments: Any) -> Any:
        answered.append(flow_by_mixer(*arguments))
        return answered[-1]

    monkeypatch.setattr(extraction, "flow_by_mixer", counting)
    with ThreadPoolExecutor(len(tasks)) as pool:
        assert list(pool.map(store, tasks)) == alone
    assert mixer.at_work
    assert None not in answered
    assert len(answered) >= 4

    with Client(mixer.address, "AF_UNIX", authkey=multiprocessing.current_process().authkey) as gone:
        frames = torch.zeros((3, 48, 64), dtype=torch.uint8)
        send_parcel(gone, (frames, task.settings, None))
    assert store(tasks[2]) == alone[2]
    wait_until(lambda: memory_files(mixer._process.pid) == 0)  # nor is the answer kept
    assert flow_by_mixer(mixer.address, frames[:, 0], task.settings, None) is None  # no frames
    assert None not in answered
    assert not mixer.ended

    mixer._process.kill()
    mixer._process.join()
    assert mixer.ended
    assert store(tasks[3]) == alone[3]
    assert answered[-1] is None


def test_a_process_that_does_not_answer_is_waited_for_once(task: FlowTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "_PATIENCE", 0.01)
    mixer = Mixer("tvl1", OPTIONS, "cpu", "reference")
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(mixer.address)
        stopped.listen()  # and takes nothing
        assert flow_by_mixer(mixer.address, torch.zeros((3, 48, 64)), task.settings, None) is None
        monkeypatch.setattr(mixing, "arrives", lambda *_: pytest.fail("waits again"))
        assert flow_by_mixer(mixer.address, torch.zeros((3, 48, 64)), task.settings, None) is None


def test_a_process_that_cannot_start_is_the_error_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr("multiprocessing.forkserver.connect_to_new_process", refuse)
    with pytest.raises(OSError, match="too many open files"), Mixer("tvl1", OPTIONS, "cpu", "reference") as mixer:
        mixer.start()


def test_extraction_with_the_mixing_process_fails_and_continues_video_by_video(
    tmp_path: Path, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, mixers = tmp_path / "videos", []
    for name, frames, width in (("a", 40, 64), ("b", 30, 64), ("c", 20, 52), ("deadly", 40, 64), ("cut", 30, 64)):
        write_clip(videos / f"walk/{name}.mkv", frames=frames, width=width)
    cut = videos / "walk/cut.mkv"
    cut.write_bytes(cut.read_bytes()[:-500])

    def mixed_from_the_start(device: str, mixer: Mixer) -> Growth:
        mixers.append(mixer)
        mixer.start()
        wait_for(mixer)
        return Growth((2,))

    def extract(root: Path) -> Any:
        return run(Config(root, str(videos), method="farneback"), lambda progress: None)

    monkeypatch.setattr("pipelines.extract_flow.growth_on", lambda device, mixer: Growth((1,)))
    extract(tmp_path / "alone")
    monkeypatch.setattr("pipelines.extract_flow.growth_on", mixed_from_the_start)
    with monkeypatch.context() as deadly:
        deadly.setattr(extraction, "store_flow", worker_functions.store_or_die_amid)
        result = extract(tmp_path / "mixed")
    assert (result.done, result.failed) == (3, 2)
    reasons = {row.video: row.reason for row in read_failures(Workspace(tmp_path / "mixed"))}
    assert "killed by signal 9" in reasons["deadly"]
    assert "truncated" in reasons["cut"]
    result = extract(tmp_path / "mixed")  # again, where nothing is deadly
    assert (result.done, result.skipped, result.failed) == (1, 3, 1)
    for name in ("a", "b", "c", "deadly"):
        files = [Workspace(tmp_path / root).flow_file("walk", name) for root in ("alone", "mixed")]
        assert peek(files[0], FLOW_SCHEMA) == peek(files[1], FLOW_SCHEMA)  # with the SHA-256 of the flow
    assert len(mixers) == 2
    assert all(mixer.ended for mixer in mixers)
