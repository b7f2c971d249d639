"""Which frames and fields of a video a prediction looks at.

Letters: N frames of a span, T centers, L flow fields of a stack.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.datasets.artifact_reader import Pixels
from pipelines.datasets.sampling import flow_indices, spaced_centers
from pipelines.optical_flow.store import require_pairs
from pipelines.prediction.flow import FlowOnDemand
from pipelines.storage.jpeg import as_stored


@dataclass(frozen=True)
class FramePlan:
    """What the test of a span of a video, taken for a clip of its own, is made of; all indices are the video's.

    centers  RGB frames: int64 [T]
    stacks   flow fields: int64 [T, L]
    """

    centers: np.ndarray
    stacks: np.ndarray
    step: int
    streams: frozenset[str]

    @classmethod
    def of(cls, start: int, length: int, *, crops: int, stack: int, step: int, streams: frozenset[str]) -> "FramePlan":
        """Those of the `length` frames from `start` on: the centers of `evaluate`, and their stacks.

        Raises `VideoError` where they have no flow.
        """
        if "motion" in streams:
            require_pairs(length, step)
        centers = spaced_centers(length, crops, stack, step)
        stacks = np.stack([flow_indices(int(center), max(length - step, 1), stack) for center in centers])
        return cls(start + centers, start + stacks, step, streams)

    def frames(self) -> set[int]:
        """The frames that have to be decoded to pixels."""
        needed: set[int] = set()
        if "appearance" in self.streams:
            needed.update(self.centers.tolist())
        if "motion" in self.streams:
            needed.update(self.stacks.ravel().tolist(), (self.stacks.ravel() + self.step).tolist())
        return needed

    def pixels(self, frames: Mapping[int, np.ndarray], flow: FlowOnDemand) -> Pixels:
        """What `reading.VideoReader` reads of stored artifacts, made from decoded frames.

        Frames go through the JPEG that they would be stored as: so a prediction is the evaluation's.
        """
        pictures = fields = None
        distinct, frame_places = np.unique(self.centers, return_inverse=True)
        if "appearance" in self.streams:
            pictures = np.stack([as_stored(frames[int(index)]) for index in distinct])
        numbers, stack_places = np.unique(self.stacks, return_inverse=True)
        if "motion" in self.streams:
            fields = flow.fields(numbers)
        return Pixels(pictures, frame_places, fields, stack_places.reshape(self.stacks.shape))
