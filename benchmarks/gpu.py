"""Every path that can use a GPU: first checked against the CPU, then timed. One command, one table.

    python benchmarks/gpu.py [--device cuda] [--quick] [--checks-only]

Exits with 1 if a check fails. `--device cpu --quick` goes through the same code on small inputs, so that this file is
known to work before a GPU is at hand. The peer in the timings is torchvision's ResNet of the same depth, one network a
stream, frames flattened into the batch: the plain way of running two streams.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from torch.nn.functional import cross_entropy

from pipelines.datasets.loading import Batch
from pipelines.evaluation.scoring import Scorer
from pipelines.models import Normalise, STResNet
from pipelines.optical_flow import TVL1Parameters, tvl1_flow
from pipelines.optical_flow.methods import make_method
from pipelines.optical_flow.tvl1.flow import resolve_engine
from pipelines.optical_flow.tvl1.reference import compute_flow as tvl1_reference
from pipelines.training.loop import StepTrainer
from pipelines.training.recipes import PAPER

CLASSES = 101
rows: list[tuple[str, str, str]] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small inputs, few repetitions")
    parser.add_argument("--checks-only", action="store_true", help="no timings")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, torchvision {torchvision.__version__}")
    torch.manual_seed(0)
    checks = [check_network(device), check_training(device), check_raft(device), *check_tvl1(device)]
    size, depth, repeats = (64, 26, 3) if arguments.quick else (224, 50, 10)
    videos = 2 if arguments.quick else 16
    if not arguments.checks_only:
        time_training(device, depth, size, videos, repeats)
        time_testing(device, depth, size, repeats)
        time_tvl1(device, arguments.quick)
    print("\n| what | result | note |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.exit(0 if all(checks) else 1)


# ------------------------------------------------------------------ checks


@torch.inference_mode()
def check_network(device: torch.device) -> bool:
    """Forward pass in float32 without TF32 against float64 on the CPU."""
    network = STResNet(10, depth=26, width=16, temporal_pool=(3, 1)).eval()
    rgb, flow = Normalise()(*random_clip(2, 5, 64))
    reference = network.double()(rgb.double(), flow.double())
    with exact_float32():
        found = network.float().to(device)(rgb.to(device), flow.to(device))
    error = max(relative_error(a.cpu().double(), b) for a, b in zip(found, reference, strict=True))
    return verdict("network, float32, against float64 on the CPU", error, 1e-4)


def check_training(device: torch.device) -> bool:
    """The loss of three updates against the same three on the CPU."""
    losses = []
    step = replace(PAPER.steps["joint1"], iterations=3, batch_size=4, micro_batch=2, frames=3, lr=1e-4)
    rgb, flow = random_clip(4, 3, 64)
    batch = Batch(rgb, flow, torch.arange(4), torch.arange(4))
    for where in (torch.device("cpu"), device):
        torch.manual_seed(1)
        trainer = StepTrainer(STResNet(4, depth=26, width=16), step, 4, where)
        with exact_float32():
            for _ in range(3):
                trainer.update(batch)
        losses.append(float(trainer.state.sums["loss"]))
    return verdict("loss of three updates, against the CPU", abs(losses[1] / losses[0] - 1), 1e-3)


def check_raft(device: torch.device) -> bool:
    """RAFT with made-up weights (none are needed to compare devices)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "raft.pth"
        torch.save(torchvision.models.optical_flow.raft_small(weights=None).state_dict(), file)
        options = {"model": "raft_small", "weights": str(file)}
        frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 128, 160), dtype=np.uint8))
        expected = make_method("raft", options, "cpu").flow(frames[:-1], frames[1:])
        with exact_float32():
            there = frames.to(device)
            found = make_method("raft", options, str(device)).flow(there[:-1], there[1:])
    return verdict("RAFT, against the CPU", relative_error(found.cpu().double(), expected.double()), 1e-3)


