"""One update: the loss, the gradients of micro-batches, and the rates by kind of parameter."""

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.datasets.augmentation import Crop
from pipelines.datasets.clips import Clip, Clips
from pipelines.datasets.samples import Batch
from pipelines.models import StreamLogits, STResNet
from pipelines.training.data_parallel import micro_batch_ranges
from pipelines.training.loop import StepTrainer, correct_videos, video_loss
from pipelines.training.optimiser import make_optimiser, parameter_kinds, set_learning_rate
from pipelines.training.recipes import PAPER, override


def naive_cross_entropy(logits: np.ndarray, label: int, smoothing: float) -> float:
    shifted = logits - logits.max()
    log_probabilities = shifted - np.log(np.exp(shifted).sum())
    target = np.full(len(logits), smoothing / len(logits))
    target[label] += 1 - smoothing
    return float(-(target * log_probabilities).sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_sums_streams_and_time_steps_of_every_video(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = StreamLogits(*(torch.randn(3, 5, 4, generator=generator) for _ in range(2)))
    labels = torch.tensor([0, 3, 1])
    naive = sum(
        naive_cross_entropy(stream[video, t].double().numpy(), int(labels[video]), smoothing)
        for stream in logits
        for video in range(3)
        for t in range(5)
    )
    assert float(video_loss(logits, labels, smoothing)) == pytest.approx(naive, rel=1e-5)


def test_the_loss_of_one_stream_leaves_the_absent_one_out():
    logits = torch.zeros(2, 1, 4)
    assert float(video_loss(StreamLogits(None, logits), torch.tensor([0, 1]))) == pytest.approx(2 * np.log(4))


def test_a_video_is_right_where_its_logits_averaged_over_time_are():
    appearance = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])  # means: class 0, class 1
    motion = torch.tensor([[[0.0, 9.0], [0.0, 9.0]], [[0.0, 0.0], [0.0, 0.1]]])  # means: class 1, class 1
    counts = correct_videos(StreamLogits(appearance, motion), torch.tensor([0, 1]))
    assert {name: int(count) for name, count in counts.items()} == {"appearance": 2, "motion": 1, "fused": 1}


