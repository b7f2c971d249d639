"""`import-flow` on folders as other tools leave them: what is stored, what is refused, and that one can train on it."""

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines import train
from pipelines.errors import MissingError, UsageError
from pipelines.importing import frames as import_frames
from pipelines.importing.flow import Config, run
from pipelines.optical_flow.methods import make_method
from pipelines.runtime.progress import Progress
from pipelines.storage.atomic import is_locked
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowFile
from pipelines.storage.hdf5 import peek
from pipelines.storage.quantise import NO_MOTION, dequantise, quantise
from pipelines.storage.workspace import Workspace

REAL = Path(__file__).parents[2].parent / "shared/data/jpeg-flow-layout"
LISTS = Path(__file__).parents[2].parent / "shared/data/splits"
FIELDS = 5

# Pattern of x and of y below the folder, and the first number. CLASS and VIDEO are what the artifact is called by.
LAYOUTS = {
    "the authors' gpu_flow": ("u/CLASS/VIDEO/frame{:06d}.jpg", "v/CLASS/VIDEO/frame{:06d}.jpg", 1),
    "denseflow": ("CLASS/VIDEO/flow_x_{:05d}.jpg", "CLASS/VIDEO/flow_y_{:05d}.jpg", 0),
    "dense_flow": ("CLASS/VIDEO/flow_x_{:05d}.jpg", "CLASS/VIDEO/flow_y_{:05d}.jpg", 1),
    "mmaction2": ("CLASS/VIDEO/x_{:05d}.jpg", "CLASS/VIDEO/y_{:05d}.jpg", 1),
    "a folder a component": ("CLASS/VIDEO/u/frame_{:010d}.jpg", "CLASS/VIDEO/v/frame_{:010d}.jpg", 1),
    "a folder a component, its name in the files": (
        "CLASS/VIDEO/x/flow_x_{:04d}.jpg",
        "CLASS/VIDEO/y/flow_y_{:04d}.jpg",
        1,
    ),
    "PNG": ("CLASS/VIDEO/flow_x_{:05d}.png", "CLASS/VIDEO/flow_y_{:05d}.png", 0),
}


def config(workspace: Workspace, folder: Path, **settings: Any) -> Config:
    given = {"method": "brox", "bound": 15.0, "workers": 1} | settings
    return Config(workspace.root, folder, **given)


def write_flow(
    write_pictures: Any, folder: Path, layout: str = "denseflow", count: int = FIELDS, name: str = "walk/a"
) -> Any:
    """Writes one video; returns its fields [F, 2, H, W]."""
    class_name, video = name.split("/")
    *patterns, first = LAYOUTS[layout]
    planes = [
        write_pictures(folder / pattern.replace("CLASS", class_name).replace("VIDEO", video), count, first)
        for pattern in patterns
    ]
    return np.stack(planes, axis=1)


def reason(workspace: Workspace) -> str:
    (row,) = read_failures(workspace)
    return row.reason


# ------------------------------------------------------------------ what is stored


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_grey_values_are_stored_as_they_are(write_pictures, folder, empty, layout):
    fields = write_flow(write_pictures, folder, layout)

    result = run(config(empty, folder))

    assert (result.done, result.failed, result.units, result.ignored) == (1, 0, FIELDS, 0)
    with FlowFile(empty.flow_file("walk", "a")) as file:
        np.testing.assert_array_equal(file.read(0, FIELDS), fields)


def test_what_the_user_says_is_stored_beside_it(write_pictures, folder, empty):
    write_flow(write_pictures, folder)

    run(config(empty, folder, fps=30.0, step=2))

    made = peek(empty.flow_file("walk", "a"), FLOW_SCHEMA)
    said = {
        "method": "brox",
        "method_parameters": "{}",
        "bound": 15.0,
        "fps": 30.0,
        "times_from": "given",
        "step": 2,
        "flow_input": "imported",
    }
    size = {"width": 40, "height": 32, "short_side": 32, "source_width": 40, "source_height": 32}
    assert said.items() | size.items() | {("source_frames", FIELDS + 2)} <= made.items()
    assert made["source"] == f"{folder}/walk/a/flow_x_*.jpg {folder}/walk/a/flow_y_*.jpg"
    assert made["source_bytes"] == sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    assert {"source_sha256", "content_sha256", "library_versions"} <= made.keys()


