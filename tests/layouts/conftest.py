"""Folders of pictures as other tools leave them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.storage.workspace import Workspace

HEIGHT, WIDTH = 32, 40
WritePictures = Callable[..., list[np.ndarray]]


@pytest.fixture
def write_pictures() -> WritePictures:
    """`write_pictures("folder/flow_x_{:05d}.jpg", count, first=1, channels=1)` writes smooth pictures and returns them
    as they decode: uint8 [H, W] or BGR [H, W, 3]."""

    def write(
        pattern: Path | str, count: int, first: int = 1, channels: int = 1, side: int = HEIGHT
    ) -> list[np.ndarray]:
        rng = np.random.default_rng(len(str(pattern)))
        pictures = []
        for number in range(first, first + count):
            path = Path(str(pattern).format(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = rng.integers(60, 200, (4, 5, channels), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(coarse, (side * WIDTH // HEIGHT, side), interpolation=cv2.INTER_LINEAR))
            pictures.append(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        return pictures

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


@pytest.fixture
def empty(tmp_path: Path) -> Workspace:
    """A workspace without anything in it."""
    return Workspace(tmp_path / "imported")
