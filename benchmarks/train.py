"""A training step and the loader, against the plain way on the same machine in the same run. One table.

    python benchmarks/train.py [--quick] [--repeats 11] [--only step|loader]

Runs on the CPU; `gpu.py` holds the same for a GPU. The plain way is two torchvision ResNets of the same depth and width
in eager float32, one after the other, frames flattened into the batch (`plain.py`). A step is forward, loss, backward
and update from bytes that lie in memory. Rows are medians of steps taken in turns. All of it keeps freed memory, as
`stres train` does and the plain way on its own would not (`pipelines/memory.py`).
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import loading
import torch
from plain import CLASSES, PlainTwoStreams, in_turns, random_batch, resnet, training_flops

from pipelines.models import STResNet
from pipelines.runtime.devices import available_cores, keep_freed_memory
from pipelines.training.loop import StepTrainer
from pipelines.training.recipes import PAPER

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """One row: a network, its input, and how many steps to take."""

    name: str
    depth: int
    width: int
    frames: int
    height: int
    columns: int
    videos: int
    joint: bool
    share_of_repeats: float = 1.0


SIZES = (
    Size("small recipe, single frames (no temporal kernels)", 26, 16, 1, 64, 80, 32, joint=False),
    Size("small recipe, joint, T=5", 26, 16, 5, 64, 80, 8, joint=True),
    Size("paper recipe, joint, T=5", 50, 64, 5, 224, 224, 2, joint=True, share_of_repeats=0.3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small sizes, few repetitions")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", choices=("step", "loader"))
    parser.add_argument("--small", action="store_true", help="not depth 50")
    arguments = parser.parse_args()
    keep_freed_memory()
    repeats = 2 if arguments.quick else arguments.repeats
    print(f"{available_cores()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    if arguments.only != "loader":
        print(
            "| training step | ours, videos/s | bf16 | plain way | ratio | bf16 | arithmetic, ours : plain |\n"
            "|---|---|---|---|---|---|---|"
        )
        for size in SIZES[:2] if arguments.quick or arguments.small else SIZES:
            print("| " + " | ".join(time_step(size, max(2, round(repeats * size.share_of_repeats)))) + " |", flush=True)
        print()
    if arguments.only != "step":
        time_loader(40 if arguments.quick else 200)


def time_step(size: Size, repeats: int) -> list[str]:
    torch.manual_seed(0)
    step = replace(PAPER.steps["joint1"], batch_size=size.videos, micro_batch=size.videos, iterations=10**9)
    trainers = [StepTrainer(network(size), step, size.videos, CPU, precision) for precision in ("fp32", "bf16")]
    plain = PlainTwoStreams(CPU, size.depth, size.width)
    batch = random_batch(size.videos, size.frames, size.height, size.columns)
    runs = [*(partial(trainer.fit, [batch]) for trainer in trainers), partial(plain.update, batch)]
    *ours, peer = in_turns(runs, CPU, repeats, warm_up=1)
    what = f"{size.name}: depth {size.depth}, width {size.width}, {size.columns}x{size.height}, batch {size.videos}"
    rates = (f"{size.videos / seconds:.2f}" for seconds in (*ours, peer))
    return [what, *rates, *(f"{peer / seconds:.2f}" for seconds in ours), f"{arithmetic(size):.2f}"]


def network(size: Size) -> STResNet:
    kind = {} if size.joint else {"temporal_kernels": False, "fusion": "none", "direction": "none"}
    return STResNet(CLASSES, depth=size.depth, width=size.width, **kind)


def arithmetic(size: Size) -> float:
    """Operations of a step of ours for one of the plain way's."""
    rgb, flow = (torch.empty(1, size.frames, c, size.height, size.columns) for c in (3, 20))
    ours = training_flops(network(size), rgb, flow)
    plain = [training_flops(resnet(size.depth, size.width, x.shape[2]), x[0]) for x in (rgb, flow)]
    return ours / sum(plain)


def time_loader(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        videos, sizes = loading.make_artifacts(Path(folder))
        rates = {
            workers: loading.samples_a_second(videos, (224, 224), workers, count) for workers in (0, available_cores())
        }
        loading.one_thread()
        rates[0] = loading.samples_a_second(videos, (224, 224), 0, count)
        parts = loading.parts(videos, (224, 224), count)
    print(
        f"The loader: T=5, stacks of 10 fields, {parts['fields']:.0f} distinct fields a sample, stored "
        f"{loading.WIDTH}x{loading.HEIGHT} ({sizes}), for 224x224:\n"
    )
    print("| | |\n|---|---|")
    print(f"| samples/s of one core | {rates[0]:.1f} |")
    print(f"| samples/s of {available_cores()} processes | {rates[available_cores()]:.1f} |")
    for name in ("decode", "decompress", "cut", "all"):
        print(f"| ms a sample, one thread: {name} | {parts[name]:.1f} |")
    print(f"| ms a sample, one thread, on the device: resize, mirror, normalise, stack | {parts['prepare']:.1f} |")
    print(f"| MB a batch of 128, as shipped | {128 * parts['bytes'] / 1e6:.0f} |")


if __name__ == "__main__":
    main()
