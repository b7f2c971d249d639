"""The whole of `extract-flow` against its flow engine alone, the share of each part, and peak memory.

    python benchmarks/extract_flow.py VIDEOS [--method tvl1] [--method-option NAME=VALUE] [--device auto] [--workers 0]
                                      [--frames 40] [--clock wall|cpu]
    python benchmarks/extract_flow.py --long 10000 [--method farneback]

VIDEOS is what `stres extract-flow` takes. Printed are: the stage's pairs/s from its start to its last file, the
engine's on the same frames, decoded beforehand, in as many processes, and the ratio; milliseconds a pair and share of
each part, done one after the other in one thread on the first `--frames` frames of each video (`--clock cpu`: seconds
of computing, for a machine that others use too); the largest process's peak memory. `--long N` makes clips of N / 10
and N frames instead, and shows that memory does not grow with the length.
"""

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.extract_flow import Config, Result, run
from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.methods import FlowMethod, make_method
from pipelines.optical_flow.workers import growth_on
from pipelines.runtime.devices import resolve_device
from pipelines.runtime.worker_pool import Report, run_tasks
from pipelines.sources.videos import find_videos
from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.quantise import quantise
from pipelines.video.decoding import VideoReader
from pipelines.video.resize import resize
from pipelines.video.synthetic import write_video

BOUND = 20.0
PARTS = ("decode", "resize", "grey", "flow", "quantise", "compress, hash and write")
LONG_SIZE = (64, 80)  # pixels, height and width


@dataclass(frozen=True)
class Job:
    """What a process measures: one video with one method."""

    video: Path
    method: str
    options: tuple[tuple[str, str], ...]
    device: str
    frames: int = 0
    clock: str = "wall"

    def make_method(self) -> FlowMethod:
        return make_method(self.method, dict(self.options), self.device)


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.long:
            show_memory(arguments, Path(folder))
        else:
            show_rates(arguments, Path(folder))


# ------------------------------------------------------------------ rates and shares


def show_rates(arguments: argparse.Namespace, folder: Path) -> None:
    options = tuple(option.partition("=")[::2] for option in arguments.method_option)
    device = str(resolve_device(arguments.device))
    uses_device = make_method(arguments.method, dict(options), device).uses_device
    workers = arguments.workers or growth_on(device if uses_device else "cpu").steps[-1]
    jobs = [
        Job(video.path, arguments.method, options, device, arguments.frames, arguments.clock)
        for video in find_videos(arguments.videos).videos
    ]
    print(f"{len(jobs)} videos, {arguments.method} on {device if uses_device else 'cpu'}, {workers} processes")
    # The engine first: it compiles what is to be compiled and starts the server that processes are forked from.
    engine = engine_rate(jobs, workers)
    result, peak = timed_stage(arguments, folder, workers)
    print(f"engine alone  {engine:8.2f} pairs/s")
    print(f"extract-flow  {result.units_per_second:8.2f} pairs/s ({result.units} pairs in {result.seconds:.1f} s)")
    print(f"ratio         {result.units_per_second / engine:8.0%}")
    print(f"peak memory   {peak:8.0f} MB, of the largest process")
    parts = average_parts(jobs)
    print(f"\nOne thread, {arguments.clock} seconds:   ms a pair   share")
    for name, seconds in parts.items():
        print(f"{name:28s} {1000 * seconds:10.2f}  {seconds / sum(parts.values()):6.1%}")


def engine_rate(jobs: list[Job], workers: int) -> float:
    """Pairs/s of all processes together, each computing flow of frames it holds in memory."""
    with contextlib.closing(run_tasks(time_engine, jobs, workers)) as outcomes:
        done = [outcome for _, outcome in outcomes if isinstance(outcome, tuple)]
    return min(workers, len(jobs)) * sum(pairs for pairs, _ in done) / sum(seconds for _, seconds in done)


def time_engine(job: Job, report: Report) -> tuple[int, float]:
    """In a process: pairs and seconds."""
    method = job.make_method()
    where = job.device if method.uses_device else "cpu"
    runs = list(prepared_runs(method, list(VideoReader(job.video, allow_truncated=True))))
    finish(method.flow(runs[0][:-1].to(where), runs[0][1:].to(where)))  # compiles and allocates
    started = time.perf_counter()
    for frames in runs:
        there = frames.to(where)
        finish(method.flow(there[:-1], there[1:]))
    return sum(len(frames) - 1 for frames in runs), time.perf_counter() - started


