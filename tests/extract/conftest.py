"""Clips made at run time: losslessly coded moving textures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.video.synthetic import write_video

WriteClip = Callable[..., np.ndarray]


@pytest.fixture
def write_clip() -> WriteClip:
    """`write_clip(path, frames=6, height=48, width=64)` writes a clip and returns its frames [T, H, W, 3]; with
    `times=`, those seconds are when they are shown."""

    def write(
        path: Path, frames: int = 6, height: int = 48, width: int = 64, times: Sequence[float] | None = None
    ) -> np.ndarray:
        noise = np.random.default_rng(len(path.name)).integers(
            0, 256, (height // 4, (width + frames) // 4 + 1, 3), dtype=np.uint8
        )
        texture = noise.repeat(4, 0).repeat(4, 1)
        clip = np.stack([texture[:, t : t + width] for t in range(frames)])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip, codec="ffv1", pixels="bgr0", times=times)
        return clip

    return write