def test_a_method_of_ours_has_its_parameters_so_that_both_flows_fit_together(write_pictures, folder, empty):
    write_flow(write_pictures, folder)

    run(config(empty, folder, method="farneback", method_options={"winsize": "9"}))

    made = json.loads(peek(empty.flow_file("walk", "a"), FLOW_SCHEMA)["method_parameters"])
    assert made == make_method("farneback", {"winsize": "9"}).parameters


@pytest.mark.parametrize("bound", [1, 15, 20, 20.5])
def test_their_rule_of_rounding_is_ours(bound):
    """denseflow and gpu_flow: cvRound(255 * (v + bound) / (2 * bound)), which rounds halves to even."""
    flow = np.linspace(-bound, bound, 1001)
    theirs = np.rint(255 * (flow + bound) / (2 * bound))
    assert np.abs(quantise(flow.astype(np.float32), bound) - theirs).max() <= 1  # float32 on the edge of a step
    assert np.mean(quantise(flow.astype(np.float32), bound) == theirs) > 0.99
    assert quantise(np.zeros(1, np.float32), bound) == np.rint(127.5) == NO_MOTION


def test_again_does_nothing_and_changed_pictures_are_taken_again(write_pictures, folder, empty):
    write_flow(write_pictures, folder, name="walk/a")
    write_flow(write_pictures, folder, name="walk/b")
    run(config(empty, folder))
    write_flow(write_pictures, folder, name="walk/b", count=FIELDS + 1)

    again = run(config(empty, folder))

    assert (again.done, again.skipped) == (1, 1)
    assert peek(empty.flow_file("walk", "b"), FLOW_SCHEMA)["source_frames"] == FIELDS + 2
    with pytest.raises(UsageError, match=r"bound is 15.0, not 20.0.*--overwrite"):
        run(config(empty, folder, bound=20.0))
    assert run(config(empty, folder, bound=20.0, overwrite=True)).done == 2


def test_an_interruption_leaves_nothing_half_made(write_pictures, folder, empty):
    write_flow(write_pictures, folder, count=60)

    def interrupt(progress: Progress) -> None:
        if progress.metrics.get("pairs/s"):
            assert is_locked(mark)
            raise KeyboardInterrupt

    mark = empty.unfinished_file("flow")  # for `status`
    with pytest.raises(KeyboardInterrupt):
        run(config(empty, folder), interrupt)
    assert not is_locked(mark)
    left = {path for path in empty.root.rglob("*") if path.is_file()} - {mark}
    assert left <= {empty.flow_file("walk", "a")}  # which may have been finished at that moment
    assert run(config(empty, folder)).units == (0 if left else 60)
    assert not mark.exists()


def test_a_dry_run_counts_and_writes_nothing(write_pictures, folder, empty):
    write_flow(write_pictures, folder)

    cost = run(config(empty, folder, dry_run=True)).estimate

    assert cost is not None
    assert (cost.videos, cost.frames, cost.measured_videos) == (1, FIELDS, 1)
    assert 0 < cost.gigabytes < 1e-3
    assert not empty.root.exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data")
def test_a_real_folder_of_one_video(empty):
    run(config(empty, REAL, method="tvl1", bound=20.0))

    with FlowFile(empty.flow_file("unlabelled", "jpeg-flow-layout")) as file:
        fields = file.read(0, 5)
    expected = [[cv2.imread(str(REAL / f"{c}_{n:05d}.jpg"), cv2.IMREAD_GRAYSCALE) for c in "xy"] for n in range(1, 6)]
    np.testing.assert_array_equal(fields, expected)
    assert np.abs(dequantise(fields[1], 20.0)).mean() < 0.2  # a pair without motion


# ------------------------------------------------------------------ classes


def test_classes_of_videos_side_by_side(write_pictures, folder, empty):
    for video in ("v_HandStandPushups_g01_c01", "v_Punch_g03_c01", "other"):
        for component in "xy":
            write_pictures(folder / video / f"flow_{component}_{{:05d}}.jpg", 3)

    run(config(empty, folder))

    assert sorted(path.relative_to(empty.flow).as_posix() for path in empty.flow.rglob("*.h5")) == [
        "HandstandPushups/v_HandStandPushups_g01_c01.h5",
        "Punch/v_Punch_g03_c01.h5",
        "unlabelled/other.h5",
    ]


