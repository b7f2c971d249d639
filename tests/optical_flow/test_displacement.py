"""How much of the flow is clipped, told and kept, and the settings that a dry run proposes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipelines import extract_flow, extract_frames, show_flow
from pipelines.errors import MissingError
from pipelines.optical_flow.displacement import BOUNDS, Displacement, DisplacementMeter, clipping, count_lengths
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from stres_cli.app import app

WriteClip = Callable[..., np.ndarray]


def config(root: Path, videos: Path, **settings: object) -> extract_flow.Config:
    options = {"method": "farneback", "workers": 1, **settings}
    return extract_flow.Config(root, str(videos), **options)  # type: ignore[arg-type]


def test_what_a_bound_clips_is_counted_by_the_longer_component_before_it_is_clipped() -> None:
    meter = DisplacementMeter()
    flow = torch.zeros(2, 2, 40, 40)
    flow[0, 1] = -7.0  # half of the vectors
    flow[1, 0, :, :8] = 5.0  # a tenth: at the bound, not beyond it
    for field in flow.split(1):
        meter.add(count_lengths(field, 5.0))
    found = meter.result()
    assert found is not None
    assert (found.clipped_share, found.largest, found.suitable_bound) == (0.5, 7.0, 8.0)
    assert found.beyond[BOUNDS.index(4)] == pytest.approx(0.6)
    assert Displacement.of(found.attributes()) == found


def test_the_videos_of_a_set_count_by_their_vectors() -> None:
    def made(frames: int, share: float) -> dict[str, object]:
        beyond = tuple(share if bound < 20 else 0.0 for bound in BOUNDS)
        return {"source_frames": frames, "width": 4, "height": 4} | Displacement(share, 18.0, beyond).attributes()

    found = clipping([made(10, 0.1), made(90, 0.0), {}], 5.0)
    assert found is not None
    assert found.clipped_share == pytest.approx(0.01)
    assert (found.largest, found.suitable_bound) == (18.0, 20.0)
    assert clipping([{}], 5.0) is None  # of stres 0.1, or imported


def test_extraction_ends_with_the_share_that_was_clipped_and_a_bound_that_suits(
    tmp_path: Path, write_clip: WriteClip
) -> None:
    write_clip(tmp_path / "videos/c/a.mkv", frames=8)
    arguments = ["--method", "farneback", "--bound", "0.5", "--workers", "1", "-w", str(tmp_path / "work")]
    shown = CliRunner().invoke(app, ["extract-flow", str(tmp_path / "videos"), *arguments, "--json"])
    found = json.loads(shown.stdout)["clipping"]
    assert found["bound"] == 0.5
    assert found["clipped_share"] > 0.1  # the clip moves by a pixel a frame
    assert found["suitable_bound"] > 0.5
    assert f"--bound {found['suitable_bound']:g} would clip at most 0.1 %" in shown.stderr
    made = peek(tmp_path / "work/flow/c/a.h5", FLOW_SCHEMA)
    assert made["clipped_share"] == found["clipped_share"]
    assert len(made["displacement_beyond"]) == len(BOUNDS)


def test_a_dry_run_proposes_settings_and_names_the_videos_that_do_not_exist(
    tmp_path: Path, write_clip: WriteClip
) -> None:
    write_clip(tmp_path / "a.mkv", frames=8)
    write_clip(tmp_path / "b.mkv", frames=8)
    (tmp_path / "list.txt").write_text("a.mkv c\nb.mkv c\ngone.mkv c\n")
    result = extract_flow.run(config(tmp_path / "work", tmp_path / "list.txt", method="tvl1-opencv", dry_run=True))
    assert result.estimate is not None
    assert (result.failed, result.estimate.videos) == (1, 2)
    assert result.failures[0].video == "gone"
    assert "list.txt, line 3 gives 'gone.mkv', relative to " in result.failures[0].reason
    proposal = result.proposal
    assert proposal is not None
    assert (proposal.videos, proposal.method, proposal.short_side) == (2, "tvl1-opencv", 48)
    assert proposal.bound in BOUNDS
    assert proposal.hours.keys() == {"tvl1-opencv", "farneback"}
    assert all(hours > 0 for hours in proposal.hours.values())


def test_a_dry_run_of_videos_that_do_not_exist_says_so(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("nowhere/1.avi c\nnowhere/2.avi c\n")
    with pytest.raises(
        MissingError, match=r"none of the 2 videos to do exists, for example .*/nowhere/1.avi.*--relative-to"
    ):
        extract_frames.run(extract_frames.Config(tmp_path / "work", str(tmp_path / "list.txt"), dry_run=True))


def test_a_dry_run_that_could_measure_nothing_promises_no_time(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.mp4").write_bytes(bytes(5000))
    shown = CliRunner().invoke(app, ["extract-frames", str(tmp_path / "bad"), "--dry-run", "-w", str(tmp_path / "w")])
    assert shown.exit_code == 1
    assert "none of which could be measured" in shown.output
    assert "unlabelled/x: not a video" in shown.output


def test_show_flow_takes_the_settings_of_the_workspaces_flow_and_says_so(tmp_path: Path, write_clip: WriteClip) -> None:
    workspace = Workspace(tmp_path / "work")
    write_clip(tmp_path / "videos/c/a.mkv")
    options = {"method_options": {"winsize": "9"}, "bound": 3.0, "step": 2, "short_side": 32}
    extract_flow.run(config(workspace.root, tmp_path / "videos", **options))
    told: list[str] = []

    def show(**settings: object) -> show_flow.Result:
        video = str(tmp_path / "videos/c/a.mkv")
        return show_flow.run(
            show_flow.Config(workspace.root, video, **settings),  # type: ignore[arg-type]
            lambda progress: told.append(progress.message),
        )

    shown = show()
    assert (shown.method.split()[0], shown.bound, shown.step) == ("farneback", 3.0, 2)
    assert any("bound 3.0, step 2, short side 32" in text for text in told)
    other = show(method="dis", bound=8.0)
    assert (other.method, other.bound, other.step) == ("dis", 8.0, 2)
