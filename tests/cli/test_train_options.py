"""How `stres train` reads the numbers of its steps, and shows them."""

import json

import pytest

from pipelines.training.recipes import RECIPES


def recipe(stres, *arguments):
    shown = stres("train", "--show-recipe", "--json", "--recipe", "paper", *arguments)
    assert shown.exit_code == 0, shown.stderr
    return json.loads(shown.stdout)


def test_without_options_the_steps_are_the_recipe(stres):
    for name, wanted in RECIPES.items():
        steps = recipe(stres, "--recipe", name)

        assert list(steps) == list(wanted.default_steps)
        assert [step["lr"] for step in steps.values()] == [wanted.steps[step].lr for step in steps]


def test_a_value_holds_for_all_steps(stres):
    steps = recipe(stres, "--dropout", 0.25)

    assert {step["dropout"] for step in steps.values()} == {0.25}


def test_values_by_step_leave_the_others_alone(stres):
    steps = recipe(stres, "--recipe", "small", "--lr", "motion=0.05, joint1=0.02", "--iterations", "appearance=7")

    assert [step["lr"] for step in steps.values()] == [0.05, 0.05, 0.02]
    assert [step["iterations"] for step in steps.values()] == [7, 700, 300]


@pytest.mark.parametrize(
    ("option", "text", "field", "value"),
    [
        ("--lr", "1e-3", "lr", 0.001),
        ("--schedule", "cosine", "schedule", "cosine"),
        ("--schedule", "1:0.1:0.01", "schedule", [1, 0.1, 0.01]),
        ("--epochs", "3", "epochs", 3),
        ("--iterations", "5", "iterations", 5),
        ("--factor", "2", "factor", 2),
        ("--batch-size", "6", "batch_size", 6),
        ("--micro-batch", "3", "micro_batch", 3),
        ("--frames", "12", "frames", 12),
        ("--stride", "4-9", "stride", [4, 9]),
        ("--stride", "4", "stride", [4, 4]),
        ("--dropout", "0", "dropout", 0),
        ("--augmentation", "mild", "augmentation", "mild"),
        ("--augmentation", "center", "augmentation", "center"),
        ("--crops", "centre", "augmentation", "center"),  # as stres 0.1 called them
        ("--mirror", "no", "mirror", False),
        ("--temporal-pool", "1/1", "temporal_pool", [1, 1]),
        ("--momentum", "0.5", "momentum", 0.5),
        ("--nesterov", "yes", "nesterov", True),
        ("--weight-decay", "0", "weight_decay", 0),
        ("--label-smoothing", "0.2", "label_smoothing", 0.2),
        ("--color-jitter", "0.4", "color_jitter", 0.4),
        ("--freeze", "3", "freeze", 3),
        ("--flow-scale", "1.5", "flow_scale", 1.5),
    ],
)
def test_every_number_of_a_step_has_its_option(stres, option, text, field, value):
    steps = recipe(stres, option, text)

    assert [step[field] for step in steps.values()] == [value] * 4


def test_every_number_of_a_step_is_among_them(stres):
    shown = stres("train", "--show-recipe", "--recipe", "paper")

    flags = {line.split()[0] for line in shown.stdout.splitlines() if line.startswith("--")}
    fields = set(recipe(stres)["joint1"]) - {"name"}
    assert flags == {f"--{field.replace('_', '-')}" for field in fields}


def test_the_shown_recipe_reads_as_the_options_do(stres):
    shown = stres("train", "--show-recipe", "--recipe", "small", "--steps", "joint2,motion", COLUMNS="120")

    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.startswith("--")}
    assert rows["--stride"] == ["1-1", "1-5"]
    assert rows["--schedule"] == ["cosine", "cosine"]
    assert rows["--temporal-pool"] == ["–", "5/2"]
    assert rows["--mirror"] == ["yes", "yes"]
    assert rows["--epochs"] == ["–", "–"]  # the number of iterations is given


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("--lr", "motions=0.1", "'motions' is not a step; the steps are appearance, motion, joint1, joint2"),
        ("--lr", "motion=0.1,", "'' is not a step"),
        ("--lr", "fast", "--lr 'fast' cannot be read: give a number"),
        ("--lr", "nan", "--lr nan for appearance: give a number above 0"),
        ("--lr", "0", "--lr 0.0 for appearance: give a number above 0"),
        ("--epochs", "2.5", "--epochs '2.5' cannot be read: give an integer"),
        ("--stride", "9-4", "--stride 9-4 for appearance: give LOW-HIGH with LOW <= HIGH"),
        ("--stride", "0-4", "--stride 0-4 for appearance: give N or LOW-HIGH of at least 1 frame"),
        ("--stride", "a-b", "such as 5-15"),
        ("--mirror", "maybe", "give yes or no"),
        ("--schedule", "1:x", "--schedule '1:x' cannot be read: give cosine, or factors"),
        ("--temporal-pool", "5", "such as 5/2"),
        ("--momentum", "1", "a number of at least 0 and below 1"),
        ("--weight-decay", "-1", "--weight-decay -1.0 for appearance: give a number of at least 0"),
        ("--temporal-pool", "0/2", "--temporal-pool 0/2 for appearance: give SIZE/STRIDE of at least 1 frame each"),
        ("--steps", "motion,joint3", "--steps 'joint3' is not known: give some of appearance, motion, joint1"),
        ("--depth", "34", "--depth 34 is not known: give one of 26, 50, 101, 152"),
        (
            "--freeze",
            "2",
            "--freeze 2 for appearance would keep random layers, since it is trained from no weights: give",
        ),
        ("--size", "tall", "--size 'tall' cannot be read: give N or HxW of at least 32 pixels a side"),
        ("--size", "16x64", "--size 16x64: give N or HxW of at least 32 pixels"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(stres, option, text, expected):
    shown = stres("train", "--show-recipe", option, text)

    assert shown.exit_code == 2
    assert expected in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_the_shown_recipe_is_the_one_that_would_be_picked(stres):
    shown = stres("train", "--show-recipe", "--weights", "none")

    assert "recipe small" in shown.stdout
