"""`train --validation`: a share of the training groups is measured on while training, and never trained on."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import train
from pipelines.datasets.group_splits import hold_out
from pipelines.datasets.sampling import spaced_centers
from pipelines.errors import UsageError
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run, load_network
from tests.helpers.workspaces import TINY_STEPS


def trained(workspace: Workspace, steps: tuple[str, ...], **changes: Any) -> tuple[train.Result, list[Any]]:
    told: list[Any] = []
    settings = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "overrides": TINY_STEPS}
    config = train.Config(workspace.root, steps=steps, validation=0.3, **(settings | changes))
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
            "validation_loss", *(f"validation_{name}_accuracy" for name in names),
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


def test_training_is_the_same_whether_the_videos_left_out_are_looked_at_or_not(workspace, monkeypatch):
    trained(workspace, ("appearance",))
    seen = Run(workspace.runs / "split1").weights("appearance")["model"]
    monkeypatch.setattr("pipelines.training.session.held_out_measure", lambda *_: None)
    trained(workspace, ("appearance",), name="blind")
    blind = Run(workspace.runs / "blind").weights("appearance")["model"]
    assert all(torch.equal(value, blind[name]) for name, value in seen.items())


def test_a_run_is_not_continued_with_another_share(workspace):
    trained(workspace, ("appearance",))
    with pytest.raises(UsageError, match="begun with another configuration"):
        trained(workspace, ("motion",), overrides=TINY_STEPS, **{"name": "split1", "recipe": "small", "seed": 1})
    config = train.Config(workspace.root, steps=("motion",), recipe="small", width=4, size=(32, 32), device="cpu")
    with pytest.raises(UsageError, match="begun with another configuration"):
        train.run(config)


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
        hold_out(["a/x1", "b/x1"], 0.5, 0, group_regex=r"x(\d)")