@pytest.mark.parametrize("kind", ["split lists", "list file"])
def test_a_list_decides_on_class_and_spelling(write_pictures, folder, empty, tmp_path, kind):
    for video in ("a.b", "C", "unknown"):
        write_flow(write_pictures, folder, name=f"walk/{video}")
    lists = tmp_path / "lists"
    lists.mkdir()
    if kind == "split lists":
        (lists / "wave_test_split1.txt").write_text("a.b.avi 0 \n")
        (lists / "jump_test_split1.txt").write_text("c.avi 1 \n")
    else:
        lists /= "list.txt"
        lists.write_text("some/where/a.b wave\nc.avi jump\n")

    result = run(config(empty, folder, class_list=lists))

    assert {path.parent.name for path in empty.flow.rglob("*.h5")} == {"wave", "jump"}
    assert empty.flow_file("wave", "a.b").is_file()
    assert empty.flow_file("jump", "c").is_file()
    assert result.failed == 1
    assert reason(empty) == f"{lists} does not name it"
    assert run(config(empty, folder)).failed == 0  # without the list its folder says what it is


def test_a_list_cannot_name_a_folder_outside(write_pictures, folder, empty, tmp_path):
    write_flow(write_pictures, folder)
    (tmp_path / "trainlist01.txt").write_text("../a.avi 1\n")
    (tmp_path / "testlist01.txt").write_text("walk/b.avi\n")
    (tmp_path / "list.txt").write_text("a ..\n")

    for given in (tmp_path, tmp_path / "list.txt"):
        with pytest.raises(UsageError, match=r"label '\.\.' cannot be a folder's name"):
            run(config(empty, folder, class_list=given))
    with pytest.raises(UsageError, match="give --list the folder they are in"):
        run(config(empty, folder, class_list=tmp_path / "trainlist01.txt"))
    with pytest.raises(MissingError, match="--list is a folder of split lists"):
        run(config(empty, folder, class_list=tmp_path / "none"))


# ------------------------------------------------------------------ what is refused


def remove(folder: Path, name: str) -> None:
    (folder / "walk/a" / name).unlink()


def rename(folder: Path, name: str, to: str) -> None:
    (folder / "walk/a" / name).rename(folder / "walk/a" / to)


def replace(folder: Path, name: str, picture: np.ndarray) -> None:
    cv2.imwrite(str(folder / "walk/a" / name), picture)


def overwrite(folder: Path, name: str, data: bytes) -> None:
    (folder / "walk/a" / name).write_bytes(data)


def cut_off(folder: Path, name: str) -> None:
    path = folder / "walk/a" / name
    path.write_bytes(path.read_bytes()[:-40])


def huge(folder: Path, name: str, sides: int = 65500) -> None:
    """A JPEG whose header claims more than it has."""
    path = folder / "walk/a" / name
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", sides, sides)
    path.write_bytes(data)


def huge_png(folder: Path, name: str) -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 100_000, 100_000, 8, 0, 0, 0, 0, 0)
    overwrite(folder, name, header + struct.pack(">I4sI", 0, b"IEND", 0xAE426082))


def link_out(folder: Path, name: str) -> None:
    remove(folder, name)
    secret = folder.parent / "secret.jpg"
    cv2.imwrite(str(secret), np.zeros((32, 40), np.uint8))
    (folder / "walk/a" / name).symlink_to(secret)


def pipe(folder: Path, name: str) -> None:
    remove(folder, name)
    os.mkfifo(folder / "walk/a" / name)


