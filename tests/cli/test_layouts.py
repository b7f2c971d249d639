"""The commands for others' folders of pictures: from videos out and in again, and what a user sees."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def exported(stres, two_classes, tmp_path) -> Path:
    """A workspace's flow, written for other tools."""
    made = tmp_path / "made"
    assert stres("extract-flow", two_classes, "-w", made, "--method", "farneback", "--bound", 5).exit_code == 0
    assert stres("export-flow", tmp_path / "out", "-w", made, "--layout", "denseflow", "--format", "png").exit_code == 0
    return tmp_path / "out"


def test_out_and_in_again(stres, exported, tmp_path):
    shown = stres("import-flow", exported, "-w", tmp_path / "again", "--method", "farneback", "--bound", 5)

    assert shown.exit_code == 0
    assert "8 videos done, 0 already done, 0 failed; 184 pairs" in shown.stdout
    names = {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.h5")}
    assert names == {path.relative_to(tmp_path / "made") for path in (tmp_path / "made").rglob("*.h5")}


def test_a_faulty_video_gives_1_and_says_why(stres, exported, tmp_path):
    (exported / "red_rising/red_rising_000/flow_y_00007.png").unlink()

    shown = stres("import-flow", exported, "-w", tmp_path / "again", "--method", "farneback", "--bound", 5, "--json")

    assert shown.exit_code == 1
    document = json.loads(shown.stdout)
    assert (document["done"], document["failed"]) == (7, 1)
    assert document["failures"][0]["reason"].startswith("picture 7 of 0..22 is missing")
    assert "red_rising/red_rising_000: picture 7 of 0..22 is missing" in shown.stderr


@pytest.mark.parametrize("option", ["--method", "--bound"])
def test_method_and_bound_must_be_said(stres, tmp_path, option):
    given = {"--method": "tvl1", "--bound": "20"}
    del given[option]

    shown = stres("import-flow", tmp_path, *(word for pair in given.items() for word in pair))

    assert shown.exit_code == 2
    assert f"{option} is missing" in shown.stderr


def test_frames_come_in_with_a_plain_call(stres, tmp_path, monkeypatch):
    import cv2
    import numpy as np

    for number in range(1, 4):
        path = tmp_path / f"jpegs_256/v_Punch_g01_c01/frame{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((32, 40, 3), 40 * number, np.uint8))
    monkeypatch.chdir(tmp_path)

    shown = stres("import-frames", "jpegs_256")

    assert (shown.exit_code, shown.stdout.partition(" in ")[0]) == (
        0,
        "1 video done, 0 already done, 0 failed; 3 frames",
    )
    assert Path("stres-work/frames/Punch/v_Punch_g01_c01.h5").is_file()
