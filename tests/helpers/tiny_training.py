"""A training of a few updates on the workspace of random artifacts, for the tests of `train`."""

from typing import Any

import pytest

from pipelines import train
from pipelines.datasets.samples import BadSample, Sample, TrainingSamples
from pipelines.storage.workspace import Workspace
from pipelines.training import session

STEPS = ("appearance", "motion", "joint1", "joint2")
TINY = {
    "appearance": {"iterations": 4, "batch_size": 4},
    "motion": {"iterations": 4, "batch_size": 4},
    "joint1": {"iterations": 4, "batch_size": 2, "frames": 2, "stride": (1, 2)},
    "joint2": {"iterations": 3, "batch_size": 2, "frames": 5, "stride": (1, 1)},
}


def config(workspace: Workspace, **changes: Any) -> train.Config:
    defaults = {"recipe": "small", "width": 4, "size": (32, 32), "overrides": TINY, "device": "cpu"}
    return train.Config(workspace.root, **(defaults | changes))


def record_gains(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the flow of every sample that is trained on from now on is multiplied by."""
    gains = []

    class Recorded(TrainingSamples):
        def make(self, *request: Any) -> Sample | BadSample:
            sample = super().make(*request)
            assert isinstance(sample, Sample)
            assert sample.flow is not None
            gains.append(sample.flow.gain)
            return sample

    monkeypatch.setattr(session, "TrainingSamples", Recorded)
    return gains
