"""Imported pictures are matched with what is stored by their folder and content, not by class and name alone."""

from pathlib import Path

import cv2
import numpy as np

from pipelines import extract_flow, extract_frames
from pipelines.importing import flow as import_flow
from pipelines.importing import frames as import_frames
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace


def frames(workspace: Workspace, folder: Path):
    return import_frames.run(import_frames.Config(workspace.root, folder, workers=1))


def flow(workspace: Workspace, folder: Path):
    return import_flow.run(import_flow.Config(workspace.root, folder, method="other", bound=20.0, workers=1))


def write(pattern: str, values: list[int]) -> None:
    """Uniform PNGs of equal bytes."""
    for number, value in enumerate(values, start=1):
        path = Path(pattern.format(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((32, 40), value, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 0])


def test_another_folder_of_equal_names_is_refused_a_moved_one_is_done_and_a_changed_one_made_again(tmp_path):
    workspace = Workspace(tmp_path / "work")
    first, second = tmp_path / "a", tmp_path / "b"
    write(f"{first}/walk/c/img_{{:05d}}.png", [10, 20, 30])
    write(f"{second}/walk/c/img_{{:05d}}.png", [10, 20, 31])
    frames(workspace, first)
    result = frames(workspace, second)
    assert (result.done, result.failed) == (0, 1)
    assert result.failures[0].reason.startswith(
        f"two sources of one name: {first}/walk/c/img_*.png and {second}/walk/c"
    )
    assert peek(workspace.frames_file("walk", "c"), FRAMES_SCHEMA)["source"] == f"{first}/walk/c/img_*.png"

    moved = first.rename(tmp_path / "moved")
    assert (result := frames(workspace, moved)).skipped == 1
    assert result.failed == 0

    write(f"{first}/walk/c/img_{{:05d}}.png", [10, 20, 32])
    assert frames(workspace, first).changed == ["walk/c"]


def test_frames_and_flow_of_a_video_are_not_stored_beside_imported_ones_of_another_size_nor_in_their_place(
    tmp_path, write_clip
):
    write_clip(tmp_path / "videos/walk/c.mkv", 3)
    write(f"{tmp_path}/u/walk/c/img_{{:05d}}.png", [10, 20, 30])
    write(f"{tmp_path}/v/walk/c/x_{{:05d}}.png", [10, 20])
    write(f"{tmp_path}/v/walk/c/y_{{:05d}}.png", [10, 20])
    frames(Workspace(tmp_path / "frames"), tmp_path / "u")
    flow(Workspace(tmp_path / "flow"), tmp_path / "v")
    instead = {extract_flow: "no VIDEOS, for the flow of those frames", extract_frames: "another --workspace"}
    for stage, name in ((extract_flow, "frames"), (extract_frames, "flow")):
        settings = {"method": "farneback"} if stage is extract_flow else {}
        result = stage.run(stage.Config(tmp_path / name, str(tmp_path / "videos"), workers=1, **settings))
        assert (result.done, result.failed) == (0, 1)
        advice = f"was imported at 40x32: give the --short-side that makes both equal, or {instead[stage]}, or delete"
        assert advice in result.failures[0].reason
    listed = tmp_path / "videos/list.csv"
    listed.write_text("path,start,end,label\nwalk/c.mkv,0,0.08,walk\nwalk/c.mkv,0.04,0.12,walk\n")
    write(f"{tmp_path}/u/walk/c_0.000-0.080/img_{{:05d}}.png", [10, 20])
    write(f"{tmp_path}/v/walk/c_0.000-0.080/x_{{:05d}}.png", [10])
    write(f"{tmp_path}/v/walk/c_0.000-0.080/y_{{:05d}}.png", [10])
    frames(Workspace(tmp_path / "frames"), tmp_path / "u")
    flow(Workspace(tmp_path / "flow"), tmp_path / "v")
    for stage, name in ((extract_flow, "frames"), (extract_frames, "flow")):
        settings = {"method": "farneback"} if stage is extract_flow else {}
        result = stage.run(stage.Config(tmp_path / name, str(listed), workers=1, **settings))
        assert (result.done, result.failed) == (1, 2)  # with the row of the whole video
        assert any("c_0.000-0.080" in row.reason and "was imported at 40x32" in row.reason for row in result.failures)
    result = extract_frames.run(extract_frames.Config(tmp_path / "frames", str(tmp_path / "videos"), workers=1))
    assert result.failures[0].reason.startswith(f"two sources of one name: {tmp_path}/u/walk/c/img_*.png and")


def test_flow_is_compared_in_the_order_in_which_it_was_hashed(tmp_path):
    workspace = Workspace(tmp_path / "work")
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, last in ((first, 30), (second, 31)):
        write(f"{folder}/u/c/frame{{:06d}}.png", [10, 20, 30])
        write(f"{folder}/v/c/frame{{:06d}}.png", [40, 50, last])
    flow(workspace, first)
    assert "two sources of one name" in flow(workspace, second).failures[0].reason
    moved = first.rename(tmp_path / "moved")
    assert flow(workspace, moved).skipped == 1
