"""Clips of known motion, and ways to break what was made of them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from pipelines import verify
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowFile, new_flow_file
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace

FRAMES, HEIGHT, WIDTH = 14, 48, 64
VELOCITIES = {"drift": (2, 1), "fall": (-1, 2), "rise": (1, -2)}  # pixels a frame, x then y
FLOW = {"method": "farneback", "method_options": {"winsize": "9"}, "bound": 5.0}


def clip(seed: int, velocity: tuple[int, int]) -> np.ndarray:
    """A texture that moves by `velocity` a frame: RGB uint8 [T, H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    x, y = velocity
    return np.stack([np.roll(texture, (t * y, t * x), axis=(0, 1)) for t in range(FRAMES)])


def found(result: verify.Result) -> set[tuple[str, str]]:
    """(subject, kind) of every fault."""
    return {(fault.subject, fault.kind) for fault in result.faults}


# ------------------------------------------------------------------ breaking


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, to be changed in place."""
    with h5py.File(path, "r+") as file:
        yield file


def set_attribute(path: Path, **values: Any) -> None:
    """Changes attributes in place; None removes one."""
    with opened(path) as file:
        for name, value in values.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value


def fields_of(path: Path) -> np.ndarray:
    """uint8 [F, 2, H, W]."""
    with FlowFile(path) as file:
        return file.read(0, len(file))


def rewrite_flow(path: Path, fields: np.ndarray, **attributes: Any) -> None:
    """Stores other fields, with right checksums and hashes, under the attributes that were there."""
    made = {
        name: value
        for name, value in peek(path, FLOW_SCHEMA).items()
        if name not in ("schema", "stres_version", "content_sha256")
    }
    with new_flow_file(path) as writer:
        writer.append(np.ascontiguousarray(fields))
        writer.finish(made | attributes)


def write_lists(workspace: Workspace, train: list[str], test: list[str], group_regex: str | None = None) -> None:
    """Replaces the splits in use by this one."""
    split = Split(1, train, test, sorted(VELOCITIES), "test")
    write_splits(workspace.splits, [split], {"origin": "made", "group_regex": group_regex})
