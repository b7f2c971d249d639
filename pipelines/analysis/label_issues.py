"""Test videos whose label is likely wrong, by confident learning.

Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021. It needs
probabilities of networks that were not trained on the video they are given for: those of test videos.
Letters: V videos, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.metrics import Scored, softmax


@dataclass(frozen=True)
class LabelIssue:
    """A video that may show another class than its label says, with the mean probabilities of both."""

    clip: int
    """Its first test, counted through all splits."""
    video: str
    label: str
    likely: str
    label_probability: float
    likely_probability: float


def label_issues(splits: Sequence[Scored], stream: str) -> tuple[LabelIssue, ...]:
    """Finds videos for which another class than the label is as probable as for videos that have that class's label.

    A class's threshold is its mean probability over the videos labelled so. Of the classes that reach theirs for a
    video the most probable one is its likely class; where that is not the label, the video is listed. A video tested
    in several splits has the mean of its probabilities.

    Args:
        splits: Scores of test videos.

    Returns:
        The most suspect first: by how much more probable the likely class is than the label.
    """
    classes = splits[0].classes
    first: dict[tuple[str, int], int] = {}  # the first test of each video
    names = [(video, int(label)) for table in splits for video, label in zip(table.videos, table.labels, strict=True)]
    for clip, name in enumerate(names):
        first.setdefault(name, clip)
    rows = {name: row for row, name in enumerate(first)}
    row_of = np.array([rows[name] for name in names])
    sums = np.zeros((len(first), len(classes)))
    np.add.at(sums, row_of, softmax(np.concatenate([table.streams[stream] for table in splits])))
    shares = sums / np.bincount(row_of)[:, None]
    labels = np.array([label for _, label in first])
    thresholds = np.array(
        [shares[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(len(classes))]
    )
    reached = np.where(shares >= thresholds, shares, -1.0)
    likely = reached.argmax(axis=1)
    every = np.arange(len(labels))
    margin = shares[every, likely] - shares[every, labels]
    suspect = np.flatnonzero((reached.max(axis=1) >= 0) & (likely != labels))
    tested = list(first.items())
    found = []
    for row in suspect[np.argsort(-margin[suspect], kind="stable")]:
        (video, label), clip = tested[row]
        values = (float(shares[row, index]) for index in (label, likely[row]))
        found.append(LabelIssue(clip, video, classes[label], classes[likely[row]], *values))
    return tuple(found)
