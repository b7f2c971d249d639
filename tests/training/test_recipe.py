"""The table of paper.md 3.3, line by line, and what overriding may do."""

import itertools
import math

import pytest

from pipelines.datasets.sampler import StepSampler, batches_per_epoch
from pipelines.errors import UsageError
from pipelines.training.optimiser import learning_rate
from pipelines.training.recipes import FINETUNE, PAPER, RECIPES, SMALL, Step, override, pick

UCF101_TRAINING_VIDEOS = 9537


def rates_by_epoch(step: Step, videos: int) -> list[float]:
    """The rate of the first update of every epoch, rounded so that powers of ten compare."""
    total = step.updates(videos)
    firsts = range(0, total, batches_per_epoch(videos, step.factor, step.batch_size))
    return [float(f"{learning_rate(step, iteration, total):.6g}") for iteration in firsts]


@pytest.mark.parametrize(
    ("name", "rates", "factor", "batch", "frames", "stride", "dropout", "augmentation", "micro"),
    [
        ("appearance", [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], 10, 256, 1, (1, 1), 0.0, "corner-jittered", 32),
        ("motion", [1e-2, 1e-3, 1e-4, 1e-5], 100, 128, 1, (1, 1), 0.8, "multi-scale-corner", 32),
        ("joint1", [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 2, 10, 128, 5, (5, 15), 0.0, "corner-jittered", 4),
        ("joint2", [1e-4, 1e-5], 1, 128, 11, (1, 15), 0.0, "corner-jittered", 4),
    ],
)
def test_the_papers_steps_are_its_table(name, rates, factor, batch, frames, stride, dropout, augmentation, micro):
    step = PAPER.steps[name]
    assert rates_by_epoch(step, UCF101_TRAINING_VIDEOS) == pytest.approx(rates)
    assert (step.factor, step.batch_size, step.frames, step.stride) == (factor, batch, frames, stride)
    assert (step.dropout, step.augmentation, step.micro_batch, step.mirror) == (dropout, augmentation, micro, True)
    assert (step.momentum, step.nesterov, step.weight_decay, step.label_smoothing) == (0.9, False, 5e-4, 0.0)


def test_only_the_papers_second_joint_step_pools_over_time():
    pools = {name: step.temporal_pool for name, step in PAPER.steps.items()}
    assert pools == dict.fromkeys(("appearance", "motion", "joint1", "student")) | {"joint2": (5, 2)}


def test_the_papers_network_is_a_resnet50_of_full_width_at_224_pixels():
    assert (PAPER.depth, PAPER.width, PAPER.size, PAPER.weights) == (50, 64, (224, 224), "imagenet")


@pytest.mark.parametrize("videos", [1, 5, 31, 32, 38, 56, 9537])
def test_all_batches_of_a_step_of_so_many_iterations_are_full(videos):
    step = override(SMALL.steps["motion"], {"iterations": 50})
    sampler = StepSampler(videos, step.passes(videos), step.batch_size, seed=0, step_index=1)
    assert {len(batch) for batch in itertools.islice(sampler, 2 * sampler.batches_per_epoch)} == {step.batch_size}


def test_epochs_end_as_they_do_in_the_paper_with_what_is_left():
    assert override(SMALL.steps["motion"], {"epochs": 3}).passes(38) == SMALL.steps["motion"].factor
    assert PAPER.steps["motion"].passes(UCF101_TRAINING_VIDEOS) == 100


def test_an_epoch_goes_factor_times_over_the_videos():
    step = PAPER.steps["appearance"]
    assert step.updates(UCF101_TRAINING_VIDEOS) == 6 * math.ceil(UCF101_TRAINING_VIDEOS * 10 / 256)


def test_a_schedule_is_stretched_over_more_epochs():
    step = override(PAPER.steps["joint2"], {"epochs": 4})
    assert rates_by_epoch(step, 256) == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])


