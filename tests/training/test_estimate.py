"""`train --dry-run`: what it counts and measures, and that it writes nothing."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pipelines import train
from pipelines.errors import Interrupted, StresError
from pipelines.runtime.progress import Progress
from pipelines.storage.workspace import Workspace
from pipelines.training import estimation
from pipelines.training.runs import Run
from tests.helpers import tiny_training
from tests.helpers.tiny_training import STEPS


def config(workspace: Workspace, **changes: Any) -> train.Config:
    return tiny_training.config(workspace, **({"steps": STEPS} | changes))


def estimate(workspace: Workspace, **changes: Any) -> estimation.Estimate:
    result = train.run(config(workspace, dry_run=True, **changes))
    assert result.steps == []
    assert result.estimate is not None
    return result.estimate


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file and folder: when it was changed, and what it holds."""
    paths = [folder, *folder.rglob("*")]
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


def stop_in(workspace: Workspace, step: str, updates: int) -> None:
    """Leaves a run that was stopped after so many updates of a step."""

    def stop(progress: Progress) -> None:
        if (progress.phase, progress.done) == (f"train {step}", updates):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train.run(config(workspace), stop)


class Clock:
    """A clock by which each update takes as long as the next of `durations` says; the last again and again."""

    def __init__(self, *durations: float) -> None:
        self.durations = [0.0, *durations]
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += self.durations.pop(0) if len(self.durations) > 1 else self.durations[0]
        return self.now


# ------------------------------------------------------------------ what it leaves alone


def test_nothing_is_written_not_even_splits_and_the_catalogue(workspace):
    shutil.rmtree(workspace.splits)
    before = contents(workspace.root)
    assert [step.step for step in estimate(workspace).steps] == list(STEPS)
    assert contents(workspace.root) == before


def test_a_damaged_video_is_told_and_becomes_no_row_of_failures(workspace):
    file = workspace.flow_file("jump", "jump1")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    file.write_bytes(content)
    assert train.run(config(workspace, dry_run=True, steps=("motion",))).failed == 1
    assert not workspace.failures_file.exists()


@pytest.mark.parametrize("changes", [{}, {"overwrite": True}, {"seed": 1, "overwrite": True}])
def test_an_unfinished_run_is_left_as_it_is(workspace, changes):
    stop_in(workspace, "motion", 3)
    before = contents(workspace.root)
    estimate(workspace, **changes)
    assert contents(workspace.root) == before


# ------------------------------------------------------------------ what it counts


def test_every_step_has_its_videos_and_updates(workspace):
    steps = estimate(workspace).steps
    assert [(step.step, step.videos, step.updates, step.done, step.batch_size) for step in steps] == [
        ("appearance", 6, 4, 0, 4),
        ("motion", 6, 4, 0, 4),
        ("joint1", 6, 4, 0, 2),
        ("joint2", 6, 3, 0, 2),
    ]


def test_updates_of_epochs_are_counted_as_they_are_trained(workspace):
    overrides = {"motion": {"iterations": None, "epochs": 5, "factor": 1, "batch_size": 4}}
    updates = estimate(workspace, steps=("motion",), overrides=overrides).steps[0].updates
    assert updates == train.run(config(workspace, steps=("motion",), overrides=overrides)).steps[0].iterations == 10


def test_an_interrupted_run_is_counted_from_its_checkpoint(workspace):
    stop_in(workspace, "motion", 3)
    cost = estimate(workspace)
    assert cost.finished == ["appearance"]
    assert [(step.step, step.done, step.updates) for step in cost.steps] == [
        ("motion", 3, 1),
        ("joint1", 0, 4),
        ("joint2", 0, 3),
    ]


def test_with_overwrite_everything_is_still_to_do(workspace):
    stop_in(workspace, "motion", 3)
    cost = estimate(workspace, overwrite=True)
    assert cost.finished == []
    assert [(step.step, step.done) for step in cost.steps] == [(step, 0) for step in STEPS]


def test_a_finished_run_costs_nothing(workspace):
    train.run(config(workspace, steps=("motion",)))
    cost = estimate(workspace, steps=("motion",))
    assert (cost.steps, cost.finished, cost.hours, cost.gigabytes) == ([], ["motion"], 0, 0)


# ------------------------------------------------------------------ what it measures


def test_the_estimate_is_the_median_update_times_the_updates(workspace, monkeypatch):
    monkeypatch.setattr(estimation, "time", Clock(50, 2, 4, 3))  # the first update warms up
    overrides = {"motion": {"iterations": 4, "batch_size": 4, "micro_batch": 4}}
    monkeypatch.setattr(estimation, "_SECONDS", 100)
    cost = estimate(workspace, steps=("motion",), overrides=overrides)
    step = cost.steps[0]
    assert (step.seconds_per_update, step.measured_updates) == (3, 3)
    assert cost.hours == step.hours == 3 * 4 / 3600


