"""`verify` on single videos: every planted fault is found, with its kind, and nothing else is."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import verify
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.frames_file import FRAMES_SCHEMA, new_frames_file
from pipelines.storage.hdf5 import peek
from pipelines.storage.jpeg import encode_jpeg
from pipelines.storage.quantise import mirror_x_flow
from pipelines.storage.workspace import Workspace
from pipelines.verification.stored_bytes import stored_chunks
from tests.verification.planting import (
    FRAMES,
    HEIGHT,
    WIDTH,
    clip,
    fields_of,
    found,
    opened,
    rewrite_flow,
    set_attribute,
)

VIDEO = ("drift", "v_drift_g01_c01")
ID = "/".join(VIDEO)

Verify = Callable[..., verify.Result]
Plant = Callable[[Path], None]


@pytest.mark.parametrize("depth", ["quick", "stored", "full"])
def test_a_healthy_workspace_has_no_faults(healthy: Workspace, verified: Verify, depth: str) -> None:
    before = sorted(healthy.root.rglob("*"))

    result = verified(healthy, depth=depth)

    assert (result.videos, result.files) == (9, 18)
    assert (result.faults, result.sources_absent, result.not_oriented) == ([], 0, 0)
    assert sorted(healthy.root.rglob("*")) == before


# ------------------------------------------------------------------ files


def flip_a_bit(path: Path, dataset: str) -> None:
    """In the middle of the data."""
    with opened(path) as file:
        chunk = stored_chunks(file[dataset], dataset, path.stat().st_size)[0]
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def drop_a_chunk(path: Path) -> None:
    """The last field's place is there, its values are not: HDF5 reads zeros."""
    with opened(path) as file:
        fields = len(file["flow"])
        file["flow"].resize(fields - 1, axis=0)
        file["flow"].resize(fields, axis=0)


def unsort_offsets(path: Path) -> None:
    with opened(path) as file:
        file["offsets"][2] = file["offsets"][5]


def change_times(path: Path, times: np.ndarray) -> None:
    with opened(path) as file:
        del file["times"]
        file.create_dataset("times", data=times)


TIMES = np.arange(FRAMES) / 25


DAMAGE: dict[str, tuple[str, Plant, str]] = {
    "flow: a flipped bit": ("flow", lambda path: flip_a_bit(path, "flow"), "checksum"),
    "flow: cut": ("flow", cut, "truncated"),
    "flow: no HDF5": ("flow", lambda path: path.write_text("not HDF5") and None, "damaged"),
    "flow: empty": ("flow", lambda path: path.write_bytes(b"") and None, "damaged"),
    "flow: other schema": ("flow", lambda path: set_attribute(path, schema="stres/flow/9"), "wrong schema"),
    "flow: an attribute missing": ("flow", lambda path: set_attribute(path, bound=None), "damaged"),
    "flow: a broken attribute": ("flow", lambda path: set_attribute(path, method_parameters="{"), "damaged"),
    "flow: a field missing": ("flow", lambda path: rewrite_flow(path, fields_of(path)[:-1]), "inconsistent"),
    "flow: a chunk missing": ("flow", drop_a_chunk, "inconsistent"),
    "flow: of another size": ("flow", lambda path: rewrite_flow(path, fields_of(path)[..., :-2]), "inconsistent"),
    "flow: another step": ("flow", lambda path: set_attribute(path, step=2), "inconsistent"),
    "frames: a flipped bit": ("frames", lambda path: flip_a_bit(path, "jpeg"), "checksum"),
    "frames: a flipped bit in the offsets": ("frames", lambda path: flip_a_bit(path, "offsets"), "checksum"),
    "frames: cut": ("frames", cut, "truncated"),
    "frames: other schema": ("frames", lambda path: set_attribute(path, schema=FLOW_SCHEMA), "wrong schema"),
    "frames: unsorted offsets": ("frames", unsort_offsets, "inconsistent"),
    "frames: another number": ("frames", lambda path: set_attribute(path, source_frames=FRAMES + 1), "inconsistent"),
    "frames: of another size": ("frames", lambda path: set_attribute(path, width=WIDTH + 2), "inconsistent"),
    "frames: times missing": ("frames", lambda path: change_times(path, TIMES[:-1]), "damaged"),
    "frames: times not a number": ("frames", lambda path: change_times(path, TIMES * np.nan), "damaged"),
    "frames: times that go back": ("frames", lambda path: change_times(path, np.roll(TIMES, -1)), "damaged"),
    "frames: times after the end": ("frames", lambda path: change_times(path, 2 * TIMES), "inconsistent"),
    "frames: times of whole numbers": ("frames", lambda path: change_times(path, np.arange(FRAMES)), "damaged"),
    "frames: a flipped bit in the times": ("frames", lambda path: flip_a_bit(path, "times"), "checksum"),
    "flow: times that go back": ("flow", lambda path: change_times(path, np.roll(TIMES, -1)), "damaged"),
    "frames: other content": ("frames", lambda path: set_attribute(path, content_sha256="0" * 64), "checksum"),
}  # fmt: skip


