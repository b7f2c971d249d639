"""TV-L1 on the CPU: our engine against OpenCV's, in turns, with as many threads, on real frames.

    python benchmarks/tvl1_cpu.py [VIDEO...] [--batches 5] [--batches-off 1] [--threads N] [--engine numba]
                                  [--clock wall|cpu]

Prints, for 320x240 and 340x256, with early stop on and off (all 300 iterations a warp), the medians over batches of
pairs from all the videos, and the ratio, the median of the batches' own. A batch is one pair a thread. Without videos:
the UCF101 clips in ../shared/data, where present. On a machine that others use too, `--clock cpu` counts the seconds
of computing instead of those that pass.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from pipelines.optical_flow import TVL1Parameters, tvl1_flow
from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.tvl1_opencv import opencv_tvl1_flow
from pipelines.video.decoding import VideoReader

SHORT_SIDES = (240, 256)
CLIPS = Path(__file__).resolve().parents[2] / "shared/data/ucf101"
Pairs = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    arguments = parse_arguments()
    threads = arguments.threads
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    print(f"OpenCV {cv2.__version__}, engine {arguments.engine}, {threads} threads, {arguments.clock} seconds")
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[arguments.clock]
    print("size      early stop  batches  OpenCV pairs/s  ours pairs/s  OpenCV / ours (range)")
    for short_side in SHORT_SIDES:
        for epsilon, count in ((0.01, arguments.batches), (0.0, arguments.batches_off)):
            batches = sample_batches(arguments.videos, short_side, count, threads)
            compare(batches, TVL1Parameters(epsilon=epsilon), arguments.engine, clock)


def compare(batches: list[Pairs], parameters: TVL1Parameters, engine: str, clock: Callable[[], float]) -> None:
    tvl1_flow(*batches[0], parameters=TVL1Parameters(warps=1, epsilon=1), engine=engine)  # compiles
    theirs, ours = [], []
    for pairs in batches:
        theirs.append(seconds(clock, lambda pairs=pairs: opencv_tvl1_flow(*pairs, parameters=parameters)))
        ours.append(seconds(clock, lambda pairs=pairs: tvl1_flow(*pairs, parameters=parameters, engine=engine)))
    count, height, width = batches[0][0].shape
    ratios = [slow / fast for slow, fast in zip(theirs, ours, strict=True)]
    stop = "on" if parameters.epsilon else "off"
    rates = [count / statistics.median(times) for times in (theirs, ours)]
    print(
        f"{width}x{height}   {stop:10s}  {len(batches):7d}  {rates[0]:14.3f}  {rates[1]:12.2f}  "
        f"{statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})",
        flush=True,
    )


def seconds(clock: Callable[[], float], work: Callable[[], object]) -> float:
    started = clock()
    work()
    return clock() - started


def sample_batches(videos: list[Path], short_side: int, count: int, size: int) -> list[Pairs]:
    """`count` batches of `size` pairs, from the videos in turn and from all parts of them."""
    greys = [
        [to_grey(frame) for frame in VideoReader(video, short_side, allow_truncated=True)]
        for video in videos[: count * size]
    ]
    batches = []
    for batch in range(count):
        picked = []
        for number in range(batch * size, (batch + 1) * size):
            frames = greys[number % len(greys)]
            at = (2 * number + 1) * (len(frames) - 1) // (2 * count * size)
            picked.append(frames[at : at + 2])
        befores, afters = (torch.from_numpy(np.stack(side)) for side in zip(*picked, strict=True))
        batches.append((befores, afters))
    return batches


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path, default=sorted(CLIPS.glob("*/*.avi")))
    parser.add_argument("--batches", type=int, default=5, help="batches with early stop")
    parser.add_argument("--batches-off", type=int, default=1, help="batches without; OpenCV takes 10 s a pair and more")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--engine", default="numba")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    if not arguments.videos:
        sys.exit(f"no clips in {CLIPS}: name some VIDEOS")
    return arguments


if __name__ == "__main__":
    main()
