"""A process that dies in a dry run is told as in the run itself: which video, which signal, exit code 1."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.workspace import Workspace
from stres_cli.app import app
from tests.helpers import worker_functions

WriteClip = Callable[..., np.ndarray]
NAMES = ("a", "deadly", "z")
PROBES = {
    "extract-frames": "pipelines.jobs.frames.probe",
    "extract-flow": "pipelines.optical_flow.probing.probe",
    "import-frames": "pipelines.layouts.frames.probe",
    "import-flow": "pipelines.layouts.flow.probe",
    "export-flow": "pipelines.layouts.writing.probe",
}


def stres(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="stres")


@pytest.fixture
def arguments(tmp_path: Path, write_clip: WriteClip) -> dict[str, list[object]]:
    """Of each command that has a dry run with probes: what finds three videos, of which one is called `deadly`."""
    workspace = Workspace(tmp_path / "exported")
    for name in NAMES:
        write_clip(tmp_path / f"videos/c/{name}.mkv")
        for picture in ("img_00001.jpg", "flow_x_00001.jpg", "flow_y_00001.jpg"):
            (tmp_path / f"pictures/c/{name}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"pictures/c/{name}/{picture}").touch()
        with new_flow_file(workspace.flow_file("c", name)) as file:
            file.append(np.zeros((5, 2, 8, 8), np.uint8))
            about = {"width": 8, "height": 8, "source_frames": 6, "fps": 25.0, "source": name, "source_sha256": name}
            settings = {"method": "dis", "method_parameters": "{}", "bound": 20.0, "step": 1, "flow_input": "video"}
            file.finish({**about, **settings, "short_side": 8})
    return {
        "extract-frames": [tmp_path / "videos"],
        "extract-flow": [tmp_path / "videos", "--method", "dis"],
        "import-frames": [tmp_path / "pictures"],
        "import-flow": [tmp_path / "pictures", "--method", "dis", "--bound", "20"],
        "export-flow": [tmp_path / "output", "-w", workspace.root],
    }


@pytest.mark.parametrize("command", PROBES)
def test_a_process_that_dies_in_a_dry_run_is_named_with_its_video_and_the_exit_code_is_1(
    arguments: dict[str, list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(PROBES[command], worker_functions.probe_or_die)
    options = [*arguments[command], "--workers", 1, "--dry-run"]
    if "-w" not in options:
        options += ["-w", tmp_path / "new"]

    shown = stres(command, *options, "--json")

    assert shown.exit_code == 1, shown.output
    document = json.loads(shown.stdout)
    (failure,) = document["estimate"]["failures"]
    assert (document["failed"], failure["stage"], failure["video"]) == (1, command, "deadly")
    assert failure["reason"] == "the worker process died (killed by signal 6) on this video"
    assert document["estimate"]["measured_videos"] == 2
    assert "3 videos to do" in shown.stderr
    assert "1 of the videos tried fails:" in shown.stderr
    assert "  c/deadly: the worker process died (killed by signal 6) on this video" in shown.stderr
    assert not (tmp_path / "new").exists()