def test_artifacts_of_an_older_version_without_times_are_sound(workspace: Workspace, verified: Verify) -> None:
    for path in workspace.root.glob("*/*/*.h5"):
        with opened(path) as file:
            del file["times"]
    assert found(verified(workspace)) == set()


@pytest.mark.parametrize("name", DAMAGE)
def test_a_broken_file_is_found_and_no_other(workspace: Workspace, verified: Verify, name: str) -> None:
    kind, plant, expected = DAMAGE[name]
    path = workspace.artifact_file(kind, *VIDEO)
    plant(path)

    result = verified(workspace)

    assert found(result) == {(ID, expected)}
    (fault,) = result.faults
    assert (fault.path, fault.remake) == (str(path), (kind,))


@pytest.mark.parametrize("kind", ["frames", "flow"])
def test_what_an_interrupted_copy_leaves_is_missing(workspace: Workspace, verified: Verify, kind: str) -> None:
    workspace.artifact_file(kind, *VIDEO).unlink()

    result = verified(workspace)

    assert found(result) == {(ID, "missing"), ("split1", "split names absent videos")}
    assert f"has no {kind}" in result.faults[0].detail


def test_values_changed_in_place_are_found_where_all_is_decoded(workspace: Workspace, verified: Verify) -> None:
    with opened(workspace.flow_file(*VIDEO)) as file:
        file["flow"][3, 0, 5, 5] ^= 1  # HDF5 writes a checksum that fits

    assert found(verified(workspace)) == set()
    assert found(verified(workspace, depth="full")) == {(ID, "checksum")}


def test_files_without_checksums_are_compared_with_their_hash(workspace: Workspace, verified: Verify) -> None:
    whole, changed = workspace.flow_file(*VIDEO), workspace.flow_file("fall", "v_fall_g00_c01")
    for path in (whole, changed):
        with opened(path) as file:
            fields = file["flow"][:]
            del file["flow"]
            fields[0, 0, 0, 0] ^= path == changed
            file.create_dataset("flow", data=fields)

    assert found(verified(workspace)) == {("fall/v_fall_g00_c01", "checksum")}


# ------------------------------------------------------------------ frames and flow


def write_frames(workspace: Workspace, pictures: np.ndarray, **changed: Any) -> None:
    """Other frames under the name of the video, of one piece with themselves."""
    path = workspace.frames_file(*VIDEO)
    made = peek(path, FRAMES_SCHEMA)
    for name in ("schema", "stres_version", "content_sha256"):
        del made[name]
    size = {"source_frames": len(pictures), "height": pictures.shape[1], "width": pictures.shape[2]}
    with new_frames_file(path) as writer:
        for picture in pictures:
            writer.append(encode_jpeg(np.ascontiguousarray(picture)))
        writer.finish(made | size | changed)


PICTURES = clip(1, (2, 1))


@pytest.mark.parametrize(
    ("pictures", "changed", "detail"),
    [
        (PICTURES[:-1], {}, f"made from {FRAMES - 1} and {FRAMES} frames"),
        (PICTURES[:, :, :-2], {}, f"differ in size ({WIDTH - 2}x{HEIGHT} and {WIDTH}x{HEIGHT})"),
    ],
    ids=["number", "size"],
)
def test_frames_and_flow_out_of_step(
    workspace: Workspace, verified: Verify, pictures: np.ndarray, changed: dict[str, Any], detail: str
) -> None:
    write_frames(workspace, pictures, **changed)

    result = verified(workspace)

    assert found(result) == {(ID, "out of step")}
    assert detail in result.faults[0].detail
    assert result.faults[0].remake == ("frames", "flow")


def test_of_frames_and_flow_of_two_versions_of_a_video_the_old_one_is_made_again(
    workspace: Workspace, verified: Verify
) -> None:
    set_attribute(workspace.flow_file(*VIDEO), source_sha256="0" * 64)

    faults = {fault.kind: fault for fault in verified(workspace).faults}

    assert set(faults) == {"source changed", "out of step"}
    assert faults["out of step"].remake == faults["source changed"].remake == ("flow",)


def test_flow_of_frames_that_were_made_again_is_out_of_step(workspace: Workspace, verified: Verify) -> None:
    frames = peek(workspace.frames_file(*VIDEO), FRAMES_SCHEMA)["content_sha256"]
    set_attribute(workspace.flow_file(*VIDEO), frames_sha256=frames)
    assert found(verified(workspace)) == set()

    set_attribute(workspace.flow_file(*VIDEO), frames_sha256="0" * 64)
    assert found(verified(workspace)) == {(ID, "out of step")}


