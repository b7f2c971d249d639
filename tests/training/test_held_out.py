"""`train --validation`: a share of the training groups is measured on while training, and never trained on."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import evaluate, train
from pipelines.datasets.group_splits import fewest_groups, hold_out
from pipelines.datasets.sampling import spaced_centers
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import SCORES_SCHEMA
from pipelines.models import STResNet
from pipelines.runtime.ranks import Ranks
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, save
from pipelines.training.data import find_training_data
from pipelines.training.loop import StepTrainer
from pipelines.training.recipes import RECIPES
from pipelines.training.run_config import digest
from pipelines.training.runs import Run, load_network, outdated
from pipelines.training.step_files import StepFiles
from pipelines.training.validation import held_out_measure
from tests.helpers.workspaces import TINY_STEPS


def trained(workspace: Workspace, steps: tuple[str, ...], **changes: Any) -> tuple[train.Result, list[Any]]:
    told: list[Any] = []
    settings = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "overrides": TINY_STEPS}
    config = train.Config(workspace.root, steps=steps, **({"validation": 0.3} | settings | changes))
    return train.run(config, told.append), told


def lines(workspace: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workspace.runs / "split1" / "metrics.jsonl").read_text().splitlines()]


def test_held_out_videos_are_not_trained_on_and_measured_at_the_end(workspace):
    result, told = trained(workspace, ("appearance", "motion", "joint1"))
    assert result.train_videos == 4  # of six; one of each class is held out
    assert any("validation: 2 classes, 2 videos: jump 1, wave 1, held out of training" in one.message for one in told)
    for step, line in zip(result.steps, lines(workspace), strict=True):
        names = {"appearance", "motion", "fused"} if step.step == "joint1" else {step.step}
        assert {name for name in line if name.startswith("validation_")} == {
            "validation_loss", "validation_videos", "validation_mean_class_accuracy",
            *(f"validation_{name}_accuracy" for name in names),
        }  # fmt: skip
        assert step.metrics["validation_loss"] == line["validation_loss"]
    assert "held-out accuracy" in told[-1].metrics


def test_the_loss_is_that_of_the_network_on_frames_spaced_over_the_video(workspace):
    """Computed again from the artifacts, in double precision, without the loaders."""
    result, _ = trained(workspace, ("appearance",))
    run = Run(workspace.runs / "split1")
    network = load_network(run, "appearance").double()
    ids = [f"{name}/{name}{number}" for name in ("jump", "wave") for number in range(3)]
    losses = []
    for id_ in sorted(hold_out(ids, 0.3, 0)):
        class_name, video = id_.split("/")
        with FrameFile(workspace.frames_file(class_name, video)) as frames:
            pictures = torch.from_numpy(np.stack(frames.read(list(range(16))))).permute(0, 3, 1, 2)
        centers = spaced_centers(16, 3, 10, 1)
        normalised, _ = network.normalise().double()(pictures[centers][None, :, :, :, 4:36], None)
        with torch.no_grad():
            logits = network(normalised, None).appearance[0]
        label = torch.tensor([["jump", "wave"].index(class_name)] * len(logits))
        losses.append(float(torch.nn.functional.cross_entropy(logits, label)))
    assert result.steps[0].metrics["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_processes_share_the_videos_and_have_the_numbers_of_one(workspace):
    """Two processes, one after the other: each looks at its own, and sums what both found."""
    config = train.Config(
        workspace.root,
        recipe="small",
        width=4,
        size=(32, 32),
        overrides=TINY_STEPS,
        steps=("motion",),
        validation=0.6,
    )
    data = find_training_data(config)
    torch.manual_seed(0)
    network = STResNet(2, depth=26, width=4, streams=("motion",), temporal_kernels=False).eval()
    trainer = StepTrainer(network, config.step("motion"), len(data.videos), torch.device("cpu"))

    def measured(rank: int, size: int, others: list[Any]) -> tuple[Any, Any]:
        shares: list[Any] = []
        gather = lambda share: shares.append(share) or [share, *others]  # noqa: E731
        trainer.plan = SimpleNamespace(ranks=Ranks(rank, size), size=size, gather=gather)
        with torch.no_grad():
            found = held_out_measure(data, config.run_config(data, "fp32"), trainer)(network, 0)
        return found, shares[0]

    whole, of_all = measured(0, 1, [])
    _, of_second = measured(1, 2, [])
    shared, of_first = measured(0, 2, [of_second])
    assert (list(of_first), list(of_second)) == ([0, 2], [1, 3])
    assert of_first | of_second == of_all
    assert shared == whole


def test_training_is_the_same_whether_the_videos_left_out_are_looked_at_or_not(workspace, monkeypatch):
    trained(workspace, ("appearance",))
    seen = Run(workspace.runs / "split1").weights("appearance")["model"]
    monkeypatch.setattr("pipelines.training.session.held_out_measure", lambda *_: None)
    trained(workspace, ("appearance",), name="blind")
    blind = Run(workspace.runs / "blind").weights("appearance")["model"]
    assert all(torch.equal(value, blind[name]) for name, value in seen.items())


def test_the_best_weights_are_kept_beside_the_last_and_tested_by_their_name(workspace, monkeypatch):
    """Of three measures the second is best: of the highest mean class accuracy, though not of the lowest loss."""
    models, measures = [], iter([(0.9, 0.5), (1.2, 0.75), (1.0, 0.75), (1.3, 0.75)])

    def measure(*_: Any) -> Any:
        def look(model: Any, update: int) -> dict[str, float]:
            models.append((update, {name: value.clone() for name, value in model.state_dict().items()}))
            loss, accuracy = next(measures)
            return {"loss": loss, "appearance_accuracy": 0.25, "mean_class_accuracy": accuracy, "videos": 2.0}

        return look

    monkeypatch.setattr("pipelines.training.session.held_out_measure", measure)
    monkeypatch.setattr("pipelines.training.session.VALIDATE_EVERY", 10)
    monkeypatch.setattr(
        "pipelines.training.session.finding", lambda step, records, videos, *_, **__: f"{step} {videos}"
    )
    fast = {"appearance": {"iterations": 35, "batch_size": 2, "lr": 1e-3}}
    result, told = trained(workspace, ("appearance",), overrides=fast)
    assert [update for update, _ in models] == [10, 20, 30, 35]
    assert result.steps[0].finding == "appearance Counter({'jump': 2, 'wave': 2})"
    assert f"warning: {result.steps[0].finding}" in [one.message for one in told]
    assert (result.steps[0].best["iterations"], result.steps[0].best["validation_loss"]) == (30, 1.0)
    run = Run(workspace.runs / "split1")
    for checkpoint, (_, expected) in (("last", models[3]), ("best", models[2])):
        found = load_network(Run(run.folder, checkpoint), "appearance").state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    shared = {"workspace": workspace.root, "device": "cpu", "crops": 3}
    names = []
    for checkpoint in ("last", "best"):
        tested = evaluate.run(evaluate.Config(**shared, checkpoint=checkpoint))
        attributes = peek(tested.folder / "scores.h5", SCORES_SCHEMA)
        assert attributes["weights_sha256"] == Run(run.folder, checkpoint).weights_sha256("appearance")
        assert outdated(workspace, tested.folder, attributes) == ""
        names.append(tested.folder.name)
    assert names[1] == f"{names[0]}-best"
    (run.folder / "appearance" / "best.pt").unlink()
    with pytest.raises(MissingError, match="--checkpoint best: run split1 has no best weights of appearance"):
        evaluate.run(evaluate.Config(**shared, checkpoint="best"))


def test_the_best_weights_survive_an_interruption(workspace, monkeypatch):
    """Stopped after the best measure, and continued: the same files as of a run that never stopped."""
    monkeypatch.setattr("pipelines.training.session.VALIDATE_EVERY", 10)
    slow = {"appearance": {"iterations": 20, "batch_size": 2, "lr": 0.05}}
    trained(workspace, ("appearance",), overrides=slow, name="whole")
    saves = []

    def killed(self: Any, content: Any) -> None:
        saves.append(content)
        save(self.checkpoint, CHECKPOINT_SCHEMA, content)
        if content["iteration"] == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(StepFiles, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(workspace, ("appearance",), overrides=slow, checkpoint_every=0.0)
    assert saves[-1]["best"]["iterations"] == 10
    trained(workspace, ("appearance",), overrides=slow)
    for checkpoint in ("last", "best"):
        whole, continued = (
            Run(workspace.runs / name, checkpoint).weights("appearance") for name in ("whole", "split1")
        )
        assert whole["iterations"] == continued["iterations"]
        assert all(torch.equal(value, continued["model"][name]) for name, value in whole["model"].items())
        assert whole["best"] == continued["best"]


def test_a_run_keeps_its_share_where_none_is_given_and_takes_no_other(workspace):
    trained(workspace, ("appearance",))
    assert trained(workspace, ("motion",), validation=None)[0].train_videos == 4
    told = (
        r"validation was 0\.3 and is now 0\.0; give the same options, or none as in `stres train --name split1 --work"
    )
    with pytest.raises(UsageError, match=told):
        trained(workspace, ("motion",), validation=0.0)


def test_a_run_begun_without_goes_on_without_whatever_its_recipe_does_now(workspace, monkeypatch):
    """As of every run that is older than the recipe's default."""
    trained(workspace, ("appearance",), validation=0.0)
    assert "validation" not in json.loads((workspace.runs / "split1" / "config.json").read_text())
    monkeypatch.setattr("pipelines.training.data.ENOUGH_GROUPS", 3)
    assert trained(workspace, ("motion",), validation=None)[0].train_videos == 6
    result, told = trained(workspace, ("motion",), validation=None, name="new")
    assert result.train_videos == 4
    assert any("held out of training (the recipe's default; --validation 0" in one.message for one in told)


