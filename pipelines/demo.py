"""Stage `demo`: runs every other stage on a synthetic data set, to see the whole tool work within minutes.

Everything is left in `<workspace>/demo`, which is a workspace like any other, with the videos in `videos/`.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import evaluate, extract_flow, extract_frames, report, train
from pipelines.errors import UsageError
from pipelines.interface import options
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress
from pipelines.storage.atomic import locked, write_text
from pipelines.storage.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.datasets.split_lists import Split

TRAIN_CLIPS, TEST_CLIPS = 24, 6  # a class; 9 classes: 216 and 54 clips
FLOW_BOUND = 2.0  # pixels; the balls move by at most 1.2 a frame
SPLIT = 1

# What training takes here, found by trying: seconds, not minutes, on two cores.
# The recipe would hold a tenth of the clips out, of which the network needs every one.
NETWORK: dict[str, Any] = {"recipe": "small", "depth": 26, "width": 8, "size": (64, 64), "validation": 0.0}
OVERRIDES: dict[str, dict[str, Any]] = {
    "appearance": {"iterations": 150, "lr": 0.02, "dropout": 0.2},
    "motion": {"iterations": 100, "lr": 0.02, "dropout": 0.2},
    "joint1": {"iterations": 140, "lr": 0.004, "frames": 5, "stride": (1, 3), "dropout": 0.2},
}


@dataclass(frozen=True)
class Config:
    """Settings of `demo`."""

    workspace: options.WorkspaceFolder = options.DEFAULT_WORKSPACE
    seed: options.Seed = 0
    device: options.DeviceName = "auto"
    workers: options.Workers = 0

    def __post_init__(self) -> None:
        options.check(self)


@dataclass(frozen=True)
class Result:
    """The demo's numbers; accuracies are as in `results.json`."""

    workspace: Path
    seed: int
    classes: list[str]
    train_videos: int
    test_videos: int
    appearance: dict[str, Any]
    """Of the stream trained alone, as is `motion`."""
    motion: dict[str, Any]
    late_fusion: dict[str, Any]
    """Of the mean of their logits."""
    fused: dict[str, Any]
    """Of the paper's joint network."""
    report: report.Result
    seconds: dict[str, float]


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Makes the clips, extracts frames and flow, trains, tests and reports.

    The same call again continues where it stopped.

    Raises:
        UsageError: The folder holds the demo of another seed.
        StresError: What the stages raise.
    """
    from pipelines.datasets.splits import write_splits
    from pipelines.video.synthetic import CLASSES, write_clips

    workspace = Workspace(config.workspace / "demo")
    videos = workspace.root / "videos"
    seconds: dict[str, float] = {}
    started = time.monotonic()
    seed_file = workspace.root / "seed.txt"
    before = seed_file.read_text(encoding="utf-8").strip() if seed_file.exists() else str(config.seed)
    if before != str(config.seed):  # clips of two seeds must not be mixed
        raise UsageError(
            f"{workspace.root} holds the demo of seed {before}: delete that folder, or name another --workspace"
        )
    write_text(seed_file, f"{config.seed}\n")

    def lap(stage: str) -> None:
        seconds[stage] = round(time.monotonic() - started - sum(seconds.values()), 1)

    on_progress(Progress("make clips", 0, 1, "data set"))
    write_clips(videos, TRAIN_CLIPS + TEST_CLIPS, config.seed)
    with locked(workspace.root):
        write_splits(workspace.splits, [clip_split(TRAIN_CLIPS, TEST_CLIPS, "stres demo")])
    on_progress(Progress("make clips", 1, 1, "data set"))
    lap("make clips")
    shared: dict[str, Any] = {"workspace": workspace.root, "workers": config.workers}
    extract_frames.run(extract_frames.Config(videos=str(videos), **shared), on_progress)
    lap("extract-frames")
    extract_flow.run(
        extract_flow.Config(videos=str(videos), method="farneback", bound=FLOW_BOUND, **shared), on_progress
    )
    lap("extract-flow")
    shared = {"workspace": workspace.root, "device": config.device, "workers": 1}
    with _one_thread():
        trained = train.run(
            train.Config(split=SPLIT, overrides=OVERRIDES, seed=config.seed, **NETWORK, **shared), on_progress
        )
        lap("train")
        late, joint = (
            evaluate.run(evaluate.Config(run=trained.run, step=step, **shared), on_progress)
            for step in ("late", "joint1")
        )
        lap("evaluate")
    reported = report.run(report.Config(workspace=workspace.root, run=trained.run), on_progress)
    lap("report")
    return Result(
        workspace=workspace.root,
        seed=config.seed,
        classes=list(CLASSES),
        train_videos=trained.train_videos,
        test_videos=joint.results["videos"],
        appearance=late.results["appearance"],
        motion=late.results["motion"],
        late_fusion=late.results["fused"],
        fused=joint.results["fused"],
        report=reported,
        seconds=seconds,
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread computes while a loader process reads: in a network this small, two threads wait for each other more
    than they compute (an update of the appearance step on two cores: 0.06 s with one thread, 0.11 s with two)."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def clip_split(train_clips: int, test_clips: int, source: str) -> "Split":
    """The first `train_clips` of every class of synthetic clips train, the `test_clips` after them test."""
    from pipelines.datasets.split_lists import Split
    from pipelines.video.synthetic import CLASSES

    def ids(numbers: range) -> list[str]:
        return [f"{name}/{name}_{number:03d}" for name in sorted(CLASSES) for number in numbers]

    train_ids, test_ids = ids(range(train_clips)), ids(range(train_clips, train_clips + test_clips))
    return Split(SPLIT, train_ids, test_ids, sorted(CLASSES), source)
