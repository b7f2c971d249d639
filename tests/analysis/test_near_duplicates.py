"""Near-identical middle frames: parity with all pairs compared, what compression changes, and sides of splits."""

import cv2
import numpy as np

from pipelines.analysis.near_duplicates import (
    MOST,
    NearDuplicate,
    fingerprint,
    joined_groups,
    near_duplicates,
    near_pairs,
)
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.workspace import Workspace


def picture(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def test_pairs_are_those_of_all_comparisons() -> None:
    chance = np.random.default_rng(0)
    bases = chance.integers(20, 230, (40, 256))
    prints = np.repeat(bases, 5, axis=0) + chance.integers(-9, 10, (200, 256)) * (np.arange(200) % 5 > 1)[:, None]
    prints = np.vstack([prints, np.full((3, 256), 7)]).astype(np.uint8)  # black frames are no duplicates
    expected = []
    for a in range(200):
        for b in range(a + 1, 200):
            worst = int(np.abs(prints[a].astype(int) - prints[b]).max())
            if worst <= MOST:
                expected.append((a, b, worst))
    assert near_pairs(prints) == expected
    assert len(expected) > 40


def test_another_size_and_compression_is_near_and_another_picture_is_not() -> None:
    first = fingerprint(picture(1)).astype(int)
    small = cv2.resize(picture(1), (80, 60), interpolation=cv2.INTER_AREA)
    again = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
    assert abs(first - fingerprint(again)).max() <= MOST
    assert abs(first - fingerprint(picture(2))).max() > 3 * MOST


def test_duplicates_on_both_sides_of_a_split_come_first(tmp_path) -> None:
    workspace = Workspace(tmp_path / "work")
    for name, seed in {"a/v0": 1, "a/v1": 2, "b/v2": 1, "b/v3": 2, "b/v4": 3}.items():
        with new_frames_file(workspace.frames_file(*name.split("/"))) as frames:
            shown = picture(seed)[..., ::-1]
            for shade in (0, 1, 0):  # the middle one counts
                frames.append(cv2.imencode(".jpg", shown * shade)[1].ravel())
            frames.finish({"source_sha256": name})
    splits = [(1, ["a/v0", "a/v1", "b/v3"], ["b/v2", "b/v4", "b/absent"]), (2, ["b/v2", "a/v1", "b/v3"], ["a/v0"])]
    done = []
    found = near_duplicates(workspace, splits, lambda *counts: done.append(counts))
    assert [(one.first, one.second, one.leaks, one.same_class) for one in found] == [
        ("a/v0", "b/v2", (2,), False),
        ("b/v2", "a/v0", (1,), False),
        ("a/v1", "b/v3", (), False),
    ]
    assert done[-1] == (6, 6)


def test_groups_of_near_duplicates_become_one() -> None:
    chance = np.random.default_rng(0)
    groups = {f"a/v{video}": f"g{video // 2}" for video in range(60)}
    pairs = [NearDuplicate(f"a/v{one}", f"a/v{other}", 0, ()) for one, other in chance.integers(0, 60, (25, 2))]
    together = np.eye(60, dtype=int)
    for one, other in [(video, video ^ 1) for video in range(60)] + [
        (int(pair.first[3:]), int(pair.second[3:])) for pair in pairs
    ]:
        together[one, other] = together[other, one] = 1
    reached = np.linalg.matrix_power(together.astype(object), 60) > 0  # along any chain
    found = np.array(list(joined_groups(groups, pairs).values()))
    assert list(joined_groups(groups, pairs)) == list(groups)
    np.testing.assert_array_equal(found[:, None] == found, reached)
    assert 1 < len(set(found)) < 30
