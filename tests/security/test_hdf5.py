"""HDF5 from strangers: no other file is read, no plugin is loaded, nothing hangs, and claims take no memory.

Links, external storage and virtual data sets are refused in tests/storage/test_artifacts.py.
"""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from pipelines.storage.flow_file import FLOW_SCHEMA, FlowFile, new_flow_file
from pipelines.storage.frames_file import FRAMES_SCHEMA, FrameFile
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.hdf5_guards import HeapCheckedFile
from pipelines.storage.jpeg import decode_jpeg, encode_jpeg


@pytest.fixture
def flow_path(tmp_path: Path) -> Path:
    path = tmp_path / "flow.h5"
    with new_flow_file(path) as writer:
        writer.append(np.zeros((3, 2, 8, 8), np.uint8))
        writer.finish({"method": "tvl1", "bound": 20.0, "source": "a.avi"})
    return path


# ------------------------------------------------------------------ plugins


def test_no_filter_is_loaded_from_a_folder_that_the_environment_names(flow_path: Path, tmp_path: Path) -> None:
    """A file that asks for a filter HDF5 does not have makes it load every library of that folder."""
    content = flow_path.read_bytes()
    assert hdf5plugin.Zstd.filter_id == 32015
    flow_path.write_bytes(content.replace(struct.pack("<H", 32015), struct.pack("<H", 32333)))
    hostile = tmp_path / "plugins"
    hostile.mkdir()
    library = next(Path(hdf5plugin.PLUGIN_PATH).glob("*lz4*.so"))
    shutil.copy(library, hostile / "libhostile.so")
    plain = "import sys, h5py\ntry: h5py.File(sys.argv[1])['flow'][0]\nexcept OSError as error: print(error)"
    ours = (
        "import sys, pathlib\nfrom pipelines.storage.hdf5 import ArtifactError\n"
        "from pipelines.storage.flow_file import FlowFile\n"
        "try: FlowFile(pathlib.Path(sys.argv[1])).read(0, 1)\nexcept ArtifactError as error: print(error)"
    )
    assert "libhostile" in loaded(plain, flow_path, hostile)  # or this test shows nothing
    assert "libhostile" not in loaded(ours, flow_path, hostile)


def loaded(code: str, path: Path, plugins: Path) -> str:
    """The libraries that a program loads while it refuses `path`, as the dynamic linker tells of them."""
    environment = os.environ | {"HDF5_PLUGIN_PATH": str(plugins), "LD_DEBUG": "files"}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "synchronously read data" in done.stdout
    assert "libhdf5" in done.stderr
    return done.stderr


# ------------------------------------------------------------------ claims


def claimed_flow(file: h5py.File) -> None:
    file.create_dataset("flow", shape=(10**15, 2, 48, 64), chunks=(1, 2, 48, 64), dtype="u1")


def large_flow(file: h5py.File) -> None:
    file.create_dataset("flow", shape=(10, 2, 10**6, 10**6), chunks=(1, 2, 1000, 1000), dtype="u1")


def flow_of_text(file: h5py.File) -> None:
    file.create_dataset("flow", data=["a", "b"])


def claimed_frames(file: h5py.File) -> None:
    file.create_dataset("offsets", data=np.array([0, 10**12]))
    file.create_dataset("jpeg", shape=(10**15,), chunks=(1000,), dtype="u1")


def claimed_offsets(file: h5py.File) -> None:
    file.create_dataset("offsets", shape=(10**13,), chunks=(1000,), dtype="i8")
    file.create_dataset("jpeg", data=np.zeros(10, np.uint8))


def no_offsets(file: h5py.File) -> None:
    file.create_dataset("offsets", data=np.zeros(0, "i8"))
    file.create_dataset("jpeg", data=np.zeros(10, np.uint8))