def test_every_parameter_gets_the_papers_rate_and_decay():
    network = STResNet(5, depth=26, width=4)
    optimiser = make_optimiser(network, PAPER.steps["joint1"])
    set_learning_rate(optimiser, 0.01)
    found = {
        id(parameter): (round(group["lr"] / 0.01, 6), group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    for name, parameter in network.named_parameters():
        module = network.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.BatchNorm2d):
            expected = (2.0, 0.0) if name.endswith("weight") else (1.0, 0.0)
        else:
            expected = (1.0, 5e-4) if name.endswith("weight") else (2.0, 0.0)
        assert found[id(parameter)] == expected, name
    assert len(found) == len(list(network.parameters()))


def test_the_kinds_of_parameters_of_a_resnet():
    kinds = parameter_kinds(STResNet(5, depth=26, width=4))
    assert kinds["appearance.conv1.weight"] == "filter"
    assert kinds["motion.layer1.1.conv1.weight"] == "filter"
    assert kinds["motion.bn1.weight"] == "norm scale"
    assert kinds["motion.bn1.bias"] == "norm shift"
    assert kinds["appearance.fc.bias"] == "bias"


def batch_of(videos: int, frames: int) -> Batch:
    rng = np.random.default_rng(videos)
    rgb = torch.from_numpy(rng.integers(0, 256, (videos, frames, 3, 32, 32), dtype=np.uint8))
    flow = torch.from_numpy(rng.integers(0, 256, (videos, frames, 20, 32, 32), dtype=np.uint8))
    return Batch(rgb, flow, torch.arange(videos) % 3, torch.arange(videos))


def test_two_micro_batches_give_the_mean_gradient_of_their_videos():
    """Batch norm is in evaluation mode here, since its statistics are per micro-batch on purpose (paper.md 3.2)."""
    torch.manual_seed(0)
    network = STResNet(3, depth=26, width=4).double()
    step = override(PAPER.steps["joint1"], {"batch_size": 4, "frames": 3})
    gradients = []
    for micro_batch in (4, 2):
        network.zero_grad()
        trainer = StepTrainer(network, override(step, {"micro_batch": micro_batch}), 4, torch.device("cpu"))
        trainer.prepare.double()
        network.eval()
        seen: dict[str, torch.Tensor] = {}
        trainer.optimiser.register_step_pre_hook(
            lambda *_, seen=seen: seen.update({n: p.grad.clone() for n, p in network.named_parameters()})
        )
        before = {name: value.clone() for name, value in network.state_dict().items()}
        trainer.fit([batch_of(4, 3)])
        network.load_state_dict(before)
        gradients.append(seen)
    batch = batch_of(4, 3)
    naive = video_loss(network(*trainer.prepare(batch.rgb, batch.flow)), batch.labels) / 4
    naive.backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(gradients[0][name], parameter.grad)
        torch.testing.assert_close(gradients[1][name], parameter.grad)


def test_micro_batches_at_once_are_continued_as_they_began():
    """Bit for bit: the checkpoint says how many a pass is of. Those of stres before it say nothing, and are of one."""
    step = override(PAPER.steps["joint1"], {"batch_size": 4, "micro_batch": 2, "frames": 2})

    def trainer(at_once: int | None) -> StepTrainer:
        torch.manual_seed(0)
        return StepTrainer(STResNet(3, depth=26, width=4), step, 4, torch.device("cpu"), at_once=at_once)

    whole, again = trainer(2), trainer(None)
    for _ in range(2):
        whole.fit([batch_of(4, 2)])
    first = trainer(2)
    first.fit([batch_of(4, 2)])
    again.load_state_dict(first.state_dict())
    again.fit([batch_of(4, 2)])
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
        assert not name.endswith("num_batches_tracked") or value == 4
    older = trainer(None)
    older.load_state_dict({name: value for name, value in first.state_dict().items() if name != "at_once"})
    assert older.at_once == 1


def test_frozen_groups_stay_and_all_else_is_trained_as_it_would_be_without():
    """Kernels over time are trained everywhere, and batch norm's running statistics move. Bit for bit as it continues;
    the next step trains them again."""
    step = override(PAPER.steps["joint1"], {"batch_size": 4, "micro_batch": 2, "frames": 2, "freeze": 2})
    gradients: dict[int, dict[str, torch.Tensor]] = {}

    def trainer(freeze: int = 2) -> StepTrainer:
        torch.manual_seed(0)
        network = STResNet(3, depth=26, width=4)
        return StepTrainer(network, override(step, {"freeze": freeze}), 4, torch.device("cpu"), at_once=2)

    def update(one: StepTrainer) -> None:
        one.fit([batch_of(4, 2)])

    before = {name: value.clone() for name, value in trainer().model.state_dict().items()}
    for freeze in (2, 0):
        one = trainer(freeze)
        one.optimiser.register_step_pre_hook(
            lambda *_, one=one, freeze=freeze: gradients.update(
                {freeze: {name: p.grad.clone() for name, p in one.model.named_parameters() if p.grad is not None}}
            )
        )
        update(one)
    first, whole = (trainer() for _ in range(2))
    for one in (first, whole, whole):
        update(one)
    again = trainer()
    again.load_state_dict(first.state_dict())
    update(again)
    found = whole.model.state_dict()
    for name, value in found.items():
        layer = name.partition(".")[2]
        is_kept = layer.startswith(("conv1.", "bn1.", "layer1.")) and value.ndim != 5 and "running" not in name
        is_kept = is_kept and not name.endswith("num_batches_tracked")
        assert torch.equal(value, before[name]) is is_kept, name
        assert torch.equal(again.model.state_dict()[name], value), name
        assert (name in gradients[2]) is (name in gradients[0] and not is_kept), name
    for name, gradient in gradients[2].items():
        torch.testing.assert_close(gradient, gradients[0][name], rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n} {m}")
    next_step = StepTrainer(whole.model, PAPER.steps["joint2"], 4, torch.device("cpu"))
    trained = {id(parameter) for group in next_step.optimiser.param_groups for parameter in group["params"]}
    assert all(parameter.requires_grad and id(parameter) in trained for parameter in whole.model.parameters())


def test_with_all_groups_frozen_the_classifier_is_trained():
    step = override(PAPER.steps["motion"], {"batch_size": 4, "freeze": 5, "dropout": 0.0})
    trainer = StepTrainer(
        STResNet(3, depth=26, width=4, temporal_kernels=False, streams=("motion",)), step, 4, torch.device("cpu")
    )
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.fit([batch_of(4, 1)])
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"motion.fc.weight", "motion.fc.bias"}


