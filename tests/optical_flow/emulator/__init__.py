"""level.cu on the CPU: compiled by g++ with an emulator of a GPU's lanes, blocks and barriers."""

import ctypes
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.optical_flow.tvl1.cuda.compiler import SOURCE, network_macros
from pipelines.optical_flow.tvl1.cuda.shapes import Limits, Shape, Variant
from pipelines.optical_flow.tvl1.cuda.solver import LevelArguments

HERE = Path(__file__).parent


@dataclass
class EmulatedLauncher:
    """What the GPU's driver is to the engine.

    Several slots have several pairs on the chip at once, whatever the size of `limits`.
    """

    library: ctypes.CDLL
    limits: Limits
    seed: int = 0
    """Of the schedule; 0: all in order."""
    absent: int = -1
    """A block that never runs."""
    launched: list[Shape] = field(default_factory=list)

    def launch(self, shape: Shape, arguments: LevelArguments, slots: int) -> None:
        self.launched.append(shape)
        blocks = slots * shape.blocks
        ended = self.library.launch_level(
            ctypes.byref(arguments), blocks, shape.shared_bytes, ctypes.c_uint(self.seed), self.absent
        )
        assert ended, "the blocks wait for each other"


def build(variant: Variant, folder: Path) -> ctypes.CDLL:
    """The kernel for the CPU. Takes some seconds."""
    macros, library = folder / "networks.h", folder / f"level-{variant}.so"
    macros.write_text(network_macros())
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-include", str(macros)]
    command += [f"-DROWS={variant.rows}", f"-DMOST_STRIPS={variant.most_strips}", f"-I{SOURCE.parent}", f"-I{HERE}"]
    subprocess.run([*command, str(HERE / "level.cpp"), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.arguments_size.restype = ctypes.c_longlong
    assert loaded.arguments_size() == ctypes.sizeof(LevelArguments)
    return loaded
