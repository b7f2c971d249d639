"""`import-frames` on folders as other tools leave them: JPEGs keep their bytes, and flow can be computed from them."""

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines import extract_flow
from pipelines.errors import MissingError, UsageError
from pipelines.importing.frames import Config, run
from pipelines.layouts.finding import find_folders
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.frames_file import FRAMES_SCHEMA, FrameFile
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from tests.helpers.workspaces import write_workspace

COUNT = 4
LAYOUTS = {
    "the authors'": ("walk/a/frame{:06d}.jpg", 1),
    "denseflow": ("walk/a/img_{:05d}.jpg", 0),
    "dense_flow": ("walk/a/image_{:05d}.jpg", 1),
    "EPIC": ("walk/a/frame_{:010d}.jpg", 1),
    "numbers": ("walk/a/{:04d}.jpeg", 1),
    "groups of a class": ("walk/g01/a/img_{:05d}.JPG", 1),
}


def config(workspace: Workspace, folder: Path, **settings: Any) -> Config:
    return Config(workspace.root, folder, **{"workers": 1, **settings})


def stored(workspace: Workspace) -> list[bytes]:
    """The JPEGs of walk/a."""
    with FrameFile(workspace.frames_file("walk", "a")) as file:
        jpeg = file.file["jpeg"][:].tobytes()
        return [jpeg[start:stop] for start, stop in zip(file.offsets[:-1], file.offsets[1:], strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_jpegs_keep_their_bytes(write_pictures, folder, empty, layout):
    pattern, first = LAYOUTS[layout]
    write_pictures(folder / pattern, COUNT, first, 3)
    (folder / "notes.txt").touch()

    result = run(config(empty, folder, classes_at=1))

    assert (result.done, result.failed, result.units, result.ignored) == (1, 0, COUNT, 1)
    assert stored(empty) == [path.read_bytes() for path in sorted(folder.rglob("*.[jJ]*"))]


def test_provenance_is_complete(write_pictures, folder, empty):
    write_pictures(folder / "walk/a/img_{:05d}.jpg", COUNT, 1, 3)

    run(config(empty, folder, fps=30.0))

    made = peek(empty.frames_file("walk", "a"), FRAMES_SCHEMA)
    size = {"width": 40, "height": 32, "short_side": 32, "source_width": 40, "source_height": 32}
    expected = {"source_frames": COUNT, "fps": 30.0, "jpeg_quality": 0, "container_frames": 0, **size}
    assert expected.items() <= made.items()
    assert made["times_from"] == "given"
    with FrameFile(empty.frames_file("walk", "a")) as file:
        assert file.times == pytest.approx(np.arange(COUNT) / 30)
    assert made["source"] == f"{folder}/walk/a/img_*.jpg"
    assert made["source_bytes"] == sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    assert {"source_sha256", "content_sha256", "library_versions", "stres_version"} <= made.keys()


def test_a_rate_that_nobody_gave_is_marked_as_assumed(write_pictures, folder, empty):
    write_pictures(folder / "walk/a/img_{:05d}.jpg", COUNT, 1, 3)

    run(config(empty, folder))

    made = peek(empty.frames_file("walk", "a"), FRAMES_SCHEMA)
    assert (made["fps"], made["times_from"]) == (25.0, "assumed")


def test_a_short_side_that_is_given_is_made(write_pictures, folder, empty):
    pictures = write_pictures(folder / "walk/a/img_{:05d}.jpg", COUNT, 1, 3)
    write_pictures(folder / "walk/small/img_{:05d}.jpg", COUNT, 1, 3, side=16)

    assert run(config(empty, folder, short_side=16)).done == 2

    made = peek(empty.frames_file("walk", "a"), FRAMES_SCHEMA)
    assert (made["width"], made["height"], made["source_width"], made["jpeg_quality"]) == (20, 16, 40, 95)
    assert peek(empty.frames_file("walk", "small"), FRAMES_SCHEMA)["jpeg_quality"] == 0  # fits, so its bytes stay
    with FrameFile(empty.frames_file("walk", "a")) as file:
        frame = file.read_one(0)
    shrunk = cv2.resize(cv2.cvtColor(pictures[0], cv2.COLOR_BGR2RGB), (20, 16), interpolation=cv2.INTER_AREA)
    assert np.abs(frame.astype(int) - shrunk).mean() < 4
    assert run(config(empty, folder, short_side=16)).skipped == 2
    with pytest.raises(UsageError, match="its size is 20x16, not the pictures' own"):
        run(config(empty, folder))


def test_png_is_coded_as_jpeg(write_pictures, folder, empty):
    pictures = write_pictures(folder / "walk/a/img_{:05d}.png", COUNT, 1, 3)

    run(config(empty, folder))

    assert peek(empty.frames_file("walk", "a"), FRAMES_SCHEMA)["jpeg_quality"] == 95
    with FrameFile(empty.frames_file("walk", "a")) as file:
        assert np.abs(file.read_one(2).astype(int) - cv2.cvtColor(pictures[2], cv2.COLOR_BGR2RGB)).mean() < 4


def test_flow_is_computed_from_imported_frames(write_pictures, folder, empty):
    write_pictures(folder / "walk/a/img_{:05d}.jpg", COUNT, 1, 3)
    run(config(empty, folder))

    settings: dict[str, Any] = {"method": "farneback", "bound": 4.0, "workers": 1}
    assert extract_flow.run(extract_flow.Config(empty.root, **settings)).units == COUNT - 1

    made = peek(empty.flow_file("walk", "a"), FLOW_SCHEMA)
    frames = peek(empty.frames_file("walk", "a"), FRAMES_SCHEMA)
    assert made["flow_input"] == "jpeg"
    for name in ("source", "source_sha256", "source_frames", "fps", "width"):
        assert made[name] == frames[name]


def test_flow_beside_the_frames_is_not_taken_for_frames(write_pictures, folder, empty):
    write_pictures(folder / "walk/a/img_{:05d}.jpg", COUNT, 1, 3)
    for name in ("walk/a/flow_x_{:05d}.jpg", "walk/a/flow_y_{:05d}.jpg", "u/b/frame{:06d}.jpg", "v/b/frame{:06d}.jpg"):
        write_pictures(folder / name, COUNT - 1)

    result = run(config(empty, folder))

    assert (result.done, result.units, result.ignored) == (1, COUNT, 0)


def test_frames_that_do_not_fit_stored_flow_are_refused(write_pictures, folder, tmp_path):
    workspace = write_workspace(tmp_path / "work")  # flow of 16 frames
    workspace.frames_file("jump", "jump0").unlink()
    write_pictures(folder / "jump/jump0/img_{:05d}.jpg", 15, 1, 3)

    assert run(config(workspace, folder)).failed == 1
    (row,) = read_failures(workspace)
    assert row.reason == f"has 15 frames of 40x32, but {workspace.flow_file('jump', 'jump0')} has 16 frames of 40x32"


def damage(path: Path) -> None:
    """Leaves header and end, and nothing that decodes between them."""
    data = path.read_bytes()
    at = data.index(b"\xff\xda")
    path.write_bytes(data[:at] + b"\xff\xd9")


FAULTS = {
    "cannot be decoded": (lambda path: damage(path), "frame3.jpg cannot be decoded"),
    "of another size": (lambda path: cv2.imwrite(str(path), np.zeros((32, 44, 3))), "has 44x32 pixels"),
    "absent": (lambda path: path.unlink(), "picture 3 of 1..4 is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "frame3.jpg is not a file"),
}


@pytest.mark.parametrize(("spoil", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_picture_fails_its_video(write_pictures, folder, empty, spoil, expected):
    write_pictures(folder / "walk/a/frame{}.jpg", COUNT, 1, 3)
    write_pictures(folder / "walk/good/frame{}.jpg", COUNT, 1, 3)
    spoil(folder / "walk/a/frame3.jpg")

    result = run(config(empty, folder))

    assert (result.done, result.failed) == (1, 1)
    (row,) = read_failures(empty)
    assert re.search(expected, row.reason), row.reason


def test_folders_named_as_splits_are_no_classes_and_those_passed_over_are_told(write_pictures, folder, empty, tmp_path):
    for place in ("train/walk/a", "train/run/b", "val/walk/c"):
        write_pictures(folder / place / "frame{}.jpg", COUNT, 1, 3)
    (folder / "notes.txt").touch()
    (tmp_path / "list.txt").write_text("a jump\nb run\nc jump\n")

    found = run(config(empty, folder, dry_run=True)).found
    by_list = run(config(empty, folder, dry_run=True, class_list=tmp_path / "list.txt")).found
    run(config(empty, folder))

    assert found is not None
    assert found.sentences() == [
        "train/, val/ with class folders: 2 classes, 3 videos: run 1, walk 2",
        "splits: train 2, validation 1 video",
        "skipped: 1 not named as pictures",
    ]
    assert by_list is not None
    assert (by_list.classes, by_list.splits) == ({"jump": 2, "run": 1}, {"train": 2, "validation": 1})
    assert peek(empty.frames_file("walk", "c"), FRAMES_SCHEMA)["source_split"] == "validation"
    with pytest.raises(UsageError, match=r"--list .* says the classes, and so does --classes-at 2"):
        run(config(empty, folder, class_list=tmp_path / "list.txt", classes_at=2))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (("data/walk/a", "data/run/b"), "holds one folder, data, .* give .*/data if those are the classes"),
        (("x/data/walk/a", "x/data/run/b"), "--classes-at 2 if those are the classes"),
        (("all/v_Walk_g01_c01", "all/v_Run_g01_c01"), "names say the classes Run, Walk: give .*/all, or"),
        (("train/a", "test/b"), "no class folders and no labels: name the classes by --list"),
        (("walk/train/a", "walk/test/b", "run/c"), "does not say which folders are the classes"),
    ],
)
def test_folders_one_level_too_high_are_refused(write_pictures, folder, places, message):
    for place in places:
        write_pictures(folder / place / "frame{}.jpg", 1, 1, 3)
        if place.startswith("x/"):
            shutil.copytree(folder / place, folder / place.replace("x/", "y/"))
    with pytest.raises(UsageError, match=message):
        find_folders(folder, "flow" if places[0].startswith("x/") else "frames", None)


def test_two_folders_of_one_name_are_refused(write_pictures, folder, empty):
    write_pictures(folder / "walk/g01/a/frame{}.jpg", COUNT, 1, 3)
    write_pictures(folder / "walk/g02/a/frame{}.jpg", COUNT, 1, 3)

    assert run(config(empty, folder, classes_at=1)).failed == 1
    assert "g02/a would both be stored as walk/a" in read_failures(empty)[0].reason


def test_a_folder_without_frames_or_none_at_all_is_named(folder, empty):
    with pytest.raises(MissingError, match=f"there is no folder {folder}"):
        run(config(empty, folder))
    folder.mkdir()
    with pytest.raises(MissingError, match=f"no frames in {folder} "):
        run(config(empty, folder))
