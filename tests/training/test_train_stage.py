"""The stage `train`: what it leaves, how it continues, what it refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines import train
from pipelines.errors import MissingError, StorageError, UsageError
from pipelines.runtime.progress import Progress
from pipelines.storage.failures import read_failures
from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load
from pipelines.training.runs import Run
from tests.helpers.tiny_training import STEPS, TINY, config, record_gains


def weights(run_folder: Path, step: str) -> dict[str, torch.Tensor]:
    return load(Run(run_folder).weights_file(step), WEIGHTS_SCHEMA)["model"]


def metrics(run_folder: Path) -> list[dict[str, Any]]:
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def test_all_four_steps_leave_weights_metrics_and_their_configuration(workspace):
    result = train.run(config(workspace, steps=STEPS))
    folder = workspace.runs / "split1"
    assert result.folder == folder
    assert [step.step for step in result.steps] == list(STEPS)
    assert Run(folder).finished() == list(STEPS)
    document = json.loads((folder / "config.json").read_text())
    assert document["classes"] == ["jump", "wave"]
    for made in (document, load(Run(folder).weights_file("joint2"), WEIGHTS_SCHEMA)):
        assert made["library_versions"]["torch"] == torch.__version__
    assert document["network"]["num_classes"] == 2
    assert document["steps"]["joint1"]["stride"] == [1, 2]
    assert document["flow"]["method"] == "farneback"
    assert [line["step"] for line in metrics(folder)] == list(STEPS)
    assert metrics(folder)[2].keys() >= {"loss", "appearance_accuracy", "motion_accuracy", "fused_accuracy", "lr"}
    assert not list(folder.rglob("checkpoint.pt"))


def test_a_single_picture_too_small_for_batch_norm_is_no_bug(workspace):
    settings = {
        "steps": ("appearance",),
        "size": (32, 32),
        "overrides": {"appearance": {**TINY["appearance"], "batch_size": 1, "micro_batch": 1}},
    }
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"one picture of 32x32 pixels, .* is in appearance: give a larger --size"):
            train.run(config(workspace, **settings, dry_run=dry_run))


def test_the_joint_network_starts_from_the_base_streams_and_keeps_their_keys(workspace):
    train.run(config(workspace, steps=("appearance", "motion")))
    folder = workspace.runs / "split1"
    base = weights(folder, "appearance") | weights(folder, "motion")
    train.run(config(workspace, steps=("joint1",), overrides=TINY | {"joint1": TINY["joint1"] | {"lr": 1e-12}}))
    joint = weights(folder, "joint1")
    assert joint.keys() == base.keys()
    torch.testing.assert_close(joint["motion.conv1.weight"], base["motion.conv1.weight"])
    kernel = joint["appearance.layer2.1.conv1.weight"]
    assert kernel.shape[2:] == (3, 1, 1)
    average = base["appearance.layer2.1.conv1.weight"][:, :, None] / 3
    torch.testing.assert_close(kernel, average.expand_as(kernel))


def test_the_number_of_loader_workers_changes_nothing(workspace):
    train.run(config(workspace, name="none", steps=("motion",), validation=0.4))
    train.run(config(workspace, name="two", steps=("motion",), validation=0.4, workers=2))
    assert metrics(workspace.runs / "none")[0]["validation_videos"] == 2
    assert metrics(workspace.runs / "none") == metrics(workspace.runs / "two")
    none, two = (weights(workspace.runs / name, "motion") for name in ("none", "two"))
    for name, value in none.items():
        assert torch.equal(value, two[name]), name


def test_the_flow_of_a_steps_samples_is_scaled(workspace, monkeypatch):
    factors = record_gains(monkeypatch)
    motion = {**TINY["motion"], "flow_scale": 1.5, "iterations": 1}
    train.run(config(workspace, steps=("motion",), overrides={"motion": motion}))
    assert len(factors) == len(set(factors)) == 4
    assert all(1 / 1.5 < factor < 1.5 for factor in factors)


def test_a_finished_step_is_not_trained_again(workspace):
    train.run(config(workspace, steps=("motion",)))
    file = workspace.runs / "split1" / "motion" / "weights.pt"
    before = file.stat().st_mtime_ns
    result = train.run(config(workspace, steps=("motion",)))
    assert result.steps[0].already_done
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"width": 8}, "network.width was 4 and is now 8"),
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"overrides": {**TINY, "motion": {**TINY["motion"], "lr": 0.3}}}, r"steps.motion.lr was 0.05 and is now 0.3"),
    ],
)
def test_another_configuration_under_the_same_name_is_refused_by_name(workspace, changes, difference):
    train.run(config(workspace, steps=("motion",)))
    with pytest.raises(UsageError, match=difference):
        train.run(config(workspace, steps=("motion",), **changes))


def test_lists_that_were_made_again_with_a_class_that_came_later_are_named_as_why_a_run_does_not_continue(workspace):
    train.run(config(workspace, steps=("appearance",)))
    shutil.copytree(workspace.frames / "jump", workspace.frames / "leap")
    train.run(config(workspace, name="second", steps=("appearance",), overwrite=True))
    told = (
        r"begun with other lists of split 1 than there are now, .*classes was .*: give another --name, or --overwrite"
    )
    with pytest.raises(UsageError, match=told):
        train.run(config(workspace, steps=("appearance",)))


def test_overwrite_moves_the_old_run_aside(workspace):
    train.run(config(workspace, steps=("motion",)))
    train.run(config(workspace, steps=("motion",), seed=1, overwrite=True))
    assert (workspace.runs / "split1.old1" / "motion" / "weights.pt").exists()
    assert json.loads((workspace.runs / "split1" / "config.json").read_text())["seed"] == 1


def test_a_run_does_not_take_the_name_of_imported_scores(workspace):
    imported = workspace.scores / "split1" / "imported"
    imported.mkdir(parents=True)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"no run split1, but scores of another program were imported .*--overwr"):
            train.run(config(workspace, steps=("motion",), dry_run=dry_run))
    train.run(config(workspace, steps=("motion",), overwrite=True))
    assert (workspace.scores / "split1.old1" / "imported").is_dir()


def test_a_joint_step_without_its_base_streams_says_so(workspace):
    for steps, missing in ((("joint1",), "appearance"), (("appearance", "joint1"), "motion")):
        with pytest.raises(MissingError, match=f"joint1 starts from {missing}, .*: add it to --steps"):
            train.run(config(workspace, steps=steps))
        assert not (workspace.runs / "split1").exists()  # nothing was trained before


def test_a_joint_step_can_start_from_the_streams_of_another_run(workspace):
    train.run(config(workspace, name="base", steps=("appearance", "motion")))
    train.run(config(workspace, name="base", steps=("joint1",)))
    train.run(config(workspace, name="variant", steps=("joint1",), base_run="base"))
    base, variant = (weights(workspace.runs / name, "joint1") for name in ("base", "variant"))
    assert all(torch.equal(base[key], variant[key]) for key in base)
    document = json.loads((workspace.runs / "variant" / "config.json").read_text())
    assert document["base_run"]["name"] == "base"
    assert document["base_run"]["weights_sha256"]["motion"] == Run(workspace.runs / "base").weights_sha256("motion")
    (workspace.root / "elsewhere").mkdir()
    moved = (workspace.runs / "base").rename(workspace.root / "elsewhere" / "base")
    with pytest.raises(
        MissingError, match=r"variant builds on another run, base, which is not in .*: give it again, --base"
    ):
        train.run(train.Config(workspace.root, name="variant", device="cpu"))
    again = train.Config(workspace.root, name="variant", device="cpu", base_run=str(moved))
    assert train.run(again).steps[0].already_done


def test_a_base_run_of_another_input_size_is_refused(workspace):
    train.run(config(workspace, name="base", steps=("appearance", "motion")))
    with pytest.raises(UsageError, match=r"--base-run base does not fit this run: size\S* was .*32.* is now"):
        train.run(config(workspace, name="variant", steps=("joint1",), base_run="base", size=(32, 40)))


def test_a_base_run_beside_base_steps_is_refused(workspace):
    with pytest.raises(UsageError, match="--base-run base: this command trains appearance and motion itself"):
        config(workspace, base_run="base")
    with pytest.raises(UsageError, match="--unlabelled goes with the step student only"):
        train.run(train.Config(workspace.root, device="cpu", unlabelled=True))  # the data say which steps


def test_a_run_is_not_begun_without_the_weights_it_starts_from(workspace):
    settings = {"steps": ("motion",), "weights": "absent.pth"}
    with pytest.raises(MissingError, match=r"there is no weights file absent\.pth"):
        train.run(config(workspace, **settings))
    assert not (workspace.runs / "split1").exists()
    train.run(config(workspace, steps=("motion",)))
    train.run(config(workspace, **settings | {"weights": None}))


def test_an_unknown_split_names_those_there_are(workspace):
    with pytest.raises(UsageError, match="--split 7 is none of the splits: 1"):
        train.run(config(workspace, split=7))


def test_fp16_without_a_gpu_is_refused(workspace):
    with pytest.raises(UsageError, match="--precision fp16 needs a GPU; on the CPU use fp32 or bf16"):
        train.run(config(workspace, precision="fp16"))


def test_a_damaged_training_video_is_left_out_and_named(workspace):
    file = workspace.flow_file("jump", "jump1")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    file.write_bytes(content)
    result = train.run(config(workspace, steps=("motion",)))
    assert result.failed == 1
    rows = read_failures(workspace)
    assert [(row.stage, row.class_name, row.video) for row in rows] == [("train", "jump", "jump1")]
    assert str(file) in rows[0].reason


@pytest.mark.parametrize("kinds", [("frames",), ("flow",), ("frames", "flow")])
@pytest.mark.parametrize("damaged_first", [True, False])
def test_a_run_continues_although_one_of_its_videos_was_cut_or_mended_meanwhile(workspace, kinds, damaged_first):
    def stop(progress):
        if list(workspace.runs.glob("*/motion/checkpoint.pt")):
            raise KeyboardInterrupt

    files = [workspace.root / kind / "jump" / "jump1.h5" for kind in kinds]
    whole = [file.read_bytes() for file in files]
    cut = [content[: len(content) // 2] for content in whole]
    settings = {"steps": ("motion",), "checkpoint_every": 0.0}
    put(files, cut if damaged_first else whole)
    with pytest.raises(KeyboardInterrupt):
        train.run(config(workspace, **settings), stop)
    put(files, whole if damaged_first else cut)
    messages = []
    result = train.run(config(workspace, **settings), lambda progress: messages.append(progress.message))
    assert (result.train_videos, result.missing_videos, result.failed) == (6, [], 1)
    [row] = read_failures(workspace)
    assert (row.stage, row.video) == ("train", "jump1")
    assert "truncated" in row.reason
    assert sum("jump1" in message for message in messages) == 1


def put(files, contents):
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)


def test_a_video_that_is_gone_is_to_be_extracted_again_before_a_run_continues(workspace):
    train.run(config(workspace, steps=("motion",)))
    file = workspace.flow_file("jump", "jump1")
    content = file.read_bytes()
    file.unlink()
    told = r"train_videos\.count was 6 and is now 5; extract again what is missing of its videos to continue it"
    with pytest.raises(UsageError, match=told):
        train.run(config(workspace, steps=("appearance", "motion")))
    file.write_bytes(content)
    train.run(config(workspace, steps=("appearance", "motion")))


def test_a_training_of_damaged_videos_alone_says_so(workspace):
    for file in workspace.flow.rglob("*.h5"):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(MissingError, match=r"none of the 6 training videos of split 1 can be read, .*\.h5"):
        train.run(config(workspace, steps=("motion",)))


def test_training_videos_of_the_split_that_are_not_there_are_counted(workspace):
    workspace.flow_file("wave", "wave2").unlink()
    messages = []
    result = train.run(config(workspace, steps=("motion",)), lambda progress: messages.append(progress.message))
    assert result.missing_videos == ["wave/wave2"]
    assert any("wave/wave2" in message for message in messages)


def test_weights_that_have_no_room_on_the_disk_are_told_before_the_first_update(workspace, monkeypatch):
    monkeypatch.setattr("pipelines.storage.atomic.shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    told: list[Progress] = []
    with pytest.raises(StorageError, match=r"split1: 0\.\d MB are needed there, but only 0\.0 MB are free"):
        train.run(config(workspace, steps=("appearance",)), told.append)
    assert not any(progress.done for progress in told if progress.phase.startswith("train "))