def test_bf16_gives_the_gradient_of_double_precision_to_its_rounding():
    """Batch norm is in evaluation mode here: from the statistics of a few videos of noise it magnifies rounding."""
    step = override(PAPER.steps["joint1"], {"batch_size": 4, "frames": 3, "dropout": 0.0})
    gradients = {}
    for precision in ("bf16", "double"):
        torch.manual_seed(0)
        network = STResNet(3, depth=26, width=16)
        trainer = StepTrainer(network, step, 4, torch.device("cpu"), "bf16" if precision == "bf16" else "fp32")
        network.eval()
        if precision == "double":
            network.double()
            trainer.prepare.double()
        trainer.optimiser.register_step_pre_hook(
            lambda *_, name=precision, network=network: gradients.update(
                {name: torch.cat([p.grad.double().flatten() for p in network.parameters()])}
            )
        )
        trainer.fit([batch_of(4, 3)])
    difference = (gradients["bf16"] - gradients["double"]).norm() / gradients["double"].norm()
    assert 1e-4 < difference < 0.1


def test_a_batch_without_a_readable_video_changes_nothing_and_is_remembered():
    network = STResNet(3, depth=26, width=4)
    trainer = StepTrainer(network, PAPER.steps["joint1"], 4, torch.device("cpu"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    empty = torch.empty(0, dtype=torch.int64)
    trainer.fit([Batch(None, None, empty, empty, {"a/b": "damaged"})])
    assert trainer.state.iteration == 1
    assert trainer.state.unreadable == {"a/b": "damaged"}
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_micro_batch_without_a_readable_video_leaves_the_others():
    """As loaded: clips, of which there can be none of no shape."""
    step = override(PAPER.steps["joint1"], {"batch_size": 4, "micro_batch": 2, "frames": 2, "dropout": 0.0})
    losses = []
    for missing in ((0, 1), ()):
        torch.manual_seed(0)
        trainer = StepTrainer(STResNet(3, depth=26, width=4), step, 4, torch.device("cpu"))
        trainer.fit([loaded(2 if missing else 0, 2, missing)])
        losses.append(float(trainer.state.sums["loss"]))
    assert losses[0] == losses[1] > 0


def loaded(damaged: int, good: int, missing: tuple[int, ...]) -> Batch:
    """A batch of clips whose first places were damaged."""
    generator = torch.Generator().manual_seed(1)
    rgb, flow = (
        Clips(
            [
                Clip(
                    torch.randint(0, 256, (2, channels, 32, 32), dtype=torch.uint8, generator=generator),
                    np.arange(2)[:, None],
                    Crop(0, 0, 32, 32),
                    (32, 32),
                )
                for _ in range(good)
            ]
        )
        for channels in (3, 20)
    )
    indices = torch.arange(good)
    return Batch(rgb, flow, indices % 3, indices, dict.fromkeys("ab"[:damaged], "damaged"), missing)


def test_an_update_that_overflows_in_fp16_is_left_out_and_the_next_is_as_the_first_would_be():
    step = override(PAPER.steps["joint1"], {"batch_size": 2, "frames": 2, "dropout": 0.0})
    torch.manual_seed(0)
    network = STResNet(3, depth=26, width=4)
    trainer = StepTrainer(network, step, 4, torch.device("cpu"), "fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-50)
    before = {name: value.clone() for name, value in network.named_parameters()}
    trainer.fit([batch_of(2, 2)])
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())
    for _ in range(2):
        trainer.fit([batch_of(2, 2)])
    assert all(value.isfinite().all() for value in network.state_dict().values())
    momenta = [state["momentum_buffer"] for state in trainer.optimiser.state.values()]
    assert momenta
    assert all(momentum.isfinite().all() for momentum in momenta)


@pytest.mark.parametrize(
    ("count", "largest", "parts"),
    [
        (128, 32, [(0, 32), (32, 64), (64, 96), (96, 128)]),
        (33, 32, [(0, 16), (16, 33)]),
        (3, 4, [(0, 3)]),
        (3, 2, [(0, 3)]),
        (5, 2, [(0, 2), (2, 5)]),
        (3, 1, [(0, 1), (1, 2), (2, 3)]),
        (0, 4, []),
    ],
)
def test_micro_batches_are_micro_batch_ranges(count, largest, parts):
    assert micro_batch_ranges(count, largest) == parts
