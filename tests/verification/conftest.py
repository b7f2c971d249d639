"""A healthy workspace made by the real stages, to copy and break; and `verify` in this process, for speed."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import extract_flow, extract_frames, verify
from pipelines.runtime import worker_pool
from pipelines.storage.workspace import Workspace
from pipelines.video.synthetic import write_video
from tests.verification.planting import FLOW, VELOCITIES, clip, write_lists

Verify = Callable[..., verify.Result]


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of three clips. Only to be read."""
    folder = tmp_path_factory.mktemp("verified") / "clips"
    for label, (class_name, velocity) in enumerate(VELOCITIES.items()):
        for number in range(3):
            path = folder / class_name / f"v_{class_name}_g{number:02}_c01.mkv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, clip(10 * label + number, velocity), codec="ffv1", pixels="bgr0")
    return folder


@pytest.fixture(scope="session")
def healthy(videos: Path) -> Workspace:
    """Only to be read."""
    workspace = Workspace(videos.parent / "work")
    extract_frames.run(extract_frames.Config(workspace.root, str(videos), workers=2))
    extract_flow.run(extract_flow.Config(workspace.root, str(videos), workers=2, **FLOW))
    ids = sorted(f"{path.parent.name}/{path.stem}" for path in workspace.frames.glob("*/*.h5"))
    train, test = ([id_ for id_ in ids if ("g02" in id_) is tests] for tests in (False, True))
    write_lists(workspace, train, test)
    return workspace


@pytest.fixture
def workspace(healthy: Workspace, tmp_path: Path) -> Workspace:
    """A healthy workspace of one's own."""
    shutil.copytree(healthy.root, tmp_path / "work")
    return Workspace(tmp_path / "work")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Verify:
    """`verified(workspace, depth="full")`: the stage's result, computed in this process."""

    def in_this_process(function: Any, tasks: Any, workers: int, **limits: Any) -> Iterator[tuple[Any, Any]]:
        yield from ((task, function(task, lambda units: None)) for task in tasks)

    monkeypatch.setattr(worker_pool, "run_tasks", in_this_process)
    return lambda workspace, **settings: verify.run(verify.Config(workspace.root, **settings))