def test_the_recipe_small_holds_a_tenth_out_where_there_are_ten_groups_and_the_papers_nothing(workspace):
    _, told = trained(workspace, ("appearance",), validation=None)
    text = "validation: off, since class 'jump' has only 3 training groups of the 10 that it takes"
    assert any(text in one.message for one in told)
    assert (RECIPES["small"].validation, RECIPES["paper"].validation) == (0.1, 0.0)
    assert fewest_groups([f"a/v_a_g{n // 2}_c{n}" for n in range(8)] + ["b/1", "b/2", "b/3"]) == ("b", 3)


def test_a_list_names_the_videos(workspace, tmp_path):
    file = tmp_path / "held.txt"
    file.write_text("jump/Jump1.avi\nwave/wave2.avi 2\n")
    result, _ = trained(workspace, ("appearance",), validation=file)
    assert (result.train_videos, Run(workspace.runs / "split1").config().validation) == (4, "list")
    split = Run(workspace.runs / "split1").split()
    left = [id_ for id_ in split.train if id_ not in ("jump/jump1", "wave/wave2")]
    assert Run(workspace.runs / "split1").config().train_videos.sha256 == digest(left)
    file.unlink()
    assert trained(workspace, ("motion",), validation=None)[0].train_videos == 4  # those that it was begun with
    built = {"name": "built", "base_run": "split1", "like": "split1", "recipe": None, "width": None, "size": None}
    assert trained(workspace, ("joint1",), validation=None, **built)[0].train_videos == 4
    document = json.loads(Run(workspace.runs / "split1").split_file.read_text())
    assert document.pop("validation") == ["jump/jump1", "wave/wave2"]
    Run(workspace.runs / "split1").split_file.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="of a list or of val/: give them again, --validation FILE or val"):
        trained(workspace, ("motion",), validation=None)
    for text, message in (
        ("jump/jump3.avi\n", "names 1 video that split 1 does not train on, such as jump/jump3"),
        ("jump/jump0.avi\njump/jump1.avi\njump/jump2.avi\n", "names every training video of class 'jump'"),
        ("jump1.avi\n", "must be like 'Class/clip.avi'"),
        ("\n", "names no video"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            trained(workspace, ("appearance",), validation=file, name="other")
    with pytest.raises(MissingError, match="10%: there is no such file: give a share of"):
        trained(workspace, ("appearance",), validation=file.with_name("10%"), name="other")


def test_videos_that_the_split_holds_apart_are_measured_on_and_choose_the_fusion_weight(workspace):
    with pytest.raises(MissingError, match=r"--validation val: split 1 has no videos for validation \(VIDEOS had none"):
        trained(workspace, ("appearance",), validation=Path("val"))
    sides = [[f"{name}/{name}{number}" for name in ("jump", "wave") for number in numbers] for numbers in ("01", "34")]
    apart = ["jump/jump2", "wave/wave2"]
    write_splits(workspace.splits, [Split(1, *sides, ["jump", "wave"], "test", held_apart=apart)])
    result, told = trained(workspace, ("appearance", "motion"), validation=Path("val"))
    assert (result.train_videos, result.steps[0].metrics["validation_videos"]) == (4, 2)
    assert any(one.message == "validation: 2 classes, 2 videos: jump 1, wave 1, held out of training" for one in told)
    run = Run(workspace.runs / "split1")
    assert (run.held_out(), run.trained_on(), run.config().validation) == (apart, {*sides[0]}, "list")
    assert trained(workspace, ("appearance",), validation=None)[0].steps[0].already_done
    tested = evaluate.run(evaluate.Config(workspace.root, fusion_weight="held-out", crops=2, device="cpu", step="late"))
    assert tested.results["fusion"]["videos"] == 2


def test_whole_groups_are_held_out_of_every_class_whatever_the_order():
    names = itertools.product(range(3), range(10), range(4))
    ids = [f"c{label}/v_c{label}_g{group:02d}_c{clip:02d}" for label, group, clip in names]
    held = hold_out(ids, 0.2, 7)
    assert held == hold_out(ids[::-1], 0.2, 7) != hold_out(ids, 0.2, 8)
    groups = {id_.rpartition("_")[0] for id_ in held}
    assert len(held) == 3 * 2 * 4
    assert held == {id_ for id_ in ids if id_.rpartition("_")[0] in groups}


def test_a_class_that_would_have_nothing_left_is_named():
    with pytest.raises(UsageError, match=r"--validation 0\.1: class 'b' has 1 training group, of which none would"):
        hold_out(["a/1", "a/2", "b/1"], 0.1, 0)
    with pytest.raises(UsageError, match="--validation"):
        hold_out(["a/x1", "b/x1"], 0.5, 0, groups=r"x(\d)")
