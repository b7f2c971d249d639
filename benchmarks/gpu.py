"""Every path that can use a GPU: first checked against the CPU, then timed. One command, one table.

    python benchmarks/gpu.py [--device cuda] [--quick] [--checks-only] [--only tvl1] [--budget 300] [--json rows.jsonl]

Exits with 1 if a check fails or a part ends in an error; the others are done all the same, and every row is printed at
once. The order is by how much a row tells: what the device does by itself, TV-L1, extraction, training, testing.
`--device cpu --quick` goes through the same code on small inputs, so that this file is known to work before a GPU is at
hand. What needs a package that is not there is left out, and said. A training step is timed against torchvision's
ResNet of the same depth, compiled, bf16, channels_last, on as many pictures; and against two of them in eager float32,
frames flattened into the batch: the baseline of running two streams.

Where the package is not installed: `PYTHONPATH=. python benchmarks/gpu.py`. On one H100 or H200 all of it should take
5 to 8 minutes, of which compiling two networks is half; `--checks-only` one.
"""

import argparse
import contextlib
import copy
import importlib.util
import itertools
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torchvision
from plain import (
    CLASSES,
    PlainTwoStreams,
    in_turns,
    median_seconds,
    once,
    random_batch,
    random_clip,
    resnet,
    training_flops,
)
from torch.nn.functional import cross_entropy

from pipelines import extract_flow
from pipelines.datasets import preparation
from pipelines.datasets.augmentation import Crop
from pipelines.datasets.clips import Clip, Clips
from pipelines.datasets.preparation import Prepare
from pipelines.datasets.samples import Batch
from pipelines.evaluation.scoring import Scorer
from pipelines.interface.options import Precision
from pipelines.interface.wording import plural
from pipelines.models import Normalise, STResNet
from pipelines.optical_flow import TVL1Parameters, tvl1_flow
from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.methods import make_method
from pipelines.optical_flow.mixing import Mixer
from pipelines.optical_flow.store import FlowTask, store_flow
from pipelines.optical_flow.tvl1.cuda.driver import GPULauncher
from pipelines.optical_flow.tvl1.cuda.self_check import check_variant
from pipelines.optical_flow.tvl1.cuda.shapes import fits, shapes_of
from pipelines.optical_flow.tvl1.cuda.solver import Launcher, solve
from pipelines.optical_flow.tvl1.flow import resolve_engine
from pipelines.optical_flow.tvl1.parameters import level_sizes
from pipelines.optical_flow.tvl1.reference import compute_flow as tvl1_reference
from pipelines.runtime.devices import available_cores, repeatable
from pipelines.sources.videos import VideoSource
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.flow_settings import FlowSettings
from pipelines.training.loop import StepTrainer
from pipelines.training.recipes import PAPER
from pipelines.video.decoding import VideoReader
from pipelines.video.synthetic import write_video
from stres_cli.extraction_view import gpu_line

# Dense bf16 operations a second of the chips whose data sheets we know, by a part of their names.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0}
# Options of tvl1 for flow that does not depend on the last bits: run to its end it is chaotic in a few pixels.
SHORT = (("nscales", "2"), ("warps", "2"), ("inner_iterations", "10"), ("outer_iterations", "1"), ("epsilon", "0"))
failed: list[str] = []


