"""Videos whose middle frames look the same, and that a split has in training and in test.

A frame's fingerprint is the mean grey value of each of 16x16 cells. Two frames are near-identical where no cell differs
by more than `MOST` of 255: another size or compression changes less, another clip before the same background more
(docs/reports.md has the measurement). Letters: V videos.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError
from pipelines.storage.workspace import Workspace, is_plain_name

CELLS = 16  # along a side
MOST = 12  # grey levels
_FLAT = 4  # grey levels that the cells' standard deviation must exceed: black frames are no duplicates
_COARSE = 4  # cells along a side, by whose means pairs are sought


@dataclass(frozen=True)
class NearDuplicate:
    """Two videos with near-identical middle frames."""

    first: str
    """A test video, if they stand on both sides of a split."""
    second: str
    difference: int
    """Of the cell that differs most, in grey levels."""
    leaks: tuple[int, ...]
    """The splits that test the first and train on the second."""

    @property
    def same_class(self) -> bool:
        """Whether both are of one class."""
        return self.first.partition("/")[0] == self.second.partition("/")[0]


def fingerprint(picture: np.ndarray) -> np.ndarray:
    """The grey values of RGB uint8 [H, W, 3] in `CELLS` x `CELLS` cells: uint8 [cells * cells]."""
    import cv2

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel()


def near_pairs(prints: np.ndarray) -> list[tuple[int, int, int]]:
    """Finds near-identical frames.

    Args:
        prints: `fingerprint` of each: uint8 [V, cells * cells].

    Returns:
        Pairs of indices, the first the lower, and how much they differ, in order.
    """
    from scipy.spatial import KDTree

    values = prints.astype(np.int16)
    # What no cell differs by, no mean of cells does.
    parts = CELLS // _COARSE
    coarse = values.reshape(-1, _COARSE, parts, _COARSE, parts).mean(axis=(2, 4)).reshape(len(values), -1)
    pairs = KDTree(coarse).query_pairs(MOST + 1e-6, p=np.inf, output_type="ndarray")
    found = []
    for some in np.array_split(pairs, len(pairs) // 10_000 + 1):
        differences = np.abs(values[some[:, 0]] - values[some[:, 1]]).max(axis=1, initial=0)
        kept = differences <= MOST
        found += [(int(a), int(b), int(d)) for (a, b), d in zip(some[kept], differences[kept], strict=True)]
    flat = values.std(axis=1) <= _FLAT
    return sorted((a, b, d) for a, b, d in found if not (flat[a] or flat[b]))


def near_duplicates(
    workspace: Workspace,
    splits: Sequence[tuple[int, Iterable[str], Iterable[str]]],
    on_video: Callable[[int, int], None],
) -> tuple[NearDuplicate, ...]:
    """Compares the middle frames of all videos of the splits that the workspace holds frames of.

    Args:
        splits: Of each its number, and the ids of its training and test videos.
        on_video: Called as `on_video(done, total)`.

    Returns:
        First the pairs that a split has on both sides, then those it has on one; the least different first.
    """
    sides = [(number, set(train), set(test)) for number, train, test in splits]
    names, prints = [], []
    every = sorted(set().union(*(train | test for _, train, test in sides)))
    for done, name in enumerate(every, 1):
        class_name, _, video = name.partition("/")
        try:
            if is_plain_name(class_name) and is_plain_name(video):
                with FrameFile(workspace.frames_file(class_name, video)) as frames:
                    prints.append(fingerprint(frames.read_one(len(frames) // 2)))
                names.append(name)
        except ArtifactError:
            pass  # absent or damaged: `verify` tells
        on_video(done, len(every))
    if not prints:
        return ()
    found = []
    for a, b, difference in near_pairs(np.array(prints)):
        leaks = {
            pair: tuple(number for number, train, test in sides if pair[0] in test and pair[1] in train)
            for pair in ((names[a], names[b]), (names[b], names[a]))
        }
        pairs = [(pair, numbers) for pair, numbers in leaks.items() if numbers] or [((names[a], names[b]), ())]
        found += [NearDuplicate(*pair, difference, numbers) for pair, numbers in pairs]
    return tuple(sorted(found, key=lambda one: (not one.leaks, one.difference)))


def joined_groups(groups: Mapping[str, str], pairs: Iterable[NearDuplicate]) -> dict[str, str]:
    """The group of each video, as `train --groups` takes it, where those of near duplicates have become one.

    Args:
        groups: Of each video so far, by id.
        pairs: The near duplicates among them.
    """
    from scipy.cluster.hierarchy import DisjointSet

    sets = DisjointSet(groups.values())
    for one in pairs:
        sets.merge(groups[one.first], groups[one.second])
    return {video: sets[group] for video, group in groups.items()}