FAULTS = {
    "y lacks the last": (lambda f: remove(f, "flow_y_00004.jpg"), "has 5 pictures .*, but 4 pictures .*"),
    "a gap": (lambda f: remove(f, "flow_y_00002.jpg"), "picture 2 of 0..4 is missing"),
    "a late start": (lambda f: [remove(f, f"flow_x_0000{n}.jpg") for n in (0, 1)], "begin with flow_x_00002.jpg"),
    "no y at all": (lambda f: [remove(f, f"flow_y_0000{n}.jpg") for n in range(5)], "of x, but none of y"),
    "the same number twice": (lambda f: rename(f, "flow_x_00004.jpg", "flow_x_3.jpg"), "have the same number"),
    "two names": (lambda f: rename(f, "flow_x_00004.jpg", "x_00004.jpg"), "two names, flow_x_. and x_."),
    "another size": (lambda f: replace(f, "flow_y_00003.jpg", np.zeros((32, 42), np.uint8)), "has 42x32 pixels"),
    "colour": (lambda f: replace(f, "flow_x_00003.jpg", np.eye(40, 32)[..., None] * [9, 0, 200]), "colour picture"),
    "no picture": (lambda f: overwrite(f, "flow_x_00003.jpg", b"hello"), "neither a JPEG nor a PNG"),
    "an empty file": (lambda f: overwrite(f, "flow_x_00003.jpg", b""), "neither a JPEG nor a PNG"),
    "only a header": (lambda f: overwrite(f, "flow_x_00003.jpg", b"\xff\xd8\xff\xd9"), "neither a JPEG nor a PNG"),
    "cut off": (lambda f: cut_off(f, "flow_x_00003.jpg"), "flow_x_00003.jpg .* or is cut off"),
    "claims 4 Gi pixels": (lambda f: huge(f, "flow_x_00003.jpg"), "claims 65500x65500 pixels"),
    "a PNG that claims 10 Gi": (lambda f: huge_png(f, "flow_x_00003.jpg"), "claims 100000x100000 pixels"),
    "a link out of the folder": (lambda f: link_out(f, "flow_x_00003.jpg"), "is a link to a place outside"),
    "a pipe": (lambda f: pipe(f, "flow_x_00003.jpg"), "is not a file"),
}