class Report:
    """The table, and the same as JSON lines."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.budget: float | None = None
        self.start = time.monotonic()

    def is_used_up(self) -> bool:
        return self.budget is not None and time.monotonic() - self.start > self.budget

    def add(self, row: tuple[str, str, str], numbers: dict[str, float]) -> None:
        print("| " + " | ".join(row) + " |", flush=True)
        if self.file is not None:
            line = dict(zip(("what", "result", "note"), row, strict=True)) | numbers
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {"at_second": time.monotonic() - self.start}) + "\n")


report = Report()


def add_row(row: tuple[str, str, str], **numbers: float) -> None:
    """Prints it at once: what comes after may fail or take too long."""
    report.add(row, numbers)


def attempt(what: Callable[..., None], *arguments: Any) -> None:
    """Whatever one part raises is a row, and the other parts go on; none begins when the budget is used up."""
    if report.is_used_up():
        add_row((what.__name__, "left out", f"the budget of {report.budget:g} s is used up"))
        return
    try:
        what(*arguments)
    except Exception as error:
        failed.append(what.__name__)
        traceback.print_exc()
        add_row((what.__name__, "FAILED", f"{type(error).__name__}: {error}".splitlines()[0][:200]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small inputs, few repetitions")
    parser.add_argument("--checks-only", action="store_true", help="no timings")
    parser.add_argument(
        "--only", choices=("tvl1", "extract", "training", "testing"), help="no other checks, no other timings"
    )
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="after which no further part begins")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for the rows as JSON lines, with numbers unrounded")
    parser.add_argument("--clips", type=Path, metavar="FOLDER", help="of real videos, on which TV-L1 is timed too")
    parser.add_argument("--videos", type=int, help="of a training step; default 16, with --quick 2")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bf16, where this file does not know it")
    arguments = parser.parse_args()
    report.file, report.budget = arguments.json, arguments.budget
    if arguments.json:
        arguments.json.write_text("", encoding="utf-8")
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    print(f"{name}, torch {torch.__version__}, torchvision {torchvision.__version__}")
    torch.manual_seed(0)
    print("\n| what | result | note |\n|---|---|---|")
    peak = arguments.peak_tflops or next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
    size, depth, repeats = (64, 26, 3) if arguments.quick else (224, 50, 10)
    videos = arguments.videos or (2 if arguments.quick else 16)

    def wanted(part: str) -> bool:
        return arguments.only in (None, part)

    timed = not arguments.checks_only
    with_tvl1 = wanted("tvl1") and present("cv2", "TV-L1")
    if timed:
        attempt(calibrate, device, arguments.quick)
    if with_tvl1:
        attempt(check_tvl1, device)
    if wanted("extract") and present("h5py", "extract-flow"):
        with tempfile.TemporaryDirectory() as folder:
            clips = Path(folder) / "videos"
            count, frames, height, width = (1, 4, 48, 64) if arguments.quick else (24, 150, 240, 320)
            attempt(write_clips, clips, count, frames, height, width)
            attempt(check_extraction, device, clips, Path(folder))
            attempt(check_mixing, device, clips, Path(folder))
            for workers in () if arguments.quick else (12, 4, 1):
                if timed:
                    attempt(time_extraction, device, clips, Path(folder) / f"work{workers}", workers)
            if timed:
                attempt(time_choice, device, clips, Path(folder), 5 if arguments.quick else 32)
    if wanted("training"):
        for check in (check_network, check_preparation, check_training, check_continuing):
            attempt(check, device)
        if on_gpu:
            attempt(check_fp16, device)
    if arguments.only is None:
        attempt(check_raft, device)
    if timed and with_tvl1:
        attempt(time_tvl1, device, arguments.quick)
        if arguments.clips:
            attempt(time_real_clips, device, arguments.clips)
        if on_gpu:
            attempt(time_shapes, GPULauncher(device), device)
        for engine in engines(device):
            attempt(profile_tvl1, device, engine, 2 if arguments.quick else 64)
    if wanted("training") and on_gpu:
        attempt(check_compiled, device)
    if timed and wanted("training"):
        attempt(time_preparation, device, videos, repeats, 1 if arguments.quick else 4)
        attempt(time_training, device, depth, size, videos, repeats, peak)
        attempt(time_recipe, device, depth, size, videos, repeats)
        attempt(time_loader, 40 if arguments.quick else 800)
    if timed and wanted("testing"):
        attempt(time_testing, device, depth, size, repeats)
    sys.exit(1 if failed else 0)


def present(package: str, what: str) -> bool:
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"left out: {what}, which needs the package {package}")
    return found


# ------------------------------------------------------------------ checks


@torch.inference_mode()
def check_network(device: torch.device) -> None:
    """Forward pass in float32 without TF32 against float64 on the CPU."""
    network = STResNet(10, depth=26, width=16, temporal_pool=(3, 1)).eval()
    rgb, flow = Normalise()(*random_clip(2, 5, 64, 64))
    reference = network.double()(rgb.double(), flow.double())
    with exact_float32():
        found = network.float().to(device)(rgb.to(device), flow.to(device))
    error = max(relative_error(a.cpu().double(), b) for a, b in zip(found, reference, strict=True))
    verdict("network, float32, against float64 on the CPU", error, 1e-4)


def check_preparation(device: torch.device) -> None:
    """What the device makes of a loader's pixels: cut, resized, mirrored, normalised, stacked."""
    batch = clips_batch(4, 3)
    expected = Prepare()(batch.rgb, batch.flow)
    there = batch.to(device)
    found = Prepare().to(device)(there.rgb, there.flow)
    error = max(relative_error(a.cpu(), b) for a, b in zip(found, expected, strict=True) if a is not None)
    verdict("preparation of clips, against the CPU", error, 1e-3)  # where one byte is rounded the other way: 1e-2
    found = Prepare(None, torch.bfloat16).to(device)(there.rgb, there.flow)
    error = max(relative_error(a.cpu().float(), b) for a, b in zip(found, expected, strict=True) if a is not None)
    verdict("the same in bf16, in which it is rounded", error, 4e-3)
    if device.type == "cuda":
        agreed = [preparation._kernel_agrees.get((there.rgb.device, channels), False) for channels in (2, 3)]
        verdict("in one pass, not in several in its place", float(not all(agreed)), 0)


