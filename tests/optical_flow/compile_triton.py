"""Compiles every launch of the Triton engine, and of the kernel that prepares a network's input, for an H100 or H200
without one: a process of its own, as Triton's driver and launches are replaced.

    python compile_triton.py REPORT

REPORT: what the assembler says, a JSON line for each compiled kernel.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from pipelines.datasets.augmentation import Crop
from pipelines.datasets.clips import Clip, Clips
from pipelines.datasets.preparation_kernel import prepare_clips
from pipelines.optical_flow import TVL1Parameters
from pipelines.optical_flow.tvl1 import triton_solver

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
compiled: dict[str, Any] = {}
sizes: dict[str, str] = {}  # of the frames that each was first compiled for


class Driver:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(kernel: Any, grid: tuple[int, ...]) -> Any:
    def launch(*arguments: Any, **options: Any) -> None:
        made = kernel.run(*arguments, grid=grid, warmup=True, **options)
        compiled[f"{kernel.fn.__name__} {made.hash}"] = made

    return launch


triton.runtime.driver.set_active(Driver())
JITFunction.__getitem__ = compile_only
torch.set_num_threads(1)
for height, width in ((256, 340), (240, 320), (45, 33)):
    frames = torch.zeros((4, height, width), dtype=torch.uint8)
    for mode in ("cpu", "cuda"):
        parameters = TVL1Parameters(mode=mode, nscales=2, warps=1)
        solver = triton_solver.Solver(frames, 4, parameters, is_full=False)
        solver.solve(frames, frames, torch.empty((4, 2, height, width)))  # nothing is active, so one block a warp
        for iterations, median in sorted(set(triton_solver._plan(parameters))):
            solver._block(0, iterations, median)
    for channels, wide, each in ((3, 8, 1), (2, 24, 10)):
        places, shape = np.zeros((5, each), np.int64), (12, channels, height, width)
        for first, crop in enumerate((Crop(0, 0, height, width), Crop(5, 7, height - 9, width - 8, mirror=True))):
            pixels = torch.zeros(first + math.prod(shape), dtype=torch.uint8)[first:].view(shape)
            clips = Clips([Clip(pixels, places, crop, (height - 16, width - 20))] * 2)
            lines = torch.zeros(2, channels)
            prepare_clips(clips, {False: lines, True: lines}, wide, torch.bfloat16)
    for name in compiled:
        sizes.setdefault(name, f"{width}x{height}")

with Path(sys.argv[1]).open("w") as report:
    for name, kernel in compiled.items():
        with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
            file.write(kernel.asm["ptx"])
            file.flush()
            command = [str(PTXAS), "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"]
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stderr
        spilled = sum(int(count) for count in re.findall(r"(\d+) bytes spill", said))
        line = {"triton": triton.__version__, "kernel": name.split()[0], "spilled bytes": spilled, "size": sizes[name]}
        report.write(json.dumps(line | {"barriers": kernel.asm["ptx"].count("bar.sync")}) + "\n")
