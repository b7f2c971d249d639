"""Small workspaces: one of random artifacts, and one made of videos by the commands and trained."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.workspace import Workspace

CLASSES = ("jump", "wave")
FRAMES, HEIGHT, WIDTH = 16, 32, 40


def write_artifacts(workspace: Workspace, class_name: str, video: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    about = {
        "fps": 25.0,
        "source": f"{video}.avi",
        "source_sha256": video,
        "source_frames": FRAMES,
        "short_side": HEIGHT,
    }
    about |= {"width": WIDTH, "height": HEIGHT}
    with new_frames_file(workspace.frames_file(class_name, video)) as frames:
        for _ in range(FRAMES):
            frames.append(cv2.imencode(".jpg", rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))[1])
        frames.finish(about)
    settings = {"method": "farneback", "method_parameters": json.dumps({}), "bound": 20.0, "step": 1}
    with new_flow_file(workspace.flow_file(class_name, video)) as flow:
        flow.append(rng.integers(0, 256, (FRAMES - 1, 2, HEIGHT, WIDTH), dtype=np.uint8))
        flow.finish(about | settings | {"flow_input": "video"})


def write_workspace(root: Path) -> Workspace:
    """Two classes of five videos: three of each train, two test."""
    workspace = Workspace(root)
    ids = []
    for label, class_name in enumerate(CLASSES):
        for number in range(5):
            write_artifacts(workspace, class_name, f"{class_name}{number}", 10 * label + number)
            ids.append(f"{class_name}/{class_name}{number}")
    train = [id_ for id_ in ids if id_[-1] in "012"]
    test = [id_ for id_ in ids if id_[-1] in "34"]
    write_splits(workspace.splits, [Split(1, train, test, list(CLASSES), "test")])
    return workspace


@dataclass(frozen=True)
class Trained:
    """Videos, and a workspace made of them by the commands: the run `split1` with all five steps."""

    workspace: Workspace
    videos: Path

    def video(self, id_: str) -> Path:
        return self.videos / f"{id_}.mkv"


_FEW = {"iterations": 2, "lr": 1e-4}  # at larger rates two updates can make logits of millions, without sense
TINY_STEPS = {
    "appearance": {"batch_size": 4, **_FEW},
    "motion": {"batch_size": 4, **_FEW},
    "joint1": {"batch_size": 2, "frames": 2, "stride": (1, 2), **_FEW},
    "joint2": {"batch_size": 2, "frames": 5, "stride": (1, 1), **_FEW},
    "student": {"batch_size": 2, "frames": 5, "stride": (2, 2), **_FEW},
}


def train_on_videos(root: Path) -> Trained:
    """Two classes of three lossless clips of 24 frames, 40x32 pixels: two of each train, one tests.

    The camera's motion is subtracted, so that everything made of this run has to do the same.
    """
    from pipelines import extract_flow, extract_frames, train
    from pipelines.video.synthetic import write_video

    workspace, ids = Workspace(root / "work"), []
    for label, class_name in enumerate(CLASSES):
        for number in range(3):
            noise = np.random.default_rng(10 * label + number).integers(0, 256, (8, 16, 3), dtype=np.uint8)
            texture = cv2.resize(noise, (64, 32), interpolation=cv2.INTER_CUBIC)
            clip = np.stack([np.roll(texture, (2 * label - 1) * t, axis=1)[:, :40] for t in range(24)])
            ids.append(f"{class_name}/{class_name}{number}")
            path = root / "clips" / f"{ids[-1]}.mkv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, clip, codec="ffv1", pixels="bgr0")
    extract_frames.run(extract_frames.Config(workspace.root, str(root / "clips"), workers=1))
    options = {"method": "farneback", "method_options": {"winsize": "9"}, "bound": 4.0, "workers": 1}
    extract_flow.run(extract_flow.Config(workspace.root, str(root / "clips"), **options))
    train_ids, test_ids = ([id_ for id_ in ids if id_[-1] in numbers] for numbers in ("01", "2"))
    write_splits(workspace.splits, [Split(1, train_ids, test_ids, list(CLASSES), "test")])
    settings = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "camera_motion": "median"}
    train.run(train.Config(workspace.root, steps=tuple(TINY_STEPS), overrides=TINY_STEPS, **settings))
    return Trained(workspace, root / "clips")