@pytest.mark.parametrize("make", [claimed_flow, large_flow, flow_of_text])
def test_flow_that_is_only_claimed_is_refused(tmp_path: Path, make: Callable[[h5py.File], None]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["schema"] = FLOW_SCHEMA
        make(file)
    with pytest.raises(ArtifactError, match=r"a\.h5 is damaged \('flow' "):
        FlowFile(tmp_path / "a.h5")


@pytest.mark.parametrize("make", [claimed_frames, claimed_offsets, no_offsets])
def test_frames_that_are_only_claimed_are_refused(tmp_path: Path, make: Callable[[h5py.File], None]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["schema"] = FRAMES_SCHEMA
        make(file)
    with pytest.raises(ArtifactError, match=r"a\.h5 is damaged \('(jpeg|offsets)' (claims|is empty)"):
        FrameFile(tmp_path / "a.h5")


@pytest.mark.parametrize("offsets", [[5, 2], [-4, 2], [0, 11]])
def test_frames_said_to_lie_outside_are_refused(tmp_path: Path, offsets: list[int]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["schema"] = FRAMES_SCHEMA
        file.create_dataset("offsets", data=np.array(offsets))
        file.create_dataset("jpeg", data=np.zeros(10, np.uint8))
    with FrameFile(tmp_path / "a.h5") as frames, pytest.raises(ArtifactError, match="is said to lie at bytes"):
        frames.read_one(0)


def test_a_jpeg_that_claims_gigabytes_or_is_another_format_is_none() -> None:
    import cv2

    jpeg = encode_jpeg(np.full((16, 24, 3), 90, np.uint8))
    assert decode_jpeg(jpeg) is not None
    claiming = jpeg.tobytes()
    at = claiming.index(b"\xff\xc0")
    claiming = claiming[: at + 5] + struct.pack(">HH", 30_000, 30_000) + claiming[at + 9 :]
    assert decode_jpeg(np.frombuffer(claiming, np.uint8)) is None
    png = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].reshape(-1)
    assert decode_jpeg(png) is None


# ------------------------------------------------------------------ what HDF5 does not survive


def test_a_heap_that_leads_nowhere_is_refused_and_not_walked_for_ever(flow_path: Path) -> None:
    """The bytes after the heap's entries, taken for an entry of no length, are where HDF5 2.0 stays."""
    content = bytearray(flow_path.read_bytes())
    at = content.index(b"GCOL\x01\0\0\0")
    content[at + 24 : at + 32] = struct.pack("<Q", 4000)  # length of the first entry
    flow_path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        peek(flow_path, FLOW_SCHEMA)
    with pytest.raises(ArtifactError, match="is damaged"):
        FlowFile(flow_path)


@pytest.mark.parametrize("begins_at", [0, 1, 5, 7])
def test_a_broken_heap_is_hidden_wherever_a_read_ends(tmp_path: Path, begins_at: int) -> None:
    path = tmp_path / "heap"
    path.write_bytes(b"." * 8 + b"GCOL\x01\0\0\0" + struct.pack("<Q", 4096) + bytes(4080))
    with HeapCheckedFile(path) as file:
        parts = bytearray(8 + begins_at), bytearray(4096 - begins_at)
        for part in parts:
            file.readinto(part)
    assert b"GCOL\x01\0\0\0" not in parts[0] + parts[1]


def test_names_that_look_like_a_heap_are_read(tmp_path: Path) -> None:
    path = tmp_path / "flow.h5"
    with new_flow_file(path) as writer:
        writer.append(np.frombuffer(b"GCOL" * 32, np.uint8).reshape(1, 2, 8, 8))
        writer.finish({"source": "GCOL\x01.avi"})
    assert peek(path, FLOW_SCHEMA)["source"] == "GCOL\x01.avi"


def add_reference(file: h5py.File) -> None:
    file.attrs["odd"] = file["flow"].ref


def add_lists(file: h5py.File) -> None:
    lists = np.empty(1, dtype=object)
    lists[0] = np.array([1, 2], np.int32)
    file.attrs.create("odd", lists, dtype=h5py.vlen_dtype(np.int32))


@pytest.mark.parametrize("add", [add_reference, add_lists])
def test_attributes_that_are_neither_numbers_nor_text_are_refused(
    flow_path: Path, add: Callable[[h5py.File], None]
) -> None:
    with h5py.File(flow_path, "a") as file:
        add(file)
    with pytest.raises(ArtifactError, match="'odd' holds neither numbers nor text"):
        peek(flow_path, FLOW_SCHEMA)