def test_the_cosine_warms_up_then_falls_to_almost_nothing():
    step = override(SMALL.steps["motion"], {"iterations": 200, "lr": 0.5})
    rates = [learning_rate(step, iteration, 200) for iteration in range(200)]
    assert rates[:10] == pytest.approx([0.05 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(0.5)
    assert rates[105] == pytest.approx(0.25)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_default_step_of_a_recipe_is_one_of_its_steps(recipe):
    assert set(RECIPES[recipe].default_steps) <= set(RECIPES[recipe].steps)


def test_overriding_epochs_replaces_a_number_of_iterations():
    assert override(SMALL.steps["motion"], {"epochs": 3}).iterations is None
    with pytest.raises(UsageError, match="--epochs 3 and --iterations 8 both say how long motion is trained: give one"):
        override(SMALL.steps["motion"], {"epochs": 3, "iterations": 8})


def test_a_smaller_batch_cuts_the_micro_batch():
    assert override(PAPER.steps["motion"], {"batch_size": 8}).micro_batch == 8
    assert override(PAPER.steps["motion"], {"batch_size": 8, "micro_batch": 2}).micro_batch == 2


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"lr": 0.0}, "--lr"),
        ({"batch_size": 0}, "--batch-size"),
        ({"frames": 0}, "--frames"),
        ({"iterations": 0}, "--iterations"),
        ({"dropout": 1.0}, "--dropout"),
        ({"momentum": 1.0}, "--momentum"),
        ({"label_smoothing": -0.1}, "--label-smoothing"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"nesterov": True, "momentum": 0.0}, "--nesterov"),
        ({"augmentation": "tiny"}, "--augmentation"),
        ({"stride": (5, 2)}, "--stride"),
        ({"schedule": ()}, "--schedule"),
        ({"flow_scale": 0.5}, "--flow-scale 0.5 for joint1: give a number of at least 1"),
        ({"freeze": 6}, "--freeze 6 for joint1: give an integer from 0 to 5"),
    ],
)
def test_a_value_out_of_range_names_its_flag(changes, flag):
    with pytest.raises(UsageError, match=flag):
        override(PAPER.steps["joint1"], changes)


def test_too_few_frames_for_the_temporal_pooling_are_refused():
    with pytest.raises(UsageError, match="--frames 3 for joint2: its temporal pooling needs at least 5"):
        override(PAPER.steps["joint2"], {"frames": 3})


@pytest.mark.parametrize(
    ("weights", "on_gpu", "clips", "recipe", "reason"),
    [
        ("none", True, 20_000, "small", "--weights none trains from scratch"),
        (None, False, 20_000, "small", "there are neither --weights nor a GPU"),
        (None, True, 4999, "finetune", "there is a GPU and there are only 4999 clips"),
        (None, True, 5000, "paper", "there are a GPU and 5000 clips"),
        ("imagenet", True, 13_320, "paper", "there are a GPU and 13320 clips"),
        ("a.pth", False, 13_320, "finetune", "--weights are given and there is no GPU for 13320 clips"),
        ("run:old", True, 150, "finetune", "--weights are given and there are only 150 clips"),
    ],
)
def test_without_a_recipe_weights_gpu_and_clips_decide(weights, on_gpu, clips, recipe, reason):
    assert pick(weights, on_gpu, clips) == (recipe, reason)


def test_updates_of_finetune_grow_with_the_root_of_the_training_videos_from_100_on():
    def updates(recipe):
        return {name: step.iterations for name, step in recipe.steps.items()}

    of_100 = {"appearance": 120, "motion": 200, "joint1": 240, "joint2": 60, "student": 240}
    assert updates(FINETUNE.for_videos(30)) == updates(FINETUNE.for_videos(100)) == of_100
    assert updates(FINETUNE.for_videos(400)) == {name: 2 * number for name, number in of_100.items()}
    assert updates(FINETUNE.for_videos(1000))["motion"] == round(200 * 1000**0.5 / 10) == 632
    assert PAPER.for_videos(9537) is PAPER
    assert SMALL.for_videos(9537) is SMALL
