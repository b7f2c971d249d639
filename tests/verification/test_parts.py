"""The parts that compute: HDF5's checksum, the warp, and the evidence for each orientation of a flow field."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pipelines.storage.quantise import quantise
from pipelines.verification.faults import FaultFound
from pipelines.verification.orientation import AS_IT_IS, TRANSFORMS, Evidence, FlowTransform, judge_orientation, warp
from pipelines.verification.stored_bytes import checked_bytes, fletcher32, has_checksums, stored_chunks
from tests.verification.planting import clip

# ------------------------------------------------------------------ checksums


@pytest.mark.parametrize("size", [1, 2, 3, 4, 1000, 65535, 65536, 200_001])
@pytest.mark.parametrize("high", [1, 256])
def test_the_checksum_is_hdf5s(tmp_path: Path, size: int, high: int) -> None:
    data = np.random.default_rng(size).integers(0, high, size, dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("data", data=data, chunks=data.shape, fletcher32=True)
        _, stored = dataset.id.read_direct_chunk((0,))

    theirs = int.from_bytes(stored[-4:], "little")
    assert stored[:-4] == data.tobytes()
    assert [fletcher32(data.tobytes()) >> shift & 0xFFFF for shift in (0, 16)] == [
        (theirs >> shift & 0xFFFF) % 65535 for shift in (0, 16)
    ]


@pytest.mark.parametrize("compression", [{}, {"compression": "gzip"}], ids=["raw", "gzip"])
def test_every_flipped_bit_of_every_chunk_is_found(tmp_path: Path, compression: dict[str, str]) -> None:
    path = tmp_path / "a.h5"
    data = np.random.default_rng(0).integers(0, 5, (3, 40), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("data", data=data, chunks=(1, 40), fletcher32=True, **compression)
        file.flush()
        chunks = stored_chunks(dataset, "data", path.stat().st_size)
        assert has_checksums(dataset, chunks)
    content = path.read_bytes()
    assert [chunk.chunk_offset for chunk in chunks] == [(0, 0), (1, 0), (2, 0)]
    assert len(list(checked_bytes(path, chunks, "data"))) == 3

    for number, chunk in enumerate(chunks):
        for bit in range(8 * chunk.size):
            flipped = bytearray(content)
            flipped[chunk.byte_offset + bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(FaultFound, match=f"chunk {number} of 'data'"):
                list(checked_bytes(path, chunks, "data"))


def test_data_that_is_claimed_but_not_there_is_found(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, more in (("whole", {}), ("chunked", {"chunks": (1, 8)})):
            dataset = file.create_dataset(name, shape=(10**9, 8), dtype="u1", **more)
            with pytest.raises(FaultFound, match=r"chunks|not all there"):
                stored_chunks(dataset, name, 10**6)


# ------------------------------------------------------------------ warping


def test_warping_is_bilinear_sampling_at_the_places_moved() -> None:
    rng = np.random.default_rng(0)
    frame = rng.uniform(0, 255, (30, 40)).astype(np.float32)
    places = np.stack([rng.integers(0, 40, 500), rng.integers(0, 30, 500)]).astype(np.float32)
    vectors = rng.uniform(-6, 6, (2, 500)).astype(np.float32)

    x, y = places + vectors
    expected = map_coordinates(frame.astype(np.float64), [y, x], order=1, mode="nearest")

    # OpenCV's coordinates have 5 bits behind the point: at most 1/64 px off, on slopes of up to 255 a pixel.
    assert np.abs(warp(frame, places, vectors) - expected).max() < 2 * 255 / 64 + 0.1
    whole = places + np.rint(vectors)
    inside = (whole[0] >= 0) & (whole[0] < 40) & (whole[1] >= 0) & (whole[1] < 30)
    column, row = whole[:, inside].astype(int)
    assert np.array_equal(warp(frame, places[:, inside], np.rint(vectors[:, inside])), frame[row, column])


def test_there_are_seven_ways_of_being_wrong() -> None:
    vectors = np.array([[1.0], [2.0]])
    turned = {turn.words: tuple(turn(vectors).ravel()) for turn in TRANSFORMS}

    assert turned == {
        "x negated": (-1, 2),
        "y negated": (1, -2),
        "x and y negated": (-1, -2),
        "x and y swapped": (2, 1),
        "x and y swapped, x negated": (-2, 1),
        "x and y swapped, y negated": (2, -1),
        "x and y swapped, x and y negated": (-2, -1),
    }
    assert AS_IT_IS.words == ""


BOUND = 8.0
VELOCITY = (3, 1)


def fields(turn: FlowTransform, step: int = 1, number: int = 10) -> dict[int, np.ndarray]:
    """Exact flow of a moving texture, wrong by `turn`: index -> uint8 [2, H, W]."""
    vector = step * np.array(VELOCITY, dtype=np.float32)
    flow = np.broadcast_to(turn(vector[:, None, None]), (2, 48, 64))
    return dict.fromkeys(range(number), quantise(np.ascontiguousarray(flow), BOUND))


class Frames:
    """In the place of a frames artifact."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures

    def read_one(self, index: int) -> np.ndarray:
        return self.pictures[index]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("turn", TRANSFORMS, ids=lambda turn: turn.words)
def test_each_way_of_being_wrong_is_named(turn: FlowTransform, step: int) -> None:
    frames = Frames(clip(0, VELOCITY))

    assert judge_orientation(frames, fields(AS_IT_IS, step), step, BOUND)  # type: ignore[arg-type]
    with pytest.raises(FaultFound, match="fits its frames with") as broken:
        judge_orientation(frames, fields(turn, step), step, BOUND)  # type: ignore[arg-type]
    # What puts right a swap with one sign changed is the swap with the other one changed.
    undo = FlowTransform(turn.swapped, turn.y_negated, turn.x_negated) if turn.swapped else turn
    assert f"with {undo.words}: " in broken.value.detail


def test_nothing_is_said_of_frames_that_stand_still() -> None:
    still = Frames(np.repeat(clip(0, VELOCITY)[:1], 12, axis=0))
    none = dict.fromkeys(range(10), np.full((2, 48, 64), 128, np.uint8))

    assert not judge_orientation(still, none, 1, BOUND)  # type: ignore[arg-type]


def test_pairs_with_a_cut_in_between_tell_nothing() -> None:
    before, after = clip(0, VELOCITY)[0], clip(1, VELOCITY)[0]
    evidence = Evidence()
    evidence.add(before, after, fields(AS_IT_IS)[0], BOUND)

    assert evidence.moving == 0
    evidence.add(before, clip(0, VELOCITY)[1], fields(AS_IT_IS)[0], BOUND)
    assert evidence.moving > 0
