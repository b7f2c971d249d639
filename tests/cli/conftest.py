"""The real commands: in this process for speed, or as `python -m stres_cli` where processes matter."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.video.synthetic import write_clips
from stres_cli.app import app

Stres = Callable[..., Any]
CLIPS_A_CLASS = 4


@pytest.fixture
def stres(monkeypatch: pytest.MonkeyPatch) -> Stres:
    """`stres("train", "--split", 1)`: the result with `exit_code`, `stdout` and `stderr`, both no terminals."""
    for name in ("STRES_WORKSPACE", "STRES_DEBUG", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, **env: str) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="stres", env=env)

    return call


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with the synthetic clips, which tests only read: nine classes of four."""
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, CLIPS_A_CLASS, seed=0)
    return folder


@pytest.fixture
def two_classes(clips: Path, tmp_path: Path) -> Path:
    """A folder of one's own with the clips of two classes."""
    for name in ("red_rising", "blue_falling"):
        shutil.copytree(clips / name, tmp_path / "videos" / name)
    return tmp_path / "videos"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with `clips/` and the workspace `work/` that 0.1.0 made of them (`test_cli_old_workspace`)."""
    with tarfile.open(Path(__file__).parents[1] / "data/workspace-0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path
