"""Likely mislabelled videos: parity with confident learning written out, over one split and over several."""

import numpy as np
import pytest

from pipelines.analysis.label_issues import label_issues
from pipelines.evaluation.scores import Scores

CLASSES = ["a", "b", "c", "d"]


def scored(seed: int, videos: list[str], labels: np.ndarray) -> Scores:
    logits = np.random.default_rng(seed).normal(size=(len(videos), len(CLASSES)))
    logits[np.arange(len(videos)), labels] += 1.2
    return Scores(videos, labels, CLASSES, fused=logits.astype(np.float32))


def written_out(tables: list[Scores]) -> dict[str, tuple[str, str, float, float]]:
    """Sections 3.1 and 3.2 of the paper, video by video, in Python's floats."""
    tests: dict[str, list[list[float]]] = {}
    labels: dict[str, int] = {}
    for table in tables:
        for video, label, row in zip(table.videos, table.labels.tolist(), table.fused.tolist(), strict=True):
            powers = [np.exp(value) for value in row]
            tests.setdefault(video, []).append([power / sum(powers) for power in powers])
            labels[video] = label
    shares = {video: [sum(each) / len(rows) for each in zip(*rows, strict=True)] for video, rows in tests.items()}
    thresholds = {}
    for index in range(len(CLASSES)):
        of_class = [shares[video][index] for video in shares if labels[video] == index]
        if of_class:
            thresholds[index] = sum(of_class) / len(of_class)
    found = {}
    for video, values in shares.items():
        reached = [index for index, least in thresholds.items() if values[index] >= least]
        if reached and (likely := max(reached, key=lambda index: values[index])) != labels[video]:
            found[video] = CLASSES[labels[video]], CLASSES[likely], values[labels[video]], values[likely]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_videos_are_those_of_confident_learning(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, 60)  # no video of the last class
    videos = [f"{CLASSES[label]}/{index}" for index, label in enumerate(labels)]
    tables = [scored(seed, videos[:40], labels[:40]), scored(seed + 9, videos[25:], labels[25:])]  # 15 tested twice
    found = label_issues(tables, "fused")
    expected = written_out(tables)
    assert {one.video: (one.label, one.likely) for one in found} == {video: row[:2] for video, row in expected.items()}
    assert 1 < len(found) < 40
    for one in found:
        assert (one.label_probability, one.likely_probability) == pytest.approx(expected[one.video][2:], rel=1e-5)
        assert [*videos[:40], *videos[25:]].index(one.video) == one.clip
    margins = [one.likely_probability - one.label_probability for one in found]
    assert margins == sorted(margins, reverse=True)


def test_a_label_exchanged_among_sure_videos_is_found() -> None:
    labels = np.repeat(np.arange(4), 10)
    table = scored(0, [f"v{index}" for index in range(40)], labels)
    logits = table.fused * 0.1 + 5 * np.eye(4, dtype=np.float32)[labels]
    labels[7] = 2
    (one,) = label_issues([Scores(table.videos, labels, CLASSES, fused=logits)], "fused")
    assert (one.video, one.label, one.likely) == ("v7", "c", "a")
