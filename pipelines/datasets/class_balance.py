"""How evenly the videos are spread over the classes, and what that alone makes of an accuracy."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.interface.wording import percent, plural

if TYPE_CHECKING:
    import numpy as np

UNBALANCED_ABOVE = 2  # times the videos of the smallest class


@dataclass(frozen=True)
class ClassBalance:
    """Of a set of videos of known classes."""

    smallest: int
    """Videos of the class with the fewest, of those that have any."""
    median: float
    largest: int
    majority: float
    """The accuracy of whoever always answers the most frequent class: its share of the videos."""
    chance: float
    """The accuracy of guessing among all classes."""
    unbalanced: bool
    """Whether a class has more than twice the videos of another: then the mean class accuracy tells more than the share
    of all videos."""

    @classmethod
    def of(cls, videos: Mapping[str, int], classes: int) -> "ClassBalance":
        """From the numbers of videos by class, one at least, and the number of classes among which is chosen."""
        counts = [count for count in videos.values() if count]
        smallest, largest = min(counts), max(counts)
        return cls(
            smallest,
            statistics.median(counts),
            largest,
            majority=largest / sum(counts),
            chance=1 / classes,
            unbalanced=largest > UNBALANCED_ABOVE * smallest,
        )

    def sentence(self) -> str:
        """The accuracies that need no network."""
        most, chance = percent(self.majority), percent(self.chance)
        return f"always answering the most frequent class is right in {most} %, chance is {chance} %"

    def of_test(self) -> str:
        """What a reader of a test's accuracies has to know of its classes."""
        spread = f"{plural(self.largest, 'test video')} a class"
        if self.smallest < self.largest:
            spread = f"{self.smallest} to {spread} (median {self.median:g})"
        unbalanced = ", unbalanced: mean class comes first" if self.unbalanced else ""
        return f"{spread}{unbalanced}; {self.sentence()}"


def class_weights(labels: "Sequence[int] | np.ndarray", classes: int) -> "np.ndarray":
    """What the loss of a video of each class is multiplied by so that every class counts alike: float64 [classes].

    Inverse to a class's number of videos, and 1 on average over the videos, so that the loss keeps its scale. 1 for a
    class without videos.

    Args:
        labels: int [N], of the training videos.
    """
    import numpy as np

    counts = np.bincount(labels, minlength=classes)
    there = counts > 0
    return np.where(there, len(labels) / (there.sum() * np.maximum(counts, 1)), 1.0)
