"""TV-L1 on the CPU: our engine against OpenCV's, in turns, with as many threads, on real frames.

    python benchmarks/tvl1_cpu.py [VIDEO...] [--batches 5] [--batches-off 1] [--threads N] [--engine numba]
                                  [--clock wall|cpu] [--against PYTHON]

Prints the processor's instruction set and, for 320x240 and 340x256, with early stop on and off (all 300 iterations a
warp), the medians over batches of pairs from all the videos, and the ratio, the median of the batches' own. A batch is
one pair a thread. Without videos: the UCF101 clips in ../shared/data, where present. On a machine that others use too,
`--clock cpu` counts the seconds of computing instead of those that pass.

`--against PYTHON` compares with another installation instead of OpenCV, by the interpreter it is installed for: at
340x256 with early stop, pair by pair in turns, each in a process of its own with its own cache and one thread. The
ratio is the median of all paired ones.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
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
ROUNDS = 3  # of each pair, with --against
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CLIPS = Path(__file__).resolve().parents[2] / "shared/data/ucf101"
Pairs = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    arguments = parse_arguments()
    if arguments.serve:
        serve(arguments.serve, arguments.engine, CLOCKS[arguments.clock])
        return
    if arguments.engine == "numba":
        print(instruction_set())
    if arguments.against:
        compare_installations(arguments)
        return
    threads = arguments.threads
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    print(f"OpenCV {cv2.__version__}, engine {arguments.engine}, {threads} threads, {arguments.clock} seconds")
    clock = CLOCKS[arguments.clock]
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


def compare_installations(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        batches = sample_batches(arguments.videos, SHORT_SIDES[-1], arguments.batches, 1)
        for number, pairs in enumerate(batches):
            np.save(folder / f"{number}.npy", torch.stack(pairs).numpy())
        pythons = {"theirs": arguments.against, "ours": sys.executable}
        servers = {name: start_server(python, folder / name, arguments) for name, python in pythons.items()}
        times: dict[str, list[float]] = {name: [] for name in servers}
        distances = []
        for number in range(len(batches)):
            for turn in range(ROUNDS):
                for name in sorted(servers, reverse=(number + turn) % 2 == 0):
                    times[name].append(float(ask(servers[name], f"{folder}/{number}.npy")))
            theirs, ours = (np.load(folder / name / "flow.npy") for name in servers)
            distances.append(np.hypot(*(theirs - ours)[0]))
        for server in servers.values():
            server.communicate(timeout=60)
    ratios = [theirs / ours for theirs, ours in zip(times["theirs"], times["ours"], strict=True)]
    rates = {name: 1 / statistics.median(spent) for name, spent in times.items()}
    print(f"{len(batches)} pairs, {ROUNDS} times each, {arguments.clock} seconds, one thread")
    print(
        f"theirs {rates['theirs']:.2f} pairs/s, ours {rates['ours']:.2f}; "
        f"theirs / ours {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    )
    print(f"the flows are {np.mean(distances):.1e} px apart in the mean, {np.median(distances):.1e} in the median")


def start_server(python: str, folder: Path, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    """A process of that installation that has computed a pair, so its kernels are compiled."""
    folder.mkdir()
    command = [python, __file__, "--serve", str(folder), "--engine", arguments.engine, "--clock", arguments.clock]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ask(server, str(folder.parent / "0.npy"))
    return server


def ask(server: subprocess.Popen[str], file: str) -> str:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{file}\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    if not answer:
        sys.exit(f"the process of {server.args!r} ended")
    return answer


def serve(folder: Path, engine: str, clock: Callable[[], float]) -> None:
    """Computes the pair of each file named on stdin, says how long it took, and leaves its flow in the folder."""
    torch.set_num_threads(1)
    for file in sys.stdin:
        before, after = torch.from_numpy(np.load(file.strip()))
        started = clock()
        flow = tvl1_flow(before, after, engine=engine)
        spent = clock() - started
        np.save(folder / "flow.npy", flow.numpy())
        print(spent, flush=True)


def instruction_set() -> str:
    """What the processor has, and how long the vectors are that the kernel of the iteration was compiled to."""
    import llvmlite.binding

    from pipelines.optical_flow.tvl1.buffers import kernel_arguments
    from pipelines.optical_flow.tvl1.kernels.iteration import iterate

    features = llvmlite.binding.get_host_cpu_features()
    known = {"avx512f": "AVX-512", "avx2": "AVX2"}
    best = next((name for feature, name in known.items() if features.get(feature)), "no AVX2")
    _, _, _, settings, rows, _, scratch, _ = kernel_arguments(8, 8, TVL1Parameters())
    iterate(rows, 8, 8, 1, settings, scratch, np.zeros(1))
    assembly = "".join(iterate.inspect_asm().values())
    bits = next((bits for register, bits in {"zmm": 512, "ymm": 256}.items() if register in assembly), 128)
    return f"{best} ({llvmlite.binding.get_host_cpu_name()}), vectors of {bits} bits"


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
    parser.add_argument("--clock", choices=[*CLOCKS], default="wall")
    parser.add_argument(
        "--against", metavar="PYTHON", help="of another installation, to compare with instead of OpenCV"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.videos and not arguments.serve:
        sys.exit(f"no clips in {CLIPS}: name some VIDEOS")
    return arguments


if __name__ == "__main__":
    main()