def check_tvl1(device: torch.device) -> list[bool]:
    """The device's engine of TV-L1 against the reference in float64 on the CPU; and pairs alone against all together.

    Run to its end the estimator is chaotic in a few pixels: there the median end-point difference is what counts.
    """
    frame0, frame1 = moving_textures(2, 41, 55)
    good = []
    for mode in ("cpu", "cuda"):
        short = TVL1Parameters(mode=mode, nscales=2, warps=2, inner_iterations=10, outer_iterations=1, epsilon=0)
        full = TVL1Parameters(mode=mode, warps=2)
        expected, found = (
            [tvl1_reference(frame0, frame1, parameters, dtype=torch.float64) for parameters in (short, full)],
            [tvl1_flow(frame0, frame1, parameters=parameters, device=device).cpu() for parameters in (short, full)],
        )
        what = f"TV-L1, mode {mode}"
        good.append(verdict(f"{what}, 20 iterations a level", relative_error(found[0].double(), expected[0]), 1e-4))
        median = float((found[1] - expected[1]).norm(dim=1).median() / expected[1].norm(dim=1).median())
        good.append(verdict(f"{what}, to its end, medians over the pixels", median, 5e-3))
        pairs = zip(frame0.split(1), frame1.split(1), strict=True)
        alone = torch.cat([tvl1_flow(*pair, parameters=full, device=device).cpu() for pair in pairs])
        good.append(verdict(f"{what}, pairs alone against all together", relative_error(found[1], alone), 0))
    return good


def verdict(what: str, error: float, bound: float) -> bool:
    good = error <= bound  # false for NaN
    rows.append((what, "equal" if good else "DIFFERENT", f"relative error {error:.1e}, allowed {bound:.0e}"))
    return good


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """TF32 off, so that float32 means float32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


# ------------------------------------------------------------------ timings


def time_training(device: torch.device, depth: int, size: int, videos: int, repeats: int) -> None:
    """Images a second of one update of the joint step (2 T images a video), ours and the plain way, in turns."""
    frames = 5
    precision = "bf16" if device.type == "cuda" else "fp32"
    step = replace(PAPER.steps["joint1"], batch_size=videos, micro_batch=videos, iterations=10**9)
    trainer = StepTrainer(STResNet(CLASSES, depth=depth), step, videos, device, precision)
    trainer.model.train()
    rgb, flow = random_clip(videos, frames, size)
    batch = Batch(rgb, flow, torch.arange(videos) % CLASSES, torch.arange(videos)).to(device)
    plain = PlainTwoStreams(device, depth)
    ours, peer = in_turns(lambda: trainer.update(batch), lambda: plain.update(batch), device, repeats)
    images = 2 * frames * videos
    what = f"training, depth {depth}, T={frames}, {size} px, {videos} videos"
    rows.append((what, f"{images / ours:.0f} images/s", f"{precision}, channels_last"))
    rows.append(("the plain way, eager fp32", f"{images / peer:.0f} images/s", f"ours is {peer / ours:.2f} times that"))


class PlainTwoStreams:
    """Two torchvision ResNets, eager float32, one after the other, frames flattened into the batch."""

    def __init__(self, device: torch.device, depth: int) -> None:
        def network() -> torchvision.models.ResNet:
            blocks = {26: [2, 2, 2, 2], 50: [3, 4, 6, 3]}[depth]
            bottleneck = torchvision.models.resnet.Bottleneck
            return torchvision.models.ResNet(bottleneck, blocks, num_classes=CLASSES).to(device)

        self.appearance, self.motion = network(), network()
        self.motion.conv1 = torch.nn.Conv2d(20, 64, 7, 2, 3, bias=False, device=device)
        self.normalise = Normalise().to(device)
        parameters = [*self.appearance.parameters(), *self.motion.parameters()]
        self.optimiser = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)

    def update(self, batch: Batch) -> None:
        rgb, flow = self.normalise(batch.rgb, batch.flow)
        labels = batch.labels.repeat_interleave(rgb.shape[1])
        for network, inputs in ((self.appearance, rgb), (self.motion, flow)):
            cross_entropy(network(inputs.flatten(0, 1)), labels).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def time_testing(device: torch.device, depth: int, size: int, repeats: int) -> None:
    """Seconds of one video by the paper's protocol: 25 frames, whole pictures, mirrored."""
    height, width = size * 8 // 7, (size * 4 // 3) * 8 // 7 // 2 * 2
    rgb = torch.randint(0, 256, (2, 25, 3, height, width), dtype=torch.uint8)
    flow = torch.randint(0, 256, (2, 25, 20, height, width), dtype=torch.uint8)
    windows = [list(range(25))]
    full = Scorer(STResNet(CLASSES, depth=depth), device)
    seconds = median_seconds(lambda: full.score(rgb, flow, windows), device, repeats)
    what = f"testing, depth {depth}, 25 frames of {width}x{height}, mirrored"
    rows.append((what, f"{1 / seconds:.2f} videos/s", "fp32"))
    if device.type == "cuda":
        half = Scorer(full.network, device, "bf16")
        seconds = median_seconds(lambda: half.score(rgb, flow, windows), device, repeats)
        rows.append((what, f"{1 / seconds:.2f} videos/s", "bf16"))


