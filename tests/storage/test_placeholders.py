"""A web page or a pointer in the place of a file: what it is is named wherever files of other programs are read."""

from pathlib import Path

import pytest

from pipelines.analysis.score_files import read_score_file
from pipelines.errors import MissingError, VideoError
from pipelines.importing import weights
from pipelines.sources.lists import read_list
from pipelines.storage.atomic import read_json
from pipelines.storage.hdf5 import open_file
from pipelines.video.decoding import VideoReader

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 102530333\n"
OTHERS = {
    "a Git LFS pointer": POINTER,
    "a git-annex pointer": b"/annex/objects/SHA256E-s102--abc.mp4\n",
    "a web page": b"\n<!DOCTYPE html><html>404</html>",
}


def import_weights(path: Path) -> None:
    weights.Config(path, output=path.with_name("out.pth"))


def decode(path: Path) -> None:
    VideoReader(path)


def open_hdf5(path: Path) -> None:
    with open_file(path):
        pass


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.mat", import_weights),
        ("a.onnx", import_weights),
        ("a.avi", decode),
        ("a.h5", open_hdf5),
        ("a.csv", read_score_file),
        ("a.npz", read_score_file),
        ("a.txt", read_list),
        ("a.json", read_json),
    ],
)
def test_a_placeholder_is_named_wherever_files_are_read(tmp_path, what, name, read):
    (tmp_path / name).write_bytes(OTHERS[what])
    with pytest.raises((MissingError, VideoError), match=f"it is {what}, not the file itself: "):
        read(tmp_path / name)
