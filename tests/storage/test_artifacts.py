"""Frames and flow files: what was written comes back, and nothing that is not what it says it is gets through."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pipelines import __version__
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowFile, new_flow_file
from pipelines.storage.frames_file import FRAMES_SCHEMA, FrameFile, new_frames_file
from pipelines.storage.hdf5 import ArtifactError, peek
from tests.helpers.processes import first_line

FRAMES, HEIGHT, WIDTH = 6, 24, 32


@pytest.fixture
def pictures() -> np.ndarray:
    """Smooth RGB frames, which JPEG hardly changes: uint8 [T, H, W, 3]; their red grows, their blue shrinks."""
    ramp = np.linspace(0, 100, WIDTH)[None, :, None] + np.zeros((HEIGHT, 1, 3))
    change = 20 * np.arange(FRAMES)[:, None, None, None] * np.array([1, 0, -1])
    return np.clip(ramp + change + [0, 50, 100], 0, 255).astype(np.uint8)


@pytest.fixture
def fields() -> np.ndarray:
    """uint8 [F, 2, H, W]."""
    return np.random.default_rng(0).integers(0, 256, (FRAMES - 1, 2, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def frames_path(tmp_path: Path, pictures: np.ndarray) -> Path:
    path = tmp_path / "frames.h5"
    with new_frames_file(path) as writer:
        for picture in pictures:
            writer.append(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].reshape(-1))
        writer.finish({"fps": 25.0, "source": "ü.avi"})
    return path


@pytest.fixture
def flow_path(tmp_path: Path, fields: np.ndarray) -> Path:
    path = tmp_path / "flow.h5"
    with new_flow_file(path) as writer:
        writer.append(fields[:2])
        writer.append(fields[2:])
        writer.finish({"method": "tvl1", "bound": 20.0})
    return path


# ------------------------------------------------------------------ what is written comes back


def test_frames_come_back_as_jpeg_keeps_them(frames_path, pictures):
    with FrameFile(frames_path) as file:
        assert len(file) == FRAMES
        read = np.stack(file.read([0, 5, 2]))
        assert file.attributes["source"] == "ü.avi"
        assert file.attributes["jpeg_quality"] == 95

    assert (read.shape, read.dtype) == ((3, HEIGHT, WIDTH, 3), np.uint8)
    assert np.abs(read.astype(int) - pictures[[0, 5, 2]]).max() <= 6


def test_frames_are_read_smaller_while_their_long_side_has_the_pixels_asked_for(tmp_path):
    column = np.linspace(0, 255, 320).astype(np.uint8)
    with new_frames_file(tmp_path / "v.h5") as file:
        file.append(cv2.imencode(".jpg", np.tile(column, (240, 1))[..., None].repeat(3, 2))[1].reshape(-1))
        file.finish({"source_frames": 1})
    with FrameFile(tmp_path / "v.h5") as file:
        for long_side, share in ((None, 1), (161, 1), (160, 2), (81, 2), (80, 4), (40, 8), (1, 8)):
            (picture,) = file.read([0], long_side)
            assert picture.shape == (240 // share, 320 // share, 3)
            np.testing.assert_allclose(picture[0, :, 0], column.reshape(-1, share).mean(1), atol=3)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_flow_comes_back_bit_for_bit(tmp_path, fields, compression):
    path = tmp_path / "flow.h5"
    with new_flow_file(path, compression) as writer:
        writer.append(fields)
        writer.finish({"bound": 20.0})

    with FlowFile(path) as file:
        assert len(file) == FRAMES - 1
        assert np.array_equal(file.read(0, 5), fields)
        assert np.array_equal(file.read(3, 4), fields[3:4])
        assert file.file["flow"].chunks == (1, 2, HEIGHT, WIDTH)
        assert file.file["flow"].fletcher32


def test_times_come_back_bit_for_bit_and_are_no_part_of_the_content(tmp_path, fields):
    times = np.cumsum([0.0, 0.5, 0.1, 1 / 3, 0.0, 7.0])
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path, shown in zip(paths, (times, times / 2), strict=True):
        with new_flow_file(path) as writer:
            writer.append(fields)
            writer.finish({"source_frames": FRAMES, "fps": 2.0}, shown)

    with FlowFile(paths[0]) as file:
        assert np.array_equal(file.times, times)
        assert (file.times.dtype, file.file["times"].fletcher32) == (np.float64, True)
    first, second = (peek(path, FLOW_SCHEMA)["content_sha256"] for path in paths)
    assert first == second


@pytest.mark.parametrize("broken", [np.nan, np.inf, 9.0, -1.0])
def test_times_that_are_none_are_refused(tmp_path, fields, broken):
    times = np.arange(FRAMES, dtype=float)
    times[3] = broken
    with new_flow_file(tmp_path / "a.h5") as writer:
        writer.append(fields)
        writer.finish({"source_frames": FRAMES, "fps": 1.0}, times)

    with FlowFile(tmp_path / "a.h5") as file, pytest.raises(ArtifactError, match="not seconds from 0 that never go"):
        file.times  # noqa: B018


@pytest.mark.parametrize(("fps", "last"), [(10.0, 0.5), (0.0, 0.2)])
def test_a_file_of_an_older_version_has_the_times_of_its_rate(tmp_path, fields, fps, last):
    with new_flow_file(tmp_path / "flow.h5") as writer:
        writer.append(fields)
        writer.finish({"source_frames": FRAMES, "fps": fps})

    with FlowFile(tmp_path / "flow.h5") as file:
        assert file.times == pytest.approx(np.linspace(0, last, FRAMES))


def test_a_file_carries_its_provenance(flow_path, frames_path):
    for path, schema in ((flow_path, FLOW_SCHEMA), (frames_path, FRAMES_SCHEMA)):
        attributes = peek(path, schema)

        assert attributes["schema"] == schema
        assert attributes["stres_version"] == __version__
        assert len(attributes["content_sha256"]) == 64
    assert (peek(flow_path, FLOW_SCHEMA)["method"], peek(flow_path, FLOW_SCHEMA)["bound"]) == ("tvl1", 20.0)


def test_an_interrupted_file_does_not_exist(tmp_path, fields):
    def begin() -> None:
        with new_flow_file(tmp_path / "flow.h5") as writer:
            writer.append(fields)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()

    assert list(tmp_path.iterdir()) == []


def test_gzip_opens_where_there_is_no_hdf5plugin(tmp_path, fields):
    path = tmp_path / "flow.h5"
    with new_flow_file(path, "gzip") as writer:
        writer.append(fields)
        writer.finish({})
    program = (
        "import sys; sys.modules['hdf5plugin'] = None; import h5py; "
        "print(h5py.File(sys.argv[1])['flow'][:].astype(int).sum())"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=300
    )

    assert int(done.stdout) == fields.astype(int).sum()


# ------------------------------------------------------------------ what is refused


def test_an_index_outside_is_refused(frames_path, flow_path):
    with FrameFile(frames_path) as frames, pytest.raises(ArtifactError, match="frame 6 of 6"):
        frames.read([6])
    with FlowFile(flow_path) as flow, pytest.raises(ArtifactError, match=r"fields 4\.\.5 of 5"):
        flow.read(4, 6)


def test_an_absent_file_says_how_to_make_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.h5 is missing: run the stage"):
        FlowFile(tmp_path / "none.h5")


def test_another_schema_is_refused(frames_path, flow_path):
    with pytest.raises(ArtifactError, match="'stres/frames/1', not 'stres/flow/1'"):
        FlowFile(frames_path)
    with h5py.File(flow_path, "r+") as file:
        file.attrs["schema"] = "stres/flow/2"
    with pytest.raises(ArtifactError, match="make it again with this version"):
        FlowFile(flow_path)
    with h5py.File(flow_path, "r+") as file:
        del file.attrs["schema"]
    with pytest.raises(ArtifactError, match="schema None"):
        peek(flow_path, FLOW_SCHEMA)


def flip_a_byte(path: Path, dataset: str) -> None:
    """Flips one byte in the middle of the first stored chunk."""
    with h5py.File(path) as file:
        chunk = file[dataset].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_flipped_byte_of_flow_is_found(tmp_path, fields, compression):
    path = tmp_path / "flow.h5"
    with new_flow_file(path, compression) as writer:
        writer.append(fields)
        writer.finish({})
    flip_a_byte(path, "flow")

    with FlowFile(path) as file:
        assert np.array_equal(file.read(1, 5), fields[1:])  # the other fields are whole
        with pytest.raises(ArtifactError, match="is damaged"):
            file.read(0, 1)


def test_a_flipped_byte_of_frames_is_found(frames_path):
    flip_a_byte(frames_path, "jpeg")

    with FrameFile(frames_path) as file, pytest.raises(ArtifactError, match="is damaged"):
        file.read([0])


def test_flipped_offsets_are_found(frames_path):
    flip_a_byte(frames_path, "offsets")

    with pytest.raises(ArtifactError, match="is damaged"):
        FrameFile(frames_path)


KEPT = """
import gc, sys
from pathlib import Path
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.hdf5 import ArtifactError
path, kept = Path(sys.argv[1]), []
whole = path.read_bytes()
for start in (*range(8, 136, 8), None):
    broken = whole[:len(whole) // 2] if start is None else whole[:start] + bytes([255] * 8) + whole[start + 8:]
    path.write_bytes(broken)
    try:
        FlowFile(path).close()
    except ArtifactError as error:
        kept.append(error)
print(len(kept))
kept.append(kept)
gc.freeze()
"""


def test_errors_of_damaged_files_that_a_command_keeps_do_not_crash_it_as_it_ends(flow_path):
    # HDF5 ends itself after Python, and frees then what the errors' frames hold: it would call Python for that.
    process = subprocess.run([sys.executable, "-c", KEPT, str(flow_path)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) >= 5


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(flow_path, share):
    data = flow_path.read_bytes()
    flow_path.write_bytes(data[: int(share * len(data))])

    with pytest.raises(ArtifactError, match="is damaged"):
        FlowFile(flow_path)


def test_what_is_no_hdf5_is_refused(tmp_path):
    path = tmp_path / "flow.h5"
    path.write_text("this is no HDF5")

    with pytest.raises(ArtifactError, match="is damaged"):
        FlowFile(path)


def absent(file: h5py.File, outside: Path) -> None:
    """No data set at all."""


def a_group(file: h5py.File, outside: Path) -> None:
    file.create_group("flow")


def external_link(file: h5py.File, outside: Path) -> None:
    file["flow"] = h5py.ExternalLink(str(outside), "flow")


def soft_link(file: h5py.File, outside: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(outside), "flow")
    file["flow"] = h5py.SoftLink("/elsewhere")


def external_storage(file: h5py.File, outside: Path) -> None:
    file.create_dataset("flow", shape=(1, 2, 4, 4), dtype="u1", external=[(str(outside), 0, 32)])


def virtual_dataset(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout(shape=(1, 2, 4, 4), dtype="u1")
    layout[:] = h5py.VirtualSource(str(outside), "flow", shape=(1, 2, 4, 4))
    file.create_virtual_dataset("flow", layout)


@pytest.mark.parametrize("make", [absent, a_group, external_link, soft_link, external_storage, virtual_dataset])
def test_data_that_lies_elsewhere_is_refused(tmp_path, make):
    outside = tmp_path / "secret.h5"
    with h5py.File(outside, "w") as file:
        file["flow"] = np.zeros((1, 2, 4, 4), np.uint8)
    with h5py.File(tmp_path / "flow.h5", "w") as file:
        file.attrs["schema"] = FLOW_SCHEMA
        make(file, outside)

    with pytest.raises(ArtifactError, match="is damaged"):
        FlowFile(tmp_path / "flow.h5")


@pytest.mark.parametrize("make", [external_link, external_storage, virtual_dataset])
@pytest.mark.parametrize("place", ["evil", "group/evil", "times"])
def test_what_leads_out_of_the_file_is_refused_also_where_nobody_reads_it(tmp_path, flow_path, make, place):
    outside = tmp_path / "secret.h5"
    with h5py.File(outside, "w") as file:
        file["flow"] = np.zeros((1, 2, 4, 4), np.uint8)
    FlowFile(flow_path).close()
    with h5py.File(flow_path, "r+") as file:
        make(file.create_group("made"), outside)
        file.move("made/flow", place)
        del file["made"]

    reasons = "(is a link into another file|does not hold its data itself|of its own)"
    with pytest.raises(ArtifactError, match=f"('{place}' {reasons}|no data set '{place}' of its own)"):
        FlowFile(flow_path)


def test_frames_that_are_no_jpegs_are_refused(tmp_path):
    path = tmp_path / "frames.h5"
    with new_frames_file(path) as writer:
        writer.append(np.frombuffer(io.BytesIO(b"this is no JPEG").getvalue(), np.uint8))
        writer.finish({})

    with FrameFile(path) as file, pytest.raises(ArtifactError, match="frame 0 is not a JPEG"):
        file.read([0])


def test_attributes_are_those_that_h5py_reads_as_plain_values(tmp_path: Path, flow_path: Path) -> None:
    more = {
        "whole": 2**62,
        "unsigned": np.uint64(2**64 - 1),
        "small": np.int16(-3),
        "big endian": np.array(7, dtype=">i8"),
        "half": np.float32(0.1),
        "yes": True,
        "text": "über",
        "nothing": "",
        "fixed": np.bytes_(b"abc"),
        "row": np.arange(3),
        "one": np.array([5]),
        "names": ["a", "ü"],
    }
    with h5py.File(flow_path, "r+") as file:
        for name, value in more.items():
            file.attrs[name] = value
        file.attrs["beyond"] = h5py.Empty("f")
        expected = {name: v.tolist() if hasattr(v, "tolist") else v for name, v in file.attrs.items()}
    found = peek(flow_path, FLOW_SCHEMA)
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in expected.items()}
    assert peek(flow_path, FLOW_SCHEMA, {"bound", "absent"}) == {"schema": FLOW_SCHEMA, "bound": 20.0}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_file_that_the_system_refuses_is_not_called_damaged(flow_path, monkeypatch, number):
    """Nobody is told to delete what only cannot be opened now."""

    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(h5py, "File", refused)
    with pytest.raises(ArtifactError, match=rf"flow.h5 cannot be read \({os.strerror(number)}\)") as caught:
        peek(flow_path, FLOW_SCHEMA)
    assert "delete" not in str(caught.value)


def test_a_file_that_another_program_has_open_for_writing_is_read_all_the_same(flow_path, fields):
    """HDF5 would lock it."""
    hold = "import h5py, sys, time; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, flow_path], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert first_line(holder.stdout) == b"open\n"
        try:
            with FlowFile(flow_path) as file:
                assert np.array_equal(file.read(0, len(file)), fields)
        finally:
            holder.kill()
