"""Stopping and continuing: by signals, by kill -9 in the worst moment, and with checkpoints that do not fit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import train
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.errors import Interrupted, MissingError, UsageError
from pipelines.models import STResNet
from pipelines.runtime.progress import Progress, ignore_progress
from pipelines.storage.workspace import Workspace
from pipelines.training import loop, preparation, session
from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA, load, save
from pipelines.training.runs import Run, load_network, only_trainer
from pipelines.verification.runs import FolderTask

STEPS = ("appearance", "motion", "joint1", "joint2", "student")
TINY = {  # six training videos: an epoch has two batches, or three
    "appearance": {"iterations": 4, "batch_size": 4},
    "motion": {"iterations": 4, "batch_size": 4, "micro_batch": 2},
    "joint1": {"iterations": 4, "batch_size": 2, "frames": 2, "stride": (1, 2)},
    "joint2": {"iterations": 3, "batch_size": 2, "frames": 5, "stride": (1, 1), "freeze": 2, "flow_scale": 1.5},
    "student": {"iterations": 3, "batch_size": 2, "frames": 5, "stride": (1, 1)},
}


def config(root: Path, **changes: Any) -> train.Config:
    defaults = {"recipe": "small", "width": 4, "size": (32, 32), "overrides": TINY, "device": "cpu", "steps": STEPS}
    return train.Config(root, **(defaults | changes))


def weights(run_folder: Path, step: str) -> dict[str, torch.Tensor]:
    return load(Run(run_folder).weights_file(step), WEIGHTS_SCHEMA)["model"]


def metrics(run_folder: Path) -> list[dict[str, Any]]:
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def assert_same(workspace: Workspace, one: str, other: str, steps: tuple[str, ...]) -> None:
    """Both runs have the same weights, bit for bit, and wrote the same metrics."""
    for step in steps:
        ours, others = (weights(workspace.runs / name, step) for name in (one, other))
        assert ours.keys() == others.keys()
        for name, value in ours.items():
            assert torch.equal(value, others[name]), f"{step} {name}"
    assert metrics(workspace.runs / one) == metrics(workspace.runs / other)


class SignalAfter:
    """Sends this process a signal when a step has done so many updates."""

    def __init__(self, step: str, updates: int, number: int) -> None:
        self.at, self.number = (f"train {step}", updates), number

    def __call__(self, progress: Progress) -> None:
        if (progress.phase, progress.done) == self.at:
            os.kill(os.getpid(), self.number)


STOPS = [
    ("appearance", 1, signal.SIGTERM),
    ("motion", 3, signal.SIGINT),
    ("joint1", 2, signal.SIGTERM),
    ("joint2", 2, signal.SIGINT),
    ("student", 1, signal.SIGTERM),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_stopped_amid_an_epoch_of_every_step_continues_to_the_same_bits(workspace, precision):
    train.run(config(workspace.root, name="whole", precision=precision))
    for step, updates, number in STOPS:
        with pytest.raises(Interrupted) as stop:
            train.run(config(workspace.root, name="parts", precision=precision), SignalAfter(step, updates, number))
        assert stop.value.exit_code == 128 + number
        assert load(workspace.runs / "parts" / step / "checkpoint.pt", CHECKPOINT_SCHEMA)["iteration"] == updates
        torch.manual_seed(updates)  # whatever happens in between
    train.run(config(workspace.root, name="parts", precision=precision))
    assert_same(workspace, "whole", "parts", STEPS)


def test_a_run_is_continued_by_its_name_alone_to_the_same_bits(workspace, tmp_path, monkeypatch):
    sides = [[f"{name}/{name}{number}" for name in ("jump", "wave") for number in numbers] for numbers in ("012", "34")]
    lists = [Split(number, *one, ["jump", "wave"], "test") for number, one in ((1, sides), (2, sides[::-1]))]
    write_splits(tmp_path / "halves", lists)
    step = {"appearance": {"iterations": 3, "batch_size": 4, "lr": 0.02, "dropout": 0.1}}
    asked = {"split": 2, "splits": tmp_path / "halves", "seed": 3, "balance": "sampler", "precision": "bf16"}
    asked |= {"steps": ("appearance",), "overrides": step}
    train.run(config(workspace.root, name="whole", **asked))
    with pytest.raises(Interrupted):
        train.run(config(workspace.root, name="mine", **asked), SignalAfter("appearance", 1, signal.SIGTERM))
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("halves")
    Path("halves").mkdir()  # which is not the set of splits of that name
    train.run(train.Config(workspace.root, name="mine", device="cpu"))
    assert_same(workspace, "whole", "mine", ("appearance",))
    whole, mine = (Run(workspace.runs / name).config() for name in ("whole", "mine"))
    assert (whole, whole.split, whole.split_set) == (mine, 2, "halves")


def test_a_signal_during_the_last_update_ends_the_run_after_that_step(workspace):
    with pytest.raises(Interrupted):
        train.run(config(workspace.root), SignalAfter("appearance", 4, signal.SIGTERM))
    assert Run(workspace.runs / "split1").finished() == ["appearance"]
    assert not (workspace.runs / "split1" / "motion").exists()


@pytest.mark.parametrize(("updates", "finished"), [(2, False), (4, True)])
def test_what_the_log_says_of_a_step_is_told_once_at_its_end_or_when_it_is_interrupted(
    workspace, monkeypatch, updates, finished
):
    monkeypatch.setattr(loop, "UPDATES_PER_LOG_LINE", 1)
    monkeypatch.setattr(
        session, "finding", lambda step, records, *_, interrupted: f"{step} overfits after {len(records)} lines"
    )
    told, signal_after = [], SignalAfter("motion", updates, signal.SIGTERM)

    def hear(progress: Progress) -> None:
        told.append(progress.message)
        signal_after(progress)

    with pytest.raises(Interrupted):
        train.run(config(workspace.root, steps=("motion",)), hear)
    assert [text for text in told if "overfits" in text] == [f"warning: motion overfits after {updates} lines"]
    assert (Run(workspace.runs / "split1").finished() == ["motion"]) is finished


def in_the_words_of_0_1_0(content: Any) -> Any:
    if isinstance(content, dict):
        names = {"augmentation": "crops"}
        return {names.get(name, name): in_the_words_of_0_1_0(value) for name, value in content.items()}
    return "centre" if isinstance(content, str) and content == "center" else content


def test_a_run_that_was_begun_in_the_words_of_0_1_0_continues_to_the_same_bits(workspace):
    overrides = {step: TINY[step] | {"augmentation": "center"} for step in ("appearance", "motion", "joint1")}
    settings = {"overrides": overrides, "temporal_init": "center", "steps": tuple(overrides)}
    train.run(config(workspace.root, name="whole", **settings))
    with pytest.raises(Interrupted):
        train.run(config(workspace.root, name="old", **settings), SignalAfter("joint1", 2, signal.SIGTERM))
    run = Run(workspace.runs / "old")
    files = {run.weights_file(step): WEIGHTS_SCHEMA for step in ("appearance", "motion")}
    for file, schema in {**files, run.checkpoint_file("joint1"): CHECKPOINT_SCHEMA}.items():
        content = in_the_words_of_0_1_0(load(file, schema))
        assert content["configuration"]["network"]["temporal_init"] == "centre"
        save(file, schema, content)
    run.config_file.write_text(json.dumps(in_the_words_of_0_1_0(json.loads(run.config_file.read_text()))))

    train.run(config(workspace.root, name="old", **settings))
    assert_same(workspace, "whole", "old", tuple(overrides))
    save(
        run.weights_file("joint1"),
        WEIGHTS_SCHEMA,
        in_the_words_of_0_1_0(load(run.weights_file("joint1"), WEIGHTS_SCHEMA)),
    )
    assert load_network(run, "joint1").appearance.layer1[1].conv3.init == "center"


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines import train
from pipelines.storage import atomic
from tests.training.test_restart import config

replace, checkpoints = os.replace, []

def kill_in_the_third(source, target):
    if target.name == "checkpoint.pt":
        checkpoints.append(target)
        if len(checkpoints) == 3:  # written, but not yet under its name
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

atomic.os.replace = kill_in_the_third
train.run(config(Path(sys.argv[1]), name="killed", steps=("motion",), checkpoint_every=0))
"""


