"""Validation while training: a hook that may look at the network and leaves the training as it is."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from pipelines.datasets.samples import Batch
from pipelines.models import STResNet
from pipelines.training.loop import StepTrainer, Validate
from pipelines.training.metrics_log import MetricsLog
from pipelines.training.recipes import PAPER, override

UPDATES = 25
STEP = override(
    PAPER.steps["motion"], {"batch_size": 4, "micro_batch": 2, "iterations": UPDATES, "lr": 1e-3, "dropout": 0.5}
)
CPU = torch.device("cpu")


def batches() -> Iterator[Batch]:
    for number in range(UPDATES):
        generator = torch.Generator().manual_seed(number)
        flow = torch.randint(0, 256, (4, 1, 20, 32, 32), dtype=torch.uint8, generator=generator)
        yield Batch(None, flow, torch.arange(4) % 3, torch.arange(4))


def trained(folder: Path, on_validate: Validate | None) -> tuple[StepTrainer, list[dict[str, float]]]:
    """What a training leaves, and the lines that it logged."""
    torch.manual_seed(0)
    network = STResNet(3, depth=26, width=4, streams=("motion",), temporal_kernels=False, dropout=0.5)
    trainer = StepTrainer(network, STEP, 4, CPU)
    folder.mkdir()
    log = MetricsLog(folder, "motion", 0)
    trainer.fit(batches(), log=log, on_validate=on_validate, validate_every=20)
    log.close()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return trainer, [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def running_statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.named_buffers()}


def test_the_hook_is_called_at_its_interval_and_after_the_last_update_with_the_network_ready_for_testing(tmp_path):
    seen = []

    def validate(network: STResNet, update: int) -> dict[str, float]:
        before = running_statistics(network)
        logits = network(None, torch.randn(2, 1, 20, 32, 32)).motion
        same = all(torch.equal(value, before[name]) for name, value in running_statistics(network).items())
        modes = {module.training for module in network.modules()}
        seen.append((update, modes, logits.requires_grad, same))
        return {"loss": 0.5, "motion_accuracy": 0.25}

    trainer, lines = trained(tmp_path / "run", validate)
    assert seen == [(20, {False}, False, True), (25, {False}, False, True)]
    assert all(module.training for module in trainer.model.modules())
    told = {line["iteration"]: line.get("validation_motion_accuracy") for line in lines}
    assert told == {10: None, 20: 0.25, 25: 0.25}


def test_training_with_it_is_bit_for_bit_that_without_it(tmp_path):
    def validate(network: STResNet, update: int) -> dict[str, float]:
        torch.manual_seed(update)
        network(None, torch.randn(2, 1, 20, 32, 32))
        return {"loss": float(torch.rand(()))}

    plain, plain_lines = trained(tmp_path / "plain", None)
    state = torch.random.get_rng_state()
    validated, lines = trained(tmp_path / "validated", validate)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(validated.model.state_dict()[name], value), name
    trained_alike = [{n: v for n, v in line.items() if not n.startswith("validation")} for line in lines]
    assert trained_alike == plain_lines


def test_what_was_frozen_stays_frozen_and_an_error_leaves_the_network_training(tmp_path):
    torch.manual_seed(0)
    network = STResNet(3, depth=26, width=4, streams=("motion",), temporal_kernels=False)
    trainer = StepTrainer(network, STEP, 4, CPU)
    network.motion.bn1.eval()

    def fail(network: STResNet, update: int) -> dict[str, float]:
        raise RuntimeError("no videos")

    with pytest.raises(RuntimeError, match="no videos"):
        trainer.fit(batches(), on_validate=fail, validate_every=10)
    assert not network.motion.bn1.training
    assert network.motion.layer1.training
    assert torch.is_grad_enabled()