@pytest.mark.parametrize(("spoil", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_video_is_a_row_and_the_other_is_done(write_pictures, folder, empty, spoil, expected):
    write_flow(write_pictures, folder, name="walk/a")
    write_flow(write_pictures, folder, name="walk/good")
    spoil(folder)

    result = run(config(empty, folder))

    assert (result.done, result.failed) == (1, 1)
    assert empty.flow_file("walk", "good").is_file()
    (row,) = read_failures(empty)
    assert (row.stage, row.class_name, row.video) == ("import-flow", "walk", "a")
    assert re.search(expected, row.reason), row.reason


def test_a_row_goes_when_its_video_is_mended(write_pictures, folder, empty):
    write_flow(write_pictures, folder)
    remove(folder, "flow_y_00002.jpg")
    run(config(empty, folder))
    write_flow(write_pictures, folder)

    assert run(config(empty, folder)).failed == 0
    assert not empty.failures_file.exists()


def test_16_bits_a_value_are_refused(write_pictures, folder, empty):
    write_flow(write_pictures, folder, "PNG")
    replace(folder, "flow_x_00000.png", np.zeros((32, 40), np.uint16))

    run(config(empty, folder))

    assert reason(empty) == "flow_x_00000.png does not have 8 bits a pixel but 16"


@pytest.mark.parametrize("component", ["u", "v"])
def test_a_tree_without_its_other_is_named_until_it_is_there(write_pictures, folder, empty, component):
    write_flow(write_pictures, folder, "the authors' gpu_flow")
    (folder / component).rename(folder / "elsewhere")

    run(config(empty, folder))
    (row,) = read_failures(empty)
    (folder / "elsewhere").rename(folder / component)

    assert (row.class_name, row.video) == ("walk", "a")
    assert row.reason == f"lacks one component: there is no {folder}/{component}/walk/a"
    assert run(config(empty, folder)).failed == 0


def test_links_to_folders_are_followed_only_within(write_pictures, folder, empty, tmp_path):
    write_flow(write_pictures, folder, name="walk/a")
    write_flow(write_pictures, tmp_path / "else", name="run/b")
    (folder / "run").symlink_to(tmp_path / "else/run")
    (folder / "walk/up").symlink_to(folder)

    result = run(config(empty, folder))

    assert (result.done, result.failed) == (1, 1)
    assert reason(empty) == f"is a link to a place outside {folder}: import that folder by its own name"
    (folder / "run").unlink()
    write_flow(write_pictures, folder, name="run/b")
    assert run(config(empty, folder)).failed == 0


def test_a_step_in_the_names_must_be_the_one_said(write_pictures, folder, empty):
    for component in "xy":
        write_pictures(folder / f"walk/a/flow_{component}_p2_{{:05d}}.jpg", 4)
        write_pictures(folder / f"walk/b/flow_{component}_m2_{{:05d}}.jpg", 4)

    run(config(empty, folder))
    reasons = {row.video: row.reason for row in read_failures(empty)}
    assert reasons["a"] == "flow_x_p2_00001.jpg is flow over 2 frames: give --step 2"
    assert "backwards" in reasons["b"]
    assert run(config(empty, folder, step=2)).done == 1


def test_a_name_too_long_to_be_stored_is_a_row(write_pictures, folder, empty):
    write_flow(write_pictures, folder, name=f"walk/{'n' * 254}")

    assert run(config(empty, folder)).failed == 1
    assert "more than 252 bytes" in reason(empty)


# ------------------------------------------------------------------ frames beside it


def write_frames(write_pictures: Any, folder: Path, count: int, side: int = 32) -> None:
    write_pictures(folder / "walk/a/img_{:05d}.jpg", count, 1, 3, side)


def import_both(empty: Workspace, folder: Path, **settings: Any) -> Any:
    import_frames.run(import_frames.Config(empty.root, folder, workers=1))
    return run(config(empty, folder, **settings))


def test_frames_and_flow_of_one_folder_fit(write_pictures, folder, empty):
    write_flow(write_pictures, folder)
    write_frames(write_pictures, folder, FIELDS + 1)

    assert import_both(empty, folder).failed == 0


@pytest.mark.parametrize(("frames", "side"), [(FIELDS, 32), (FIELDS + 2, 32), (FIELDS + 1, 16)])
def test_flow_of_other_frames_than_are_stored_is_refused(write_pictures, folder, empty, frames, side):
    write_flow(write_pictures, folder)
    write_frames(write_pictures, folder, frames, side)

    assert import_both(empty, folder).failed == 1
    of = f"has {frames} frames of {side * 40 // 32}x{side}"
    assert reason(empty) == (f"has 5 fields of 40x32, the flow of 6 frames, but {empty.frames_file('walk', 'a')} {of}")


def test_dense_flow_does_not_store_the_first_frame(write_pictures, folder, empty):
    """As many frames as fields, the first of which begins at a frame that is not there."""
    fields = write_flow(write_pictures, folder, "dense_flow")
    write_frames(write_pictures, folder, FIELDS)

    assert import_both(empty, folder, first=2).failed == 0
    with FlowFile(empty.flow_file("walk", "a")) as file:
        np.testing.assert_array_equal(file.read(0, len(file)), fields[1:])


def test_one_can_train_on_what_was_imported(write_pictures, tmp_path, empty):
    for number in range(6):
        name = f"v_{('Jump', 'Wave')[number % 2]}_g0{number}_c01"
        write_pictures(tmp_path / f"jpegs_256/{name}/frame{{:06d}}.jpg", 13, 1, 3)
        for component in "uv":
            write_pictures(tmp_path / f"tvl1_flow/{component}/{name}/frame{{:06d}}.jpg", 12)
    import_frames.run(import_frames.Config(empty.root, tmp_path / "jpegs_256", workers=1))
    run(config(empty, tmp_path / "tvl1_flow", method="tvl1", bound=20.0, workers=1))

    steps = {"appearance": {"batch_size": 2, "iterations": 1}, "motion": {"batch_size": 2, "iterations": 1}}
    settings: dict[str, Any] = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu"}
    trained = train.run(train.Config(empty.root, steps=tuple(steps), overrides=steps, **settings))

    assert (trained.train_videos, trained.failed, len(trained.steps)) == (4, 0, 2)


# ------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"bound": 0.0}, "--bound"),
        ({"step": 0}, "--step"),
        ({"fps": 0.0}, "--fps"),
        ({"first": -1}, "--first"),
        ({"method": "../tvl1"}, "--method"),
        ({"method": "brox", "method_options": {"winsize": "3"}}, "--method-option"),
        ({"compression": "lzma"}, "--compression"),
        ({"workers": -1}, "--workers"),
    ],
)
def test_settings_out_of_range_name_their_flag(tmp_path, settings, flag):
    with pytest.raises(UsageError, match=flag):
        config(Workspace(tmp_path), tmp_path, **settings)


def test_a_folder_without_flow_says_what_is_known(write_pictures, folder, empty):
    write_frames(write_pictures, folder, 3)

    with pytest.raises(MissingError, match=r"no flow in .*supported are u/<video>/frame000001.jpg"):
        run(config(empty, folder))