def timed_stage(arguments: argparse.Namespace, folder: Path, workers: int) -> tuple[Result, float]:
    config = Config(
        workspace=folder / f"work-{time.monotonic_ns()}",
        videos=arguments.videos,
        method=arguments.method,
        method_options=dict(option.partition("=")[::2] for option in arguments.method_option),
        device=arguments.device,
        workers=workers,
    )
    with peak_memory() as peak:
        result = run(config)
    return result, max(peak, default=0.0)


def average_parts(jobs: list[Job]) -> dict[str, float]:
    """Seconds a pair of each part, the mean over videos."""
    with contextlib.closing(run_tasks(time_parts, jobs, 1)) as outcomes:
        done = [outcome for _, outcome in outcomes if isinstance(outcome, dict)]
    return {name: statistics.mean(seconds[name] for seconds in done) for name in PARTS}


def time_parts(job: Job, report: Report) -> dict[str, float]:
    """In a process: seconds a pair of each part, one after the other, in one thread where the CPU computes."""
    torch.set_num_threads(1)
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[job.clock]
    method = job.make_method()
    where = job.device if method.uses_device else "cpu"
    reader = VideoReader(job.video, allow_truncated=True)
    size = reader.width, reader.height
    with VideoReader(job.video, keep_size=True, allow_truncated=True) as source:
        times = []

        def timed(part: Callable[[], Any]) -> Any:
            started = clock()
            outcome = part()
            times.append(clock() - started)
            return outcome

        pictures = timed(lambda: list(islice(source, job.frames)))
    resized = timed(lambda: [resize(picture, *size) for picture in pictures])
    runs = timed(lambda: list(prepared_runs(method, resized)))
    there = [frames.to(where) for frames in runs]
    method.flow(there[0][:2], there[0][1:3])
    flow = timed(lambda: [finish(method.flow(frames[:-1], frames[1:])) for frames in there])
    fields = timed(lambda: [quantise(part, BOUND).cpu().numpy() for part in flow])
    timed(lambda: write(fields))
    return {name: seconds / (len(pictures) - 1) for name, seconds in zip(PARTS, times, strict=True)}


def prepared_runs(method: FlowMethod, frames: list[np.ndarray]) -> Iterator[torch.Tensor]:
    """What the method takes, in batches; each begins with the last frame of the one before."""
    prepared = [to_grey(frame) if method.input == "grey" else frame.transpose(2, 0, 1) for frame in frames]
    for start in range(0, len(prepared) - 1, method.batch_size):
        yield torch.from_numpy(np.stack(prepared[start : start + method.batch_size + 1]))


def finish(flow: torch.Tensor) -> torch.Tensor:
    if flow.is_cuda:
        torch.cuda.synchronize(flow.device)
    return flow


def write(batches: list[np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder, new_flow_file(Path(folder) / "flow.h5") as writer:
        for fields in batches:
            writer.append(fields)
        writer.finish({})


# ------------------------------------------------------------------ memory


def show_memory(arguments: argparse.Namespace, folder: Path) -> None:
    for frames in (arguments.long // 10, arguments.long):
        clip = folder / f"{frames}.avi"
        write_video(clip, moving_texture(frames))
        arguments.videos = str(clip)
        result, peak = timed_stage(arguments, folder, 1)
        print(f"{frames:6d} frames: {result.units} pairs in {result.seconds:.1f} s, peak memory {peak:.1f} MB")


def moving_texture(frames: int) -> np.ndarray:
    """RGB uint8 [frames, H, W, 3]: blocks that move to the left, round and round."""
    height, width = LONG_SIZE
    blocks = np.random.default_rng(0).integers(0, 256, (height // 4, 64, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    texture = np.concatenate([blocks, blocks[:, :width]], axis=1)
    return np.stack([texture[:, t % 256 : t % 256 + width] for t in range(frames)])


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """A list that grows by the peak resident memory of the largest worker process, in MB (Linux).

    Workers are the children of the server that forks them.
    """
    peaks: list[float] = []
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.05):
            peaks.append(max((high_water(pid) for server in children("self") for pid in children(server)), default=0.0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        stopped.set()
        thread.join()


def children(pid: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [
            child
            for thread in Path("/proc", pid, "task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    return []


def high_water(pid: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc", pid, "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", nargs="?", help="as of `stres extract-flow`")
    parser.add_argument("--method", default="")
    parser.add_argument("--method-option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--frames", type=int, default=40, help="of each video, to time the parts on")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--long", type=int, metavar="N", help="memory with clips of N / 10 and N frames")
    arguments = parser.parse_args()
    if (arguments.videos is None) == (arguments.long is None):
        parser.error("give either VIDEOS or --long N")
    arguments.method = arguments.method or ("farneback" if arguments.long else "tvl1")
    return arguments


if __name__ == "__main__":
    main()
