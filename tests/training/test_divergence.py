"""A training that diverges: it stops before anything is left of it that is not a number."""

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pipelines import status, train
from pipelines.datasets.samples import Batch
from pipelines.errors import MissingError
from pipelines.models import STResNet
from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, load
from pipelines.training.loop import Diverged, StepTrainer
from pipelines.training.metrics_log import MetricsLog, read_records
from pipelines.training.recipes import PAPER, Step, override
from stres_cli.app import app
from tests.helpers.tiny_training import TINY, config

TOO_HIGH: dict[str, Any] = {"motion": TINY["motion"] | {"iterations": 12, "lr": 1e12}}


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_step_that_diverges_stops_at_once_names_update_rate_and_cure_and_leaves_no_weights(workspace):
    diverging = config(workspace, steps=("motion",), overrides=TOO_HIGH)
    with pytest.raises(
        MissingError, match=r"motion diverged: the loss of update [2-6] of 12 .* rate of 1e\+12"
    ) as told:
        train.run(diverging)
    assert "--lr motion=1e+11" in str(told.value)
    folder = workspace.runs / "split1"
    assert not list(folder.rglob("weights.pt"))
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        strict_json(line)
    with pytest.raises(MissingError) as again:
        train.run(diverging)
    assert str(again.value) == str(told.value)


def test_the_checkpoint_of_a_diverged_step_is_the_last_good_one_and_continuing_says_the_same(workspace):
    diverging = config(workspace, steps=("motion",), overrides=TOO_HIGH, checkpoint_every=0.0)
    with pytest.raises(MissingError, match="motion diverged") as told:
        train.run(diverging)
    checkpoint = workspace.runs / "split1" / "motion" / "checkpoint.pt"
    reached = load(checkpoint, CHECKPOINT_SCHEMA)["iteration"]  # refuses what is not finite
    assert reached >= 1
    with pytest.raises(MissingError, match="motion diverged") as again:
        train.run(diverging)
    assert str(again.value) == str(told.value)
    assert load(checkpoint, CHECKPOINT_SCHEMA)["iteration"] == reached


@pytest.mark.parametrize(
    ("step", "options"),
    [("joint1", "--steps joint1,joint2 --base-run split1"), ("joint2", "--weights run:split1/joint1")],
)
def test_a_joint_step_that_diverges_says_how_to_keep_the_steps_before_it(workspace, step, options):
    overrides = TINY | {step: TINY[step] | {"iterations": 10, "lr": 1e12}}
    with pytest.raises(MissingError, match=rf"{step} diverged: .*{options}"):
        train.run(config(workspace, steps=("appearance", "motion", "joint1", "joint2"), overrides=overrides))


def test_a_step_whose_first_weights_give_no_finite_loss_names_these_not_the_rate(workspace, tmp_path):
    train.run(config(workspace, steps=("appearance", "motion")))
    weights = workspace.runs / "split1" / "motion" / "weights.pt"
    content = torch.load(weights)
    content["model"]["motion.bn1.weight"].fill_(3e38)
    torch.save(content, weights)
    with pytest.raises(Diverged, match=r"finite number before the first update: .* motion of run split1: train that"):
        train.run(config(workspace, steps=("joint1",), overrides=TINY))


def test_a_weight_decay_that_diverges_is_named_and_no_step_is_added(workspace):
    overrides = TINY | {"joint1": TINY["joint1"] | {"iterations": 30, "weight_decay": 1e9}}
    with pytest.raises(
        MissingError, match=r"a lower weight decay .*--weight-decay joint1=\S+ --steps joint1 --base-run"
    ):
        train.run(config(workspace, steps=("appearance", "motion", "joint1"), overrides=overrides))


def test_status_advises_what_the_error_did_until_the_step_is_trained_on(workspace):
    train.run(config(workspace, steps=("appearance",)))
    with pytest.raises(Diverged) as told:
        train.run(config(workspace, steps=("motion",), overrides=TOO_HIGH))
    found = status.run(status.Config(workspace.root))
    assert found.next == f"run split1: {told.value}"
    assert found.steps[2].found == "unfinished: split1 (motion to do, diverged)"
    shown = CliRunner().invoke(app, ["runs", "-w", str(workspace.root)], env={"COLUMNS": "200"})
    assert "motion unfinished (diverged)" in shown.stdout

    MetricsLog(workspace.runs / "split1", "appearance", 4).close()
    assert status.run(status.Config(workspace.root)).next == found.next
    MetricsLog(workspace.runs / "split1", "motion", 0).close()
    assert status.run(status.Config(workspace.root)).next.startswith("stres train --name split1 --workspace ")
    assert read_records(workspace.runs / "split1", None).keys() == {"appearance"}


