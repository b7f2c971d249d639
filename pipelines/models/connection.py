"""How one stream enters the other, at block b of every stage (paper.md 2.1).

    appearance:   block a --> x_a --> relu --> f(x_a) ------------ shortcut of block b
                               |
                              (+) ------------------------------> residual branch F of block b
                               |
    motion:       block a --> x_m --> relu --> f(x_m)

Additive: f(x_a) + F(x_a + f(x_m)); multiplicative (CVPR 2017): f(x_a) + F(x_a * f(x_m)).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pipelines.models.blocks import BlockOutput

Fusion = Literal["add", "multiply", "none"]
Direction = Literal["motion-to-appearance", "appearance-to-motion", "both", "none"]


@dataclass(frozen=True)
class Connection:
    """The rule that gives block b's residual inputs from the two block a. It has no weights."""

    fusion: Fusion = "add"
    direction: Direction = "motion-to-appearance"

    def into_appearance(self, appearance: BlockOutput, motion: BlockOutput) -> Tensor | None:
        """What F of the appearance stream's block b takes instead of f(x_a); None where nothing enters it."""
        return self._combine(appearance, motion) if self.direction in ("motion-to-appearance", "both") else None

    def into_motion(self, motion: BlockOutput, appearance: BlockOutput) -> Tensor | None:
        """What F of the motion stream's block b takes instead of f(x_m); None where nothing enters it."""
        return self._combine(motion, appearance) if self.direction in ("appearance-to-motion", "both") else None

    def _combine(self, own: BlockOutput, other: BlockOutput) -> Tensor | None:
        if self.fusion == "add":
            return own.before_relu + other.after_relu
        if self.fusion == "multiply":
            return own.before_relu * other.after_relu
        return None
