"""A training of a few updates on the workspace of random artifacts, for the tests of `train`."""

from typing import Any

from pipelines import train
from pipelines.storage.workspace import Workspace

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