# ------------------------------------------------------------------ what is looked at


def a_trainer(updates: int, precision: Any = "fp32") -> StepTrainer:
    changes = {"batch_size": 2, "micro_batch": 2, "iterations": updates, "lr": 1e-3}
    step: Step = override(PAPER.steps["motion"], changes)
    torch.manual_seed(0)
    network = STResNet(3, depth=26, width=4, streams=("motion",), temporal_kernels=False)
    return StepTrainer(network, step, 2, torch.device("cpu"), precision)


def batches() -> Iterator[Batch]:
    for number in itertools.count():
        generator = torch.Generator().manual_seed(number)
        flow = torch.randint(0, 256, (2, 1, 20, 32, 32), dtype=torch.uint8, generator=generator)
        yield Batch(None, flow, torch.tensor([0, 2]), torch.tensor([0, 1]), {})


def run(trainer: StepTrainer) -> None:
    trainer.fit(batches())


def spoil(trainer: StepTrainer, update: int) -> None:
    """Makes one gradient of that update infinite; its loss is finite."""

    def hook(optimiser: torch.optim.Optimizer, *arguments: Any) -> None:
        if trainer.state.iteration == update - 1:
            for parameter in trainer.model.motion.conv1.parameters():
                assert parameter.grad is not None
                parameter.grad.fill_(math.inf)

    trainer.optimiser.register_step_pre_hook(hook)


def test_a_gradient_that_is_not_finite_ends_the_step_by_the_next_loss_or_before_the_weights_are_written():
    trainer = a_trainer(updates=4)
    spoil(trainer, 2)
    with pytest.raises(Diverged, match="the loss of update 3 of 4"):
        run(trainer)
    trainer = a_trainer(updates=2)
    spoil(trainer, 2)
    with pytest.raises(Diverged, match=r"after update 2 of 2 motion\.conv1\.weight holds NaN or infinity"):
        run(trainer)


def test_running_statistics_that_are_not_finite_end_the_step_though_the_loss_is_finite():
    trainer = a_trainer(updates=1)
    trainer.model.motion.bn1.running_var.fill_(math.inf)
    with pytest.raises(Diverged, match=r"after update 1 of 1 motion\.bn1\.running_var holds"):
        run(trainer)


def test_fp16_may_skip_updates_but_not_for_ever():
    trainer = a_trainer(updates=2, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    run(trainer)
    assert trainer.scaler.get_scale() < 2.0**120  # it skipped
    trainer = a_trainer(updates=1, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1e-5)
    with pytest.raises(Diverged, match="until update 1 of 1 the gradients were not finite in fp16"):
        run(trainer)


def test_a_loss_is_shown_as_the_mean_over_frames_and_streams_and_the_sum_beside_it(workspace):
    train.run(config(workspace, steps=("appearance", "motion", "joint1", "joint2")))
    lines = [json.loads(line) for line in (workspace.runs / "split1" / "metrics.jsonl").read_text().splitlines()]
    terms = {"appearance": 1, "motion": 1, "joint1": 2 * 2, "joint2": 2 * 1}  # streams * time steps
    for line in lines:
        assert line["summed_loss"] == pytest.approx(terms[line["step"]] * line["loss"])
        assert 0.2 < line["loss"] < 3  # about ln 2


def test_what_is_shown_of_training_is_of_the_last_50_updates_not_of_a_single_batch():
    trainer = a_trainer(updates=61)
    run(trainer)
    assert trainer.state.last["updates"] == 41  # of lines 30, 40, 50, 60 and of update 61
    assert trainer.state.last["videos"] == 82
    assert trainer.state.shown().keys() == {"loss", "training accuracy", "of the last"}
    run(trainer := a_trainer(updates=1))
    assert trainer.state.shown()["of the last"] == "1 update"


def test_a_log_of_an_older_version_is_read_with_the_mean_worked_out():
    from pipelines.training.metrics_log import of_today

    assert of_today({"loss": 8.0, "lr": 0.1}, 4) == {"loss": 2.0, "summed_loss": 8.0, "lr": 0.1}
    assert of_today({"loss": 8.0}, None) == {"summed_loss": 8.0}
    assert of_today({"loss": 2.0, "summed_loss": 8.0}, 3) == {"loss": 2.0, "summed_loss": 8.0}