def time_preparation(device: torch.device, videos: int, repeats: int, scale: int) -> None:
    """From bytes on the device to the network's input in bf16, in one pass and in several."""
    batch = clips_batch(videos, 5, scale).to(device)
    prepare = Prepare(None, torch.bfloat16, on_gpu=True).to(device)
    what = f"a video's input, T=5, 10 fields, {64 * scale} px"
    for note, kernels in (("in several passes", False), *([("in one pass", True)] if device.type == "cuda" else [])):
        with mock.patch.object(preparation, "_has_kernel", lambda device, kernels=kernels: kernels):
            seconds = median_seconds(lambda: prepare(batch.rgb, batch.flow), device, repeats) / videos
        add_row((what, f"{1e6 * seconds:.0f} us", note), seconds=seconds)


def check_training(device: torch.device) -> None:
    """The loss of three updates against the same three on the CPU; and with as many micro-batches in a pass as fit."""
    joined = small_trainer(device, at_once=None)
    with exact_float32():
        expected, *losses = map(loss_of_three, (small_trainer(torch.device("cpu")), small_trainer(device), joined))
    verdict("loss of three updates, against the CPU", abs(losses[0] / expected - 1), 1e-3)
    what = f"loss of three updates, {plural(joined.at_once or 1, 'micro-batch')} of 2 at once, against the CPU"
    verdict(what, abs(losses[1] / expected - 1), 1e-3)


def check_continuing(device: torch.device) -> None:
    """Three updates, and as many in a new trainer from the state after the first."""
    whole, begun = small_trainer(device), small_trainer(device)
    batch = clips_batch(4, 3)
    with repeatable():
        for _ in range(3):
            whole.fit([batch])
        begun.fit([batch])
        continued = small_trainer(device)
        continued.load_state_dict(copy.deepcopy(begun.state_dict()))
        for _ in range(2):
            continued.fit([batch])
    pairs = zip(continued.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    verdict("three updates, interrupted and not", float(sum(not torch.equal(a, b) for a, b in pairs)), 0)


def check_fp16(device: torch.device) -> None:
    """An update that overflows is left out; those after it stay near bf16's."""
    losses = []
    for precision in ("bf16", "fp16"):
        trainer = small_trainer(device, precision)
        if precision == "fp16":
            trainer.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**60, backoff_factor=2.0**-50)
            trainer.fit([clips_batch(4, 3)])
            trainer.state.sums.clear()
        losses.append(loss_of_three(trainer))
    verdict("fp16 after an overflow, against bf16", abs(losses[1] / losses[0] - 1), 5e-2)


def check_compiled(device: torch.device) -> None:
    losses = [loss_of_three(small_trainer(device, "bf16", compile_network=compiled)) for compiled in (False, True)]
    verdict("loss of three updates, compiled, bf16, against not compiled", abs(losses[1] / losses[0] - 1), 2e-2)


def small_trainer(device: torch.device, precision: Precision = "fp32", **settings: Any) -> StepTrainer:
    """Of a small network, always the same."""
    torch.manual_seed(1)
    step = replace(PAPER.steps["joint1"], iterations=10, batch_size=4, micro_batch=2, frames=3, lr=1e-4)
    return StepTrainer(STResNet(4, depth=26, width=16), step, 4, device, precision, **settings)


def loss_of_three(trainer: StepTrainer) -> float:
    for _ in range(3):
        trainer.fit([clips_batch(4, 3)])
    return float(trainer.state.sums["loss"])


