"""`evaluate --dry-run`: what it counts and measures, and that it writes nothing."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines import evaluate
from pipelines.errors import StresError
from pipelines.evaluation import estimation
from pipelines.storage.hdf5 import open_file
from pipelines.storage.workspace import Workspace

TEST_VIDEOS = 2


@pytest.fixture
def workspace(trained_on_videos, tmp_path) -> Workspace:
    shutil.copytree(trained_on_videos.workspace.root, tmp_path / "work")
    return Workspace(tmp_path / "work")


def config(workspace: Workspace, **changes: Any) -> evaluate.Config:
    return evaluate.Config(workspace.root, **({"crops": 5, "device": "cpu"} | changes))


def estimate(workspace: Workspace, **changes: Any) -> estimation.EvaluationEstimate:
    result = evaluate.run(config(workspace, dry_run=True, **changes))
    assert result.evaluations == []
    assert result.estimate is not None
    return result.estimate


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file and folder: when it was changed, and what it holds."""
    paths = [folder, *folder.rglob("*")]
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


class Clock:
    """A clock by which the videos take so many seconds, one after the other."""

    def __init__(self, *durations: float) -> None:
        self.durations = [0.0, *durations]
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += self.durations.pop(0)
        return self.now


def test_nothing_is_written(workspace):
    workspace.dataset_file.unlink()
    workspace.frames_file("wave", "wave2").write_bytes(b"damaged")  # would be a row of failures.csv
    before = contents(workspace.root)
    assert estimate(workspace).videos == TEST_VIDEOS - 1
    assert contents(workspace.root) == before


def test_the_estimate_is_the_mean_video_times_the_videos(workspace, monkeypatch):
    monkeypatch.setattr(estimation, "time", Clock(9, 2))  # the first video warms up
    cost = estimate(workspace)
    assert (cost.videos, cost.seconds_per_video, cost.measured_videos) == (TEST_VIDEOS, 2, 1)
    assert cost.hours == 2 * TEST_VIDEOS / 3600


def test_videos_to_recalibrate_with_count_too(workspace, monkeypatch):
    monkeypatch.setattr(estimation, "time", Clock(9, 2))
    cost = estimate(workspace, recalibrate_bn=3)
    assert cost.recalibrated == 3
    assert cost.hours == 2 * (TEST_VIDEOS + 3) / 3600


@pytest.mark.parametrize("changes", [{}, {"step": "motion"}, {"views": ("full", "center")}], ids=str)
def test_the_size_is_that_of_the_scores(workspace, changes):
    cost = estimate(workspace, **changes)
    left = evaluate.run(config(workspace, **changes)).evaluations
    sizes = [(evaluation.folder / "scores.h5").stat().st_size for evaluation in left]
    assert cost.gigabytes * 1e9 == pytest.approx(sum(sizes), rel=0.1)


def test_videos_that_cannot_be_read_are_not_measured(workspace):
    for class_name in ("jump", "wave"):
        file = workspace.flow_file(class_name, f"{class_name}2")
        with open_file(file) as artifact:
            start = artifact["flow"].id.get_chunk_info(0).byte_offset
        content = bytearray(file.read_bytes())
        content[start : start + 100] = bytes(100)
        file.write_bytes(content)
    result = evaluate.run(config(workspace, dry_run=True))
    cost = result.estimate
    assert cost is not None
    assert (cost.measured_videos, cost.hours, cost.gigabytes, result.failed) == (0, 0, 0, 2)
    assert not workspace.failures_file.exists()


@pytest.mark.parametrize(
    "changes", [{"run": "nowhere"}, {"step": "joint3"}, {"crops": 2}, {"precision": "fp16"}, "no flow"], ids=str
)
def test_it_refuses_what_testing_refuses_in_the_same_words(workspace, changes):
    if changes == "no flow":
        changes = {}
        for class_name in ("jump", "wave"):
            workspace.flow_file(class_name, f"{class_name}2").unlink()
    errors = []
    for dry_run in (True, False):
        with pytest.raises(StresError) as refused:
            evaluate.run(config(workspace, dry_run=dry_run, **changes))
        errors.append((type(refused.value), str(refused.value)))
    assert errors[0] == errors[1]