def test_kill_9_while_a_checkpoint_is_written_costs_what_came_after_the_one_before(workspace):
    train.run(config(workspace.root, name="whole", steps=("motion",)))
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    killed = subprocess.run([sys.executable, "-c", KILLED, str(workspace.root)], env=env, check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    folder = workspace.runs / "killed" / "motion"
    assert load(folder / "checkpoint.pt", CHECKPOINT_SCHEMA)["iteration"] == 2
    assert len(list(folder.iterdir())) == 2  # and what was being written
    seen: list[int] = []
    again = config(workspace.root, name="killed", steps=("motion",))
    train.run(again, lambda progress: None if progress.message else seen.append(progress.done))
    assert seen[0] == 3
    assert [file.name for file in folder.iterdir()] == ["weights.pt"]
    assert_same(workspace, "whole", "killed", ("motion",))


@pytest.fixture
def stopped(workspace) -> Path:
    """The checkpoint of a run stopped in `motion`."""
    with pytest.raises(Interrupted):
        train.run(config(workspace.root, steps=("motion",)), SignalAfter("motion", 2, signal.SIGTERM))
    return workspace.runs / "split1" / "motion" / "checkpoint.pt"


def test_a_damaged_checkpoint_is_an_error_and_no_new_beginning(workspace, stopped):
    stopped.write_bytes(stopped.read_bytes()[:-1000])
    with pytest.raises(MissingError, match=r"motion/checkpoint\.pt does not load"):
        train.run(config(workspace.root, steps=("motion",)))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"width": 8}, "network.width was 4 and is now 8"),
        ({"overrides": {"motion": TINY["motion"] | {"lr": 0.5}}}, "steps.motion.lr was 0.05 and is now 0.5"),
        ({"seed": 1}, "seed was 0 and is now 1"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_by_name(workspace, stopped, changes, difference):
    other = config(workspace.root, name="other", steps=("motion",), **changes)
    with pytest.raises(Interrupted):
        train.run(other, SignalAfter("motion", 1, signal.SIGTERM))
    shutil.copy(stopped, workspace.runs / "other" / "motion" / "checkpoint.pt")
    with pytest.raises(UsageError, match=rf"checkpoint\.pt is of another configuration: {difference}"):
        train.run(other, ignore_progress)


def test_a_second_training_of_a_run_is_refused_while_the_first_goes_on(workspace):
    with only_trainer(Run(workspace.runs / "split1")):
        for changes in ({}, {"overwrite": True}):
            with pytest.raises(MissingError, match="another process is training the run split1"):
                train.run(config(workspace.root, **changes))
    assert not (workspace.runs / "split1" / "config.json").exists()


def test_killed_between_the_weights_and_the_removal_of_the_checkpoint(workspace, stopped):
    kept = stopped.read_bytes()
    train.run(config(workspace.root, steps=("motion",)))
    stopped.write_bytes(kept)

    assert train.run(config(workspace.root, steps=("motion",))).steps[0].already_done
    assert not stopped.exists()


# ------------------------------------------------------------------ weights of another run


def test_weights_copied_from_another_run_or_step_are_not_taken_for_this_runs(workspace):
    for name, seed in (("one", 0), ("two", 1)):
        train.run(config(workspace.root, name=name, seed=seed, steps=("appearance", "motion")))
    one, two = Run(workspace.runs / "one"), Run(workspace.runs / "two")
    assert one.weights("appearance")["configuration"]["seed"] == 0

    shutil.copy(one.weights_file("appearance"), two.weights_file("appearance"))
    for use in (
        lambda: two.weights("appearance"),
        lambda: load_network(two, "appearance"),
        lambda: train.run(config(workspace.root, name="two", seed=1, steps=("appearance", "motion"))),
        lambda: train.run(config(workspace.root, name="three", weights="run:two", steps=("appearance",))),
    ):
        with pytest.raises(MissingError, match="is of another run: seed was 0 and is now 1"):
            use()
    (fault,) = FolderTask("run", workspace, two.folder, "stored").check()
    assert "is of another run" in fault.detail

    shutil.copy(one.weights_file("motion"), one.weights_file("appearance"))
    with pytest.raises(MissingError, match="is of another run: steps"):
        one.weights("appearance")


def test_a_run_that_was_moved_and_renamed_keeps_its_weights(workspace, tmp_path):
    train.run(config(workspace.root, name="one", steps=("appearance",)))
    shutil.copytree(workspace.runs / "one", tmp_path / "elsewhere" / "renamed")
    assert Run(tmp_path / "elsewhere" / "renamed").weights("appearance")["iterations"] == 4


# ------------------------------------------------------------------ weights from a file


def weights_of_a_file(path: Path, seed: int) -> str:
    """Random weights as `torch.save` writes a ResNet's state dict."""
    torch.manual_seed(seed)
    network = STResNet(2, depth=26, width=4, temporal_kernels=False, streams=("appearance",))
    torch.save(network.streams["appearance"].state_dict(), path)
    return str(path)


def test_a_run_is_not_continued_with_other_content_of_its_weights_file(workspace, tmp_path):
    file = tmp_path / "weights.pth"
    settings = {"name": "filled", "resnet": "v1.5", "weights": weights_of_a_file(file, 0)}
    train.run(config(workspace.root, steps=("appearance",), **settings))
    weights_of_a_file(file, 1)
    both = config(workspace.root, steps=("appearance", "motion"), **settings)
    for again in (both, replace(both, dry_run=True)):
        with pytest.raises(UsageError, match=rf"run filled was begun with other content of --weights {file}"):
            train.run(again)
    weights_of_a_file(file, 0)
    assert [step.already_done for step in train.run(both).steps] == [True, False]
    weights_of_a_file(file, 1)
    assert not train.run(replace(both, steps=("appearance",), overwrite=True)).steps[0].already_done


def test_a_run_that_does_not_tell_the_hash_of_its_weights_file_is_continued(workspace, tmp_path, monkeypatch):
    settings = {"name": "filled", "resnet": "v1.5", "weights": weights_of_a_file(tmp_path / "weights.pth", 0)}
    with monkeypatch.context() as before:
        before.setattr(preparation, "weights_digest", lambda weights: "")
        train.run(config(workspace.root, steps=("appearance",), **settings))
    assert "weights_sha256" not in Run(workspace.runs / "filled").config_file.read_text()
    steps = train.run(config(workspace.root, steps=("appearance", "motion"), **settings)).steps
    assert [step.already_done for step in steps] == [True, False]


def test_a_weights_file_that_no_step_needs_any_more_may_be_gone(workspace, tmp_path):
    file = tmp_path / "weights.pth"
    settings = {"name": "filled", "resnet": "v1.5", "weights": weights_of_a_file(file, 0), "steps": ("appearance",)}
    train.run(config(workspace.root, **settings))
    file.unlink()
    assert train.run(config(workspace.root, **settings)).steps[0].already_done