# ------------------------------------------------------------------ what the flow says

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x negated": lambda fields: np.stack([255 - fields[:, 0], fields[:, 1]], axis=1),
    "y negated": lambda fields: np.stack([fields[:, 0], 255 - fields[:, 1]], axis=1),
    "x and y negated": lambda fields: 255 - fields,
    "x and y swapped": lambda fields: fields[:, ::-1],
    "x and y swapped, x negated": lambda fields: np.stack([255 - fields[:, 1], fields[:, 0]], axis=1),
}


@pytest.mark.parametrize("turn", TURNS)
def test_turned_flow_is_found_and_how_it_is_turned(workspace: Workspace, verified: Verify, turn: str) -> None:
    path = workspace.flow_file(*VIDEO)
    rewrite_flow(path, TURNS[turn](fields_of(path)))

    result = verified(workspace)

    assert found(result) == {(ID, "turned flow")}
    undone = {"x and y swapped, x negated": "x and y swapped, y negated"}.get(turn, turn)
    assert f"fits its frames with {undone}: " in result.faults[0].detail


def test_flow_mirrored_without_its_frames_is_found(workspace: Workspace, verified: Verify) -> None:
    path = workspace.flow_file(*VIDEO)
    rewrite_flow(path, mirror_x_flow(fields_of(path)))

    assert found(verified(workspace)) == {(ID, "turned flow")}


def test_flow_of_another_video_is_found(workspace: Workspace, verified: Verify) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES - 1, 2, 6, 8), dtype=np.uint8)
    rewrite_flow(workspace.flow_file(*VIDEO), noise.repeat(8, axis=2).repeat(8, axis=3))

    assert found(verified(workspace)) == {(ID, "foreign flow")}


@pytest.mark.parametrize(
    ("values", "expected"), [(128, "constant flow"), (0, "saturated flow"), (255, "saturated flow")]
)
def test_flow_of_one_value_is_found(workspace: Workspace, verified: Verify, values: int, expected: str) -> None:
    path = workspace.flow_file(*VIDEO)
    rewrite_flow(path, np.full_like(fields_of(path), values))

    assert found(verified(workspace)) == {(ID, expected)}


def test_clipped_flow_is_found(workspace: Workspace, verified: Verify) -> None:
    path = workspace.flow_file(*VIDEO)
    rewrite_flow(path, np.where(fields_of(path) > 128, 255, 0).astype(np.uint8))

    assert found(verified(workspace)) == {(ID, "saturated flow")}


def test_one_constant_field_is_found(workspace: Workspace, verified: Verify) -> None:
    path = workspace.flow_file(*VIDEO)
    fields = fields_of(path)
    fields[7] = 128
    rewrite_flow(path, fields)

    result = verified(workspace)

    assert found(result) == {(ID, "constant flow")}
    assert "field 7" in result.faults[0].detail


def test_a_field_that_comes_twice_is_found(workspace: Workspace, verified: Verify) -> None:
    path = workspace.flow_file(*VIDEO)
    fields = fields_of(path)
    fields[8] = fields[4]
    rewrite_flow(path, fields)

    result = verified(workspace)

    assert found(result) == {(ID, "repeated flow")}
    assert "fields 4 and 8" in result.faults[0].detail


def test_constant_flow_without_frames_to_explain_it_is_found(workspace: Workspace, verified: Verify) -> None:
    path = workspace.flow_file(*VIDEO)
    rewrite_flow(path, np.full_like(fields_of(path), 128))
    shutil.rmtree(workspace.frames)
    shutil.rmtree(workspace.splits)

    assert found(verified(workspace)) == {("frames", "missing"), (ID, "constant flow")}


# ------------------------------------------------------------------ sources


@pytest.fixture
def own_source(workspace: Workspace, tmp_path: Path) -> Path:
    """The video from which VIDEO was made, to be changed."""
    recorded = Path(peek(workspace.flow_file(*VIDEO), FLOW_SCHEMA)["source"])
    source = tmp_path / recorded.name
    shutil.copy(recorded, source)
    for kind in ("frames", "flow"):
        set_attribute(workspace.artifact_file(kind, *VIDEO), source=str(source))
    return source


def test_a_source_of_another_size_has_changed(workspace: Workspace, verified: Verify, own_source: Path) -> None:
    own_source.write_bytes(own_source.read_bytes() + b"\0")

    for depth in ("quick", "stored"):
        result = verified(workspace, depth=depth)
        assert found(result) == {(ID, "source changed")}
        assert result.faults[0].remake == ("frames", "flow")


def test_a_source_of_other_content_has_changed(workspace: Workspace, verified: Verify, own_source: Path) -> None:
    content = bytearray(own_source.read_bytes())
    content[-100] ^= 1
    own_source.write_bytes(content)

    assert found(verified(workspace)) == {(ID, "source changed")}


def test_a_source_that_is_gone_is_no_fault(workspace: Workspace, verified: Verify, own_source: Path) -> None:
    own_source.unlink()

    result = verified(workspace)

    assert (result.faults, result.sources_absent) == ([], 1)
