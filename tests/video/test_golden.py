"""Each of the odd clips has the frames, size, times and grey levels of the pictures it was made of, and
those of `golden.json`.

`.venv/bin/python -m tests.video.test_golden` writes `golden.json` anew.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipelines.optical_flow.grey import to_grey
from pipelines.video.decoding import VideoReader
from tests.helpers.odd_clips import CLIPS, H, T, W, made, pictures, write_clip

GOLDEN = Path(__file__).with_name("golden.json")
GRID = 4  # grey levels are means over a grid of so many cells each way


def grey_levels(picture: np.ndarray) -> list[float]:
    """The mean grey level of each cell."""
    rows = np.array_split(to_grey(np.ascontiguousarray(picture)).astype(float), min(GRID, picture.shape[0]))
    cells = (np.array_split(row, min(GRID, row.shape[1]), axis=1) for row in rows)
    return [round(float(cell.mean()), 1) for row in cells for cell in row]


def read(path: Path) -> dict[str, Any]:
    with VideoReader(path, keep_size=True) as reader:
        frames = list(reader)
        return {
            "frames": len(frames),
            "size": [reader.width, reader.height],
            "times": [round(float(time), 3) for time in reader.timing.times],
            "grey": [grey_levels(frames[0]), grey_levels(frames[-1])],
        }


@pytest.mark.parametrize("name", CLIPS)
def test_an_odd_clip_has_the_frames_size_times_and_grey_levels_it_was_made_of(tmp_path: Path, name: str) -> None:
    clip = CLIPS[name]
    if clip.codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {clip.codec}")
    found = read(made(name, tmp_path))
    expected = [clip.shown(picture) for picture in pictures(clip.frames, *clip.size)]
    assert found["frames"] == clip.frames
    assert found["size"] == [expected[0].shape[1], expected[0].shape[0]]
    assert np.allclose(found["times"], clip.times, atol=2e-3)
    for levels, picture in zip(found["grey"], (expected[0], expected[-1]), strict=True):
        assert np.abs(np.array(levels) - grey_levels(picture)).max() <= clip.forgiven
    golden = json.loads(GOLDEN.read_text())[name]
    assert {key: found[key] for key in ("frames", "size")} == {key: golden[key] for key in ("frames", "size")}
    assert np.allclose(found["times"], golden["times"], atol=1.5e-3)
    assert np.abs(np.array(found["grey"]) - golden["grey"]).max() <= 1.0  # encoders of other versions


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("a cover", {}),
        ("a still before the film", {}),
        ("a still before the film", {"file": "a.mkv", "beside": "default still"}),  # Matroska counts no pictures
        ("a film before the default", {}),
    ],
)
def test_a_player_shows_the_default_film_and_neither_a_cover_nor_a_still_nor_the_first(
    tmp_path: Path, name: str, others: dict[str, str]
) -> None:
    clip = replace(CLIPS[name], **others)
    path = tmp_path / clip.file
    write_clip(path, clip)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
        is_first = container.streams.video[0].width == 64
    assert is_first or name == "a cover"  # or this test shows nothing
    assert (read(path)["frames"], read(path)["size"]) == (T, [W, H])


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/dev/shm")
    lines = (f"{json.dumps(name)}: {json.dumps(read(made(name, folder)))}" for name in CLIPS)
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