def clips_batch(videos: int, frames: int, scale: int = 1) -> Batch:
    """Noise as a loader brings it: 70x90 pixels times `scale`, of which 56x72 become 64x64, every second video
    mirrored."""
    random, shape = np.random.default_rng(0), (70 * scale, 90 * scale)
    rgb, flow = (
        Clips(
            [
                Clip(
                    torch.from_numpy(random.integers(0, 256, (frames * each, channels, *shape), dtype=np.uint8)),
                    np.arange(frames * each).reshape(frames, each),
                    Crop(3, 5, 56 * scale, 72 * scale, mirror=video % 2 == 1),
                    (64 * scale, 64 * scale),
                )
                for video in range(videos)
            ]
        )
        for each, channels in ((1, 3), (10, 2))
    )
    return Batch(rgb, flow, torch.arange(videos), torch.arange(videos))


def check_raft(device: torch.device) -> None:
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
    verdict("RAFT, against the CPU", relative_error(found.cpu().double(), expected.double()), 1e-3)


def write_clips(folder: Path, count: int, frames: int, height: int, width: int) -> None:
    """Clips of a texture that moves back and forth while all of the picture moves on."""
    (before,), (after,) = (side.numpy() for side in moving_textures(1, height, width))
    pictures = np.stack([np.roll((before, after)[t % 2], t, 1) for t in range(frames)])
    clip = np.stack([pictures, pictures // 2 + 60, 255 - pictures], -1)
    (folder / "clips").mkdir(parents=True)
    for number in range(count):
        write_video(folder / "clips" / f"{number:02d}.mkv", np.roll(clip, 7 * number, 2))


def check_extraction(device: torch.device, clips: Path, folder: Path) -> None:
    """The stored flow of a clip against the CPU's: bytes that differ by more than one level."""
    stored = [stored_flow(clips, folder / f"{where}.h5", where).astype(np.int16) for where in ("cpu", str(device))]
    verdict("flow stored of a clip, bytes off by more than 1", float((abs(stored[0] - stored[1]) > 1).mean()), 1e-4)


def check_mixing(device: torch.device, clips: Path, folder: Path) -> None:
    """The stored flow of three videos that one process computes together, against the same computed alone."""
    store = partial(stored_flow, clips, where=str(device))
    alone = store(folder / "alone.h5")
    with Mixer("tvl1", dict(SHORT), str(device), "auto") as mixer, ThreadPoolExecutor(3) as pool:
        mixer.start()
        give_up = time.monotonic() + 120  # until it has begun, who asks computes
        while not mixer.at_work and time.monotonic() < give_up:
            store(folder / "meanwhile.h5", mixer=mixer.address)
        mixed = list(pool.map(partial(store, mixer=mixer.address), (folder / f"mixed{n}.h5" for n in range(3))))
        verdict("one process computes for all", float(not mixer.at_work or mixer.ended), 0)
    verdict("flow of videos mixed, against each alone", float(np.mean([made != alone for made in mixed])), 0)


def stored_flow(clips: Path, target: Path, where: str, mixer: str = "") -> np.ndarray:
    """The bytes of the first clip's flow by the task of `extract-flow`."""
    task = FlowTask(
        source=VideoSource("clips", "00", clips / "clips" / "00.mkv"),
        target=target,
        settings=FlowSettings.of("tvl1", make_method("tvl1", dict(SHORT), where).parameters, 20, 1, "video"),
        method_options=SHORT,
        device=where,
        mixer=mixer,
    )
    fields = store_flow(task, lambda units: None)
    with FlowFile(target) as file:
        return file.read(0, fields)


def time_extraction(device: torch.device, clips: Path, workspace: Path, workers: int) -> None:
    """extract-flow from the files to the files."""
    result = extract_flow.run(extract_flow.Config(workspace, str(clips), workers=workers, device=str(device)))
    what = f"extract-flow, {plural(result.done, 'clip')}, {plural(workers, 'process') if workers else 'its choice'}"
    rates = {f"pairs_per_second_with_{count}": rate for count, rate in result.process_rates.items()}
    rates |= {"pairs_per_second_mixed": result.mixed_rate} if result.mixed_rate is not None else {}
    add_row(
        (
            what,
            f"{result.units_per_second:.1f} pairs/s",
            f"{result.units} pairs in {result.seconds:.1f} s{gpu_line(result)}",
        ),
        pairs_per_second=result.units_per_second,
        **rates,
    )
    if result.failed or not result.done:
        raise RuntimeError(f"{result.failed} clips failed, {result.done} done")


def time_choice(device: torch.device, clips: Path, folder: Path, copies: int) -> None:
    """The same with what is found to be fastest: so many processes, or one that computes for all. Every clip so often
    that there is time to measure them."""
    many = folder / "many" / "clips"
    many.mkdir(parents=True)
    for clip, number in itertools.product(sorted(clips.glob("*/*.mkv")), range(copies)):
        os.link(clip, many / f"{clip.stem}-{number}.mkv")
    time_extraction(device, many.parent, folder / "work0", workers=0)


def check_tvl1(device: torch.device) -> None:
    """Every engine of the device against the reference in float64 on the CPU; and pairs alone against all together.

    Run to its end the estimator is chaotic in a few pixels: there the median end-point difference is what counts.
    """
    frame0, frame1 = moving_textures(2, 41, 55)
    for engine, mode in itertools.product(engines(device), ("cpu", "cuda")):
        short = TVL1Parameters(mode=mode, nscales=2, warps=2, inner_iterations=10, outer_iterations=1, epsilon=0)
        full = TVL1Parameters(mode=mode, warps=2)
        compute = partial(tvl1_flow, device=device, engine=engine)
        expected, found = (
            [tvl1_reference(frame0, frame1, parameters, dtype=torch.float64) for parameters in (short, full)],
            [compute(frame0, frame1, parameters=parameters).cpu() for parameters in (short, full)],
        )
        what = f"TV-L1 by {engine}, mode {mode}"
        if engine == "cuda":
            verdict(f"{what}, not by Triton in its place", float(not last_engine().startswith("cuda ")), 0)
        verdict(f"{what}, 20 iterations a level", relative_error(found[0].double(), expected[0]), 1e-4)
        median = float((found[1] - expected[1]).norm(dim=1).median() / expected[1].norm(dim=1).median())
        verdict(f"{what}, to its end, medians over the pixels", median, 5e-3)
        pairs = zip(frame0.split(1), frame1.split(1), strict=True)
        alone = torch.cat([compute(*pair, parameters=full).cpu() for pair in pairs])
        verdict(f"{what}, pairs alone against all together", relative_error(found[1], alone), 0)


def engines(device: torch.device) -> list[str]:
    return ["triton", "cuda"] if device.type == "cuda" else [resolve_engine("auto", device)]


def last_engine() -> str:
    from pipelines.optical_flow.tvl1 import cuda_engine  # needs Triton, for what it does not compute itself

    return cuda_engine.last_engine()


def verdict(what: str, error: float, bound: float) -> None:
    good = error <= bound  # false for NaN
    if not good:
        failed.append(what)
    note = f"relative error {error:.1e}, allowed {bound:.0e}"
    add_row((what, "equal" if good else "DIFFERENT", note), error=error, bound=bound)


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


def calibrate(device: torch.device, quick: bool) -> None:
    """What the device does by itself: the scale for all other rows."""
    count = 1 << (22 if quick else 29)
    source, target = (torch.zeros(count, dtype=torch.bfloat16, device=device) for _ in range(2))
    rate = 2 * 2 * count / median_seconds(lambda: target.copy_(source), device, repeats=5)
    add_row(("copying", f"{rate / 1e9:.0f} GB/s", "read and written"), bytes_per_second=rate)
    side = 256 if quick else 8192
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    rate = 2 * side**3 / median_seconds(lambda: a @ b, device, repeats=5)
    add_row(("matrix product", f"{rate / 1e12:.2f} TFLOP/s", f"bf16, {side}x{side}"), flops=rate)
    small, launches = torch.zeros(1, device=device), 1000

    def launch() -> None:
        for _ in range(launches):
            small.add_(1)

    seconds = median_seconds(launch, device, repeats=3) / launches
    add_row(("launching a kernel", f"{seconds * 1e6:.1f} us", "one after the other"), seconds=seconds)


def time_training(
    device: torch.device, depth: int, size: int, videos: int, repeats: int, peak_tflops: float | None
) -> None:
    """Images a second of one update of the joint step (2 T images a video), ours and others, in turns."""
    frames, on_gpu = 5, device.type == "cuda"
    precision = "bf16" if on_gpu else "fp32"
    step = replace(PAPER.steps["joint1"], batch_size=videos, micro_batch=videos, iterations=10**9)

    def trainer(compiled: bool) -> StepTrainer:
        return StepTrainer(
            STResNet(CLASSES, depth=depth), step, videos, device, precision, compile_network=compiled and on_gpu
        )

    batch = random_batch(videos, frames, size, size).to(device)
    images = 2 * frames * videos
    ours, eager, peer, plain = (
        trainer(True),
        trainer(False),
        OneResNet(device, depth, images, size),
        PlainTwoStreams(device, depth),
    )
    runs = [
        repeatable()(lambda: ours.fit([batch])),
        repeatable()(lambda: eager.fit([batch])),
        peer.update,
        lambda: plain.update(batch),
        repeatable()(peer.update),
    ]
    seconds = in_turns(runs, device, repeats)
    rgb, flow = (torch.empty(1, frames, channels, size, size) for channels in (3, 20))
    flops = videos * training_flops(STResNet(CLASSES, depth=depth), rgb, flow)
    used = f"{flops / seconds[0] / 1e12:.1f} TFLOP/s"
    if peak_tflops:
        used += f", {100 * flops / seconds[0] / peak_tflops / 1e12:.0f} % of {peak_tflops:.0f}"
    kind = f"{precision}, channels_last" + (", compiled" if on_gpu else "")
    what = f"training, depth {depth}, T={frames}, {size} px, {videos} videos"
    rates = [images / each for each in seconds]
    add_row((what, f"{rates[0]:.0f} images/s", f"{kind}; {used}"))
    add_row(("not compiled", f"{rates[1]:.0f} images/s", f"{precision}, channels_last"))
    one = f"{kind}; ours is {rates[0] / rates[2]:.2f} of it"
    add_row((f"one torchvision ResNet-{depth}, {images} images", f"{rates[2]:.0f} images/s", one))
    add_row(("the same, repeatable as ours is", f"{rates[4]:.0f} images/s", f"ours is {rates[0] / rates[4]:.2f} of it"))
    add_row(
        (
            "two of them, the baseline",
            f"{rates[3]:.0f} images/s",
            f"eager fp32; ours is {rates[0] / rates[3]:.2f} times it",
        )
    )
    add_row(("samples that this takes", f"{videos / seconds[0]:.1f} samples/s", "of 2 T images"))
    add_profile("an update, not compiled", runs[1], device)


def time_recipe(device: torch.device, depth: int, size: int, videos: int, repeats: int) -> None:
    """The same update in the recipe's micro-batches, one by one and as many at once as fit; repeatable and not."""
    step = replace(PAPER.steps["joint1"], batch_size=videos, iterations=10**9)
    step = replace(step, micro_batch=min(step.micro_batch, videos // 2))
    batch = random_batch(videos, 5, size, size).to(device)
    precision = "bf16" if device.type == "cuda" else "fp32"
    trainers = [
        StepTrainer(STResNet(CLASSES, depth=depth), step, videos, device, precision, at_once=most) for most in (1, None)
    ]
    updates = [partial(trainer.fit, [batch]) for trainer in trainers]
    seconds = in_turns([*map(repeatable(), updates), *updates], device, repeats)
    for each, trainer, note in zip(seconds, trainers * 2, ("repeatable",) * 2 + ("not repeatable",) * 2, strict=True):
        what = f"training in micro-batches of {step.micro_batch}, {trainer.at_once} at once, not compiled"
        add_row((what, f"{10 * videos / each:.0f} images/s", note), images_per_second=10 * videos / each)


def add_profile(what: str, run: Callable[[], object], device: torch.device, most: int = 12) -> None:
    """What takes most of the time of `run`, which has run before: a row each kernel, on a CPU each operation."""
    activity = "CUDA" if device.type == "cuda" else "CPU"
    with torch.profiler.profile(activities=[getattr(torch.profiler.ProfilerActivity, activity)]) as profiler:
        once(run, device)
    name = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = sorted(profiler.key_averages(), key=lambda average: getattr(average, name), reverse=True)
    total = sum(getattr(average, name) for average in averages)
    for average in averages[:most]:
        took = getattr(average, name)
        note = f"{100 * took / total:.0f} %, {plural(average.count, 'call')}"
        add_row((f"{what}: {average.key[:80]}", f"{took:.0f} us", note), microseconds=took, calls=average.count)


class OneResNet:
    """torchvision's ResNet as fast as torch makes it: bf16 where there is a GPU, channels_last, compiled."""

    def __init__(self, device: torch.device, depth: int, images: int, size: int) -> None:
        on_gpu = device.type == "cuda"
        network = resnet(depth, 64, 3).to(device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
        self.network = torch.compile(network, dynamic=False) if on_gpu else network
        pixels = torch.rand(images, 3, size, size, device=device)
        self.pixels = pixels.contiguous(memory_format=torch.channels_last)
        self.labels = torch.arange(images, device=device) % CLASSES
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=on_gpu)

    def update(self) -> None:
        with self.autocast:
            logits = self.network(self.pixels)
        cross_entropy(logits.float(), self.labels).backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


def time_loader(count: int) -> None:
    """Samples a second of the loader with a process a core, from made-up artifacts."""
    if not all(present(package, "the loader") for package in ("cv2", "h5py")):
        return
    import loading

    with tempfile.TemporaryDirectory() as folder:
        # Without hdf5plugin there is no Zstandard: gzip instead, which takes longer to read.
        compression = "zstd" if importlib.util.find_spec("hdf5plugin") else "gzip"
        videos, _ = loading.make_artifacts(Path(folder), compression)
        rate = loading.samples_a_second(videos, (224, 224), available_cores(), count)
    note = f"T=5, 10 fields, {loading.WIDTH}x{loading.HEIGHT} stored, {compression}"
    add_row((f"the loader, {available_cores()} processes", f"{rate:.1f} samples/s", note))


def time_testing(device: torch.device, depth: int, size: int, repeats: int) -> None:
    """Seconds of one video by the paper's protocol: 25 frames, whole pictures, mirrored."""
    height, width = size * 8 // 7, (size * 4 // 3) * 8 // 7 // 2 * 2
    rgb = torch.randint(0, 256, (2, 25, 3, height, width), dtype=torch.uint8, device=device)
    flow = torch.randint(0, 256, (2, 25, 20, height, width), dtype=torch.uint8, device=device)
    windows = [list(range(25))]
    full = Scorer(STResNet(CLASSES, depth=depth), device)
    seconds = median_seconds(lambda: full.mean(rgb, flow, windows), device, repeats)
    what = f"testing, depth {depth}, 25 frames of {width}x{height}, mirrored"
    add_row((what, f"{1 / seconds:.2f} videos/s", "fp32, convolutions in TF32" if device.type == "cuda" else "fp32"))
    if device.type == "cuda":
        half = Scorer(full.network, device, "bf16")
        seconds = median_seconds(lambda: half.mean(rgb, flow, windows), device, repeats)
        add_row((what, f"{1 / seconds:.2f} videos/s", "bf16"))


def time_tvl1(device: torch.device, quick: bool) -> None:
    """Pairs a second, frames and flow on the device, with early stop and without; the reference there as the peer."""
    height, width = (48, 64) if quick else (256, 340)
    warps = 1 if quick else 5
    for pairs in (2,) if quick else (256, 64, 16):
        frame0, frame1 = (side.to(device) for side in moving_textures(pairs, height, width))
        for engine, mode in itertools.product(engines(device), ("cpu", "cuda")):
            for stop, epsilon in (("early stop", 0.01), ("300 iterations always", 0.0)):
                if report.is_used_up():
                    continue
                parameters = TVL1Parameters(mode=mode, epsilon=epsilon, warps=warps)
                compute = partial(tvl1_flow, parameters=parameters, engine=engine)
                once = quick or (epsilon == 0 and pairs == 256)  # ten seconds and more
                seconds = median_seconds(partial(compute, frame0, frame1), device, repeats=1 if once else 3)
                what = f"TV-L1 by {engine}, {width}x{height}, mode {mode}, {stop}"
                note, numbers = f"{pairs} pairs a call", {"pairs_per_second": pairs / seconds, "pairs": float(pairs)}
                if epsilon == 0:
                    sizes = level_sizes(height, width, parameters.nscales, parameters.scale_step)
                    iterations = warps * parameters.inner_iterations * parameters.outer_iterations
                    work = pairs * iterations * sum(rows * columns for rows, columns in sizes)
                    numbers["pixel_iterations_per_second"] = work / seconds
                    note += f", {work / seconds / 1e9:.1f} G pixel-iterations/s"
                if engine == "cuda":
                    note += f", {last_engine()}"
                add_row((what, f"{pairs / seconds:.1f} pairs/s", note), **numbers)
    compute = partial(tvl1_flow, parameters=TVL1Parameters(warps=warps))
    peer = partial(compute, frame0[:1], frame1[:1], engine="reference")
    our_seconds, peer_seconds = in_turns([partial(compute, frame0, frame1), peer], device, repeats=1)
    note = f"1 pair a call; ours, {pairs} a call, is {pairs / our_seconds * peer_seconds:.0f} times that"
    add_row(("mode cpu, early stop, by plain PyTorch", f"{1 / peer_seconds:.2f} pairs/s", note))


def time_shapes(launcher: Launcher, device: torch.device, height: int = 256, width: int = 340, most: int = 6) -> None:
    """The engine `cuda`, 300 iterations of the full size without a median, in the shapes that `shapes.py` thinks best:
    what is predicted of them there beside what they take."""
    limits = launcher.limits
    shapes = [shape for shape in shapes_of(height, width) if fits(shape, limits)]
    shapes.sort(key=lambda shape: shape.slots(limits) / shape.cycles(), reverse=True)
    parameters = TVL1Parameters(nscales=1, warps=1, epsilon=0, median_filtering=1)
    for shape in shapes[:most]:
        check_variant(shape.variant, launcher, device)
        pairs = 4 * shape.slots(limits)
        frame0, frame1 = (side.to(device).repeat(pairs, 1, 1) for side in moving_textures(1, height, width))
        compute = partial(solve, frame0, frame1, parameters, [shape], launcher)
        seconds = median_seconds(compute, device, repeats=3)
        rate = pairs * 300 * height * width / seconds
        per_cycle = shape.slots(limits) * height * width / shape.cycles()
        predicted = f"predicted {per_cycle:.0f} a cycle, so {per_cycle * 1.75:.0f} G at 1.75 GHz"
        note = f"{shape.slots(limits)} pairs at once; {predicted}"
        row = (f"the shape {shape} of {width}x{height}", f"{rate / 1e9:.1f} G pixel-iterations/s", note)
        add_row(row, pixel_iterations_per_second=rate, predicted_per_cycle=per_cycle)


def time_real_clips(device: torch.device, folder: Path, most: int = 64) -> None:
    """Pairs of real videos with early stop, at most `most` of each: video by video, and all together."""
    clips = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".avi", ".mp4", ".mkv", ".webm")):
        with VideoReader(path) as reader:
            clips.append(torch.from_numpy(np.stack([to_grey(frame) for frame in islice(reader, most + 1)])).to(device))
    size = Counter(clip.shape[1:] for clip in clips).most_common(1)[0][0]
    clips = [clip for clip in clips if clip.shape[1:] == size]
    before, after = torch.cat([clip[:-1] for clip in clips]), torch.cat([clip[1:] for clip in clips])
    for engine in engines(device):
        compute = partial(tvl1_flow, engine=engine)

        def one_by_one(compute: Callable[..., object] = compute) -> None:
            for clip in clips:
                compute(clip[:-1], clip[1:])

        for how, run in (("one by one", one_by_one), ("together", partial(compute, before, after))):
            rate = len(before) / median_seconds(run, device, repeats=3)
            what = f"TV-L1 by {engine}, {plural(len(clips), 'real clip')} of {size[1]}x{size[0]}, early stop"
            add_row((what, f"{rate:.1f} pairs/s", f"{how}, {len(before)} pairs"), pairs_per_second=rate)


def profile_tvl1(device: torch.device, engine: str, pairs: int) -> None:
    frame0, frame1 = (side.to(device) for side in moving_textures(pairs, *((48, 64) if pairs < 64 else (256, 340))))
    compute = partial(tvl1_flow, frame0, frame1, engine=engine)
    compute()
    add_profile(f"TV-L1 by {engine}, {pairs} pairs", compute, device)


def moving_textures(pairs: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey frames uint8 [pairs, height, width] of textures, and the same moved by smooth random flow of some pixels."""
    frames: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    import cv2

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


if __name__ == "__main__":
    main()