def time_tvl1(device: torch.device, quick: bool) -> None:
    """Pairs a second, frames and flow on the device, with early stop and without; the reference there as the peer."""
    height, width = (48, 64) if quick else (256, 340)
    warps = 1 if quick else 5
    for pairs in (2,) if quick else (16, 64, 256):
        frame0, frame1 = (side.to(device) for side in moving_textures(pairs, height, width))
        for mode in ("cpu", "cuda"):
            for stop, epsilon in (("early stop", 0.01), ("300 iterations always", 0.0)):
                compute = partial(tvl1_flow, parameters=TVL1Parameters(mode=mode, epsilon=epsilon, warps=warps))
                seconds = median_seconds(partial(compute, frame0, frame1), device, repeats=1 if quick else 3)
                what = f"TV-L1, {width}x{height}, mode {mode}, {stop}"
                note = f"engine {resolve_engine('auto', device)}, {pairs} pairs a call"
                rows.append((what, f"{pairs / seconds:.1f} pairs/s", note))
    compute = partial(tvl1_flow, parameters=TVL1Parameters(warps=warps))
    peer = partial(compute, frame0[:1], frame1[:1], engine="reference")
    our_seconds, peer_seconds = in_turns(partial(compute, frame0, frame1), peer, device, repeats=1)
    note = f"1 pair a call; ours, {pairs} a call, is {pairs / our_seconds * peer_seconds:.0f} times that"
    rows.append(("mode cpu, early stop, by plain PyTorch", f"{1 / peer_seconds:.2f} pairs/s", note))


def moving_textures(pairs: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey frames uint8 [pairs, height, width] of textures, and the same moved by smooth random flow of some pixels."""
    frames: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    grid = np.mgrid[:height, :width].astype(np.float32)
    for seed in range(pairs):
        random = np.random.default_rng(seed)
        octaves = [cv2.GaussianBlur(random.normal(0, 1, (height, width)), (0, 0), s) * s for s in (1, 2, 5, 12)]
        texture = cv2.normalize(sum(octaves), None, 0, 255, cv2.NORM_MINMAX).astype(np.float32)
        coarse = random.normal(0, 2, (2, 5, 6)).astype(np.float32)
        flow = [cv2.resize(component, (width, height), interpolation=cv2.INTER_CUBIC) for component in coarse]
        moved = cv2.remap(
            texture, grid[1] - flow[0], grid[0] - flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        for side, picture in zip(frames, (texture, moved), strict=True):
            side.append((picture + random.normal(0, 1, picture.shape)).round().clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(frames[0])), torch.from_numpy(np.stack(frames[1]))


def in_turns(
    first: Callable[[], object], second: Callable[[], object], device: torch.device, repeats: int
) -> tuple[float, float]:
    """Median seconds of each, measured alternately after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for run, found in zip((first, second), times, strict=True):
            seconds = once(run, device)
            if repeat >= 2:
                found.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    run()
    return statistics.median(once(run, device) for _ in range(repeats))


def once(run: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    started = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_clip(videos: int, frames: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    rgb = torch.randint(0, 256, (videos, frames, 3, size, size), dtype=torch.uint8)
    flow = torch.randint(0, 256, (videos, frames, 20, size, size), dtype=torch.uint8)
    return rgb, flow


if __name__ == "__main__":
    main()
