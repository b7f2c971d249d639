"""How a pyramid level is divided among a GPU's blocks and warps: by the picture's size and the GPU alone.

A sum of changes has other last bits in another shape, and may end a warping one iteration earlier or later. So the
shape depends on nothing that differs from call to call: neither on how many pairs there are, nor on a timing.
"""

import functools
import itertools
import math
from dataclasses import dataclass

OWN = 31  # columns of a strip, as in level.cu
AROUND = 2
_LANES = 32
_FLOAT = 4  # bytes
_HEADER = 304  # bytes of shared memory before what `Shape.offsets` names


@dataclass(frozen=True)
class Variant:
    """What level.cu is compiled for."""

    rows: int
    """Of a strip, in each thread's registers."""
    most_strips: int
    """Warps of a block; the fewer, the more registers has each thread."""

    def __str__(self) -> str:
        return f"r{self.rows}w{self.most_strips}"


# A quarter of a multiprocessor has 16,384 registers for the threads of its warps: with 8 warps 255 for each, with 12
# 168, with 16 128, with 20 96, with 24 80. As many rows as fit (tests/optical_flow/test_tvl1_cuda_compiled.py).
VARIANTS = (Variant(24, 8), Variant(16, 12), Variant(9, 16), Variant(6, 20), Variant(4, 24))


@dataclass(frozen=True)
class Limits:
    """What a GPU has room for."""

    multiprocessors: int
    shared_bytes: int
    """That a block may use."""


@dataclass(frozen=True)
class Shape:
    """One level's."""

    variant: Variant
    across: int
    """Strips of a block, side by side."""
    down: int
    blocks: int
    """Of a pair."""

    def __str__(self) -> str:
        return f"{self.across}x{self.down}x{self.variant.rows}/{self.blocks}"

    @property
    def threads(self) -> int:
        return _LANES * self.across * self.down

    @property
    def offsets(self) -> dict[str, int]:
        """Where a block's shared memory holds what, in bytes, by the names in `Arguments` of level.cu."""
        strips, rows = self.across * self.down, self.variant.rows
        wide, tall = self.across * OWN, self.down * rows
        plane = (tall + 2 * AROUND) * (wide + 2 * AROUND) * _FLOAT
        parts = {
            "data_at": strips * rows * _LANES * 4 * _FLOAT,
            **dict.fromkeys(("first_at", "last_at"), strips * rows * 2 * _FLOAT),
            **dict.fromkeys(("top_at", "bottom_at"), self.down * wide * 2 * _FLOAT),
            "plane_at": 2 * plane,
        }
        begins = itertools.accumulate(parts.values(), initial=_HEADER)
        return {**dict(zip(parts, begins, strict=False)), "plane_size": plane}

    @property
    def shared_bytes(self) -> int:
        offsets = self.offsets
        return offsets["plane_at"] + 2 * offsets["plane_size"]

    def slots(self, limits: Limits) -> int:
        """How many pairs there is room for at once, a block on each multiprocessor."""
        return limits.multiprocessors // self.blocks

    def cycles(self) -> float:
        """Of an iteration, by a count of the compiled instructions: not yet measured. A quarter of a multiprocessor
        issues one instruction of its warps a cycle at best; a message to a neighbour takes the rest."""
        warps = math.ceil(self.across * self.down / 4)
        return warps * (88 * self.variant.rows + 150) / 0.78 + 350


@functools.lru_cache(maxsize=1024)
def shape_for(height: int, width: int, limits: Limits) -> Shape | None:
    """The one expected to be fastest for many pairs of a level of this size; None where none fits the GPU."""
    fitting = [shape for shape in shapes_of(height, width) if fits(shape, limits)]
    return max(fitting, key=lambda shape: shape.slots(limits) / shape.cycles(), default=None)


def shapes_of(height: int, width: int) -> list[Shape]:
    """All that cover the level."""
    across = math.ceil(width / OWN)
    return [
        Shape(variant, across, down, math.ceil(height / (down * variant.rows)))
        for variant in VARIANTS
        for down in range(1, variant.most_strips // across + 1)
        if (down - 1) * variant.rows < height
    ]


def fits(shape: Shape, limits: Limits) -> bool:
    return shape.blocks <= limits.multiprocessors and shape.shared_bytes <= limits.shared_bytes
