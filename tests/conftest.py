"""A workspace of small random artifacts with a split, large enough to train on."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as stres_cli/__main__.py; pytest-xdist's processes share cores

from pipelines.artifacts import new_flow_file, new_frames_file
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.workspace import Workspace


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The marker `cuda`: skipped without a GPU, unless STRES_REQUIRE_CUDA=1 says there must be one."""
    if item.get_closest_marker("cuda") is None or os.environ.get("STRES_REQUIRE_CUDA") == "1":
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")


CLASSES = ("jump", "wave")
FRAMES, HEIGHT, WIDTH = 16, 32, 40


def write_artifacts(workspace: Workspace, class_name: str, video: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    about = {
        "fps": 25.0,
        "source": f"{video}.avi",
        "source_sha256": video,
        "source_frames": FRAMES,
        "short_side": HEIGHT,
    }
    about |= {"width": WIDTH, "height": HEIGHT}
    with new_frames_file(workspace.frames_file(class_name, video)) as frames:
        for _ in range(FRAMES):
            frames.append(cv2.imencode(".jpg", rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))[1])
        frames.finish(about)
    settings = {"method": "farneback", "method_parameters": json.dumps({}), "bound": 20.0, "step": 1}
    with new_flow_file(workspace.flow_file(class_name, video)) as flow:
        flow.append(rng.integers(0, 256, (FRAMES - 1, 2, HEIGHT, WIDTH), dtype=np.uint8))
        flow.finish(about | settings | {"flow_input": "video"})


def write_workspace(root: Path) -> Workspace:
    """Two classes of five videos: three of each train, two test."""
    workspace = Workspace(root)
    ids = []
    for label, class_name in enumerate(CLASSES):
        for number in range(5):
            write_artifacts(workspace, class_name, f"{class_name}{number}", 10 * label + number)
            ids.append(f"{class_name}/{class_name}{number}")
    train = [id_ for id_ in ids if id_[-1] in "012"]
    test = [id_ for id_ in ids if id_[-1] in "34"]
    write_splits(workspace.splits, [Split(1, train, test, list(CLASSES), "test")])
    return workspace


@pytest.fixture(scope="session")
def make_workspace() -> Callable[[Path], Workspace]:
    """For fixtures that outlive a test."""
    return write_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return write_workspace(tmp_path / "work")