@pytest.mark.parametrize(
    ("durations", "measured"),
    [
        ([1.0, 0.01], 20),  # as many as are enough
        ([5.0, 9.0], 3),  # as long as is enough
        ([30.0, 30.0], 1),  # an update so long is not waited for twice
        ([19.0, 50.0], 1),
    ],
)
def test_measuring_ends_after_20_updates_or_20_seconds(workspace, monkeypatch, durations, measured):
    monkeypatch.setattr(estimation, "time", Clock(*durations))
    overrides = {"motion": {"iterations": 100, "batch_size": 2}}
    step = estimate(workspace, steps=("motion",), overrides=overrides).steps[0]
    assert step.measured_updates == measured
    assert step.seconds_per_update == pytest.approx(durations[-1])
    assert step.hours == pytest.approx(durations[-1] * 100 / 3600)


def test_a_single_update_is_measured_warm_up_and_all(workspace, monkeypatch):
    monkeypatch.setattr(estimation, "time", Clock(7))
    step = estimate(workspace, steps=("motion",), overrides={"motion": {"iterations": 1}}).steps[0]
    assert (step.measured_updates, step.seconds_per_update) == (1, 7)


def test_sizes_are_those_of_the_files_that_the_run_leaves(workspace):
    cost = estimate(workspace)
    run = Run(workspace.runs / "split1")
    stop_in(workspace, "joint1", 2)
    checkpoint = run.checkpoint_file("joint1").stat().st_size
    train.run(config(workspace))
    weights = {step: run.weights_file(step).stat().st_size for step in STEPS}

    by_name = {step.step: step for step in cost.steps}
    assert by_name["joint1"].checkpoint_gigabytes * 1e9 == pytest.approx(checkpoint, rel=0.1)
    for name, size in weights.items():
        assert by_name[name].weights_gigabytes * 1e9 == pytest.approx(size, rel=0.1)
    assert cost.gigabytes * 1e9 == pytest.approx(sum(weights.values()), rel=0.1)


def test_the_most_disk_is_taken_while_the_last_checkpoint_is_replaced(workspace):
    cost = estimate(workspace)
    before = sum(step.weights_gigabytes for step in cost.steps[:-1])
    assert cost.peak_gigabytes == pytest.approx(before + 2 * cost.steps[-1].checkpoint_gigabytes)
    assert 0.01 < cost.memory_gigabytes < 100


# ------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    "changes",
    [
        {"split": 7},
        {"precision": "fp16"},
        {"width": 8},
        {"seed": 1},
        {"splits": Path("nowhere")},
        {"base_run": "nowhere", "steps": ("joint1",)},
        {"weights": "nowhere.pth", "overwrite": True},
        {"weights": "imagenet", "overwrite": True},
        {"weights": "run:split1", "overwrite": True},
        {"steps": ("joint1",), "name": "other"},
        {"steps": ("joint1",), "overwrite": True},
    ],
    ids=str,
)
def test_it_refuses_what_training_refuses_in_the_same_words(workspace, changes):
    train.run(config(workspace, steps=("appearance", "motion")))
    before = contents(workspace.root)
    with pytest.raises(StresError) as dry:
        estimate(workspace, **changes)
    assert contents(workspace.root) == before
    with pytest.raises(StresError) as real:
        train.run(config(workspace, **changes))
    assert (type(dry.value), str(dry.value)) == (type(real.value), str(real.value))


def test_a_checkpoint_that_does_not_load_is_refused(workspace):
    stop_in(workspace, "motion", 2)
    file = Run(workspace.runs / "split1").checkpoint_file("motion")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(StresError, match=r"motion/checkpoint\.pt does not load"):
        estimate(workspace)


def test_missing_weights_of_imagenet_are_not_downloaded(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("pipelines.models.weights._download", lambda url, path: pytest.fail(f"downloads {url}"))
    overrides = {"appearance": {"iterations": 1, "batch_size": 2}}
    cost = estimate(workspace, steps=("appearance",), overrides=overrides, weights="imagenet", depth=50, width=64)
    assert cost.steps[0].weights_gigabytes * 1e9 == pytest.approx(94e6, rel=0.01)  # 23.5 million float32 weights
    assert not (tmp_path / "torch").exists()


def test_splits_that_are_not_written_are_those_that_would_be(workspace):
    from pipelines.datasets.catalogue import load_catalogue
    from pipelines.datasets.splits import prepare_splits

    shutil.rmtree(workspace.splits)
    catalogue = load_catalogue(workspace)
    planned = prepare_splits(workspace, catalogue, seed=3, write=False)
    assert not workspace.splits.exists()
    made = prepare_splits(workspace, catalogue, seed=3)
    assert [(s.number, sorted(s.train), sorted(s.test)) for s in planned] == [
        (s.number, sorted(s.train), sorted(s.test)) for s in made
    ]
    assert json.loads((workspace.splits / "splits.json").read_text())["seed"] == 3
