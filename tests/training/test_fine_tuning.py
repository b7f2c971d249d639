"""Fine-tuning (`--weights run:NAME[/STEP]`): all of the other run is kept but the classifiers of other classes."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import train
from pipelines.datasets.split_lists import Split, read_lists
from pipelines.datasets.splits import write_splits
from pipelines.errors import MissingError, UsageError
from pipelines.models import load_pretrained
from pipelines.storage.atomic import write_json
from pipelines.storage.typed_json import not_compared
from pipelines.storage.workspace import Workspace
from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load
from pipelines.training.run_config import RunConfig, StepConfig
from pipelines.training.runs import Run
from pipelines.training.settings import like_another
from tests.helpers.old_weights import forget_configuration
from tests.helpers.workspaces import write_workspace

STEPS = ("appearance", "motion", "joint1", "joint2")
CLASSIFIERS = ("fc.weight", "fc.bias")
# So small a rate that the weights a step leaves are those it began with; batch norm's moments move all the same.
STILL = {"lr": 1e-20, "iterations": 1, "batch_size": 2}
TINY = {
    "appearance": STILL,
    "motion": STILL,
    "joint1": STILL | {"frames": 2, "stride": (1, 2)},
    "joint2": STILL | {"frames": 5, "stride": (1, 1)},
}


def config(workspace: Workspace, **changes: Any) -> train.Config:
    defaults = {"recipe": "small", "width": 2, "size": (32, 32), "overrides": TINY, "device": "cpu"}
    return train.Config(workspace.root, **(defaults | changes))


def weights(workspace: Workspace, run: str, step: str) -> dict[str, torch.Tensor]:
    return load(Run(workspace.runs / run).weights_file(step), WEIGHTS_SCHEMA)["model"]


def told(workspace: Workspace, **changes: Any) -> list[str]:
    """Trains, and returns what was said on the way."""
    messages: list[str] = []
    train.run(config(workspace, **changes), lambda progress: messages.append(progress.message))
    return [message for message in messages if message]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workspace:
    """A workspace with the run `old`, all four steps done."""
    workspace = write_workspace(tmp_path_factory.mktemp("trained") / "work")
    train.run(config(workspace, name="old", steps=STEPS))
    return workspace


@pytest.fixture
def workspace(trained, tmp_path) -> Workspace:
    """A copy of it, to train on."""
    return Workspace(shutil.copytree(trained.root, tmp_path / "work"))


@pytest.fixture
def three_classes(workspace) -> Workspace:
    """The same workspace, whose split has a class more than when `old` was trained."""
    ids = [f"{name}/{name}{number}" for name in ("jump", "wave") for number in range(5)]
    write_splits(workspace.splits, [Split(1, ids[::2], ids[1::2], ["jump", "walk", "wave"], "test")])
    return workspace


def assert_kept(new: dict[str, torch.Tensor], old: dict[str, torch.Tensor], *, classifiers: bool) -> None:
    assert new.keys() <= old.keys()
    for key, value in new.items():
        if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        if key.split(".", 1)[1] in CLASSIFIERS and not classifiers:
            continue
        torch.testing.assert_close(value, old[key], rtol=0, atol=1e-12, msg=key)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_keeps_everything_but_the_classifiers_of_other_classes(three_classes, step):
    messages = told(three_classes, name="new", steps=(step,), weights="run:old")
    new, old = weights(three_classes, "new", step), weights(three_classes, "old", step)
    assert_kept(new, old, classifiers=False)
    fresh = torch.cat([value.flatten() for key, value in new.items() if key.endswith("fc.weight")])
    assert fresh.std().item() == pytest.approx(0.01, rel=0.15)  # paper.md 2.6
    for key, value in new.items():
        if key.endswith("fc.bias"):
            assert value.shape == (3,)
            assert value.abs().max() < 1e-12
    assert f"{step} starts from {step} of run old, with new classifiers: the 3 classes here are not the 2 there" in (
        messages
    )


def test_the_running_moments_are_the_other_runs_too(three_classes):
    """One batch has moved them by a twentieth; from their defaults they would be elsewhere."""
    train.run(config(three_classes, name="new", steps=("motion",), weights="run:old"))
    new, old = (weights(three_classes, run, "motion")["motion.bn1.running_mean"] for run in ("new", "old"))
    fresh = torch.zeros_like(old)
    batch = (new - 0.95 * old) / 0.05
    assert not torch.allclose(new, 0.95 * fresh + 0.05 * batch)
    assert weights(three_classes, "new", "motion")["motion.bn1.num_batches_tracked"] == 2


@pytest.mark.parametrize("step", ["appearance", "joint2"])
def test_the_classifiers_are_kept_where_the_classes_are_the_same(workspace, step):
    messages = told(workspace, name="new", steps=(step,), weights="run:old")
    assert_kept(weights(workspace, "new", step), weights(workspace, "old", step), classifiers=True)
    assert f"{step} starts from {step} of run old, classifiers included: the classes are the same" in messages


def test_a_joint_step_that_began_with_another_run_stays_so_when_a_stream_is_trained_after_it(workspace):
    for step in ("joint1", "motion"):
        train.run(config(workspace, name="new", steps=(step,), weights="run:old"))
    again = train.run(train.Config(workspace.root, name="new", device="cpu"))
    assert [(step.step, step.already_done) for step in again.steps] == [("motion", True), ("joint1", True)]


def test_classes_in_another_order_are_other_classes(workspace):
    document = json.loads((workspace.runs / "old" / "config.json").read_text())
    document["classes"].reverse()
    (workspace.runs / "old" / "config.json").write_text(json.dumps(document))
    forget_configuration(Run(workspace.runs / "old"), "motion")
    assert any("new classifiers" in text for text in told(workspace, name="new", steps=("motion",), weights="run:old"))


def test_all_steps_take_their_base_streams_from_the_run_and_the_rest_from_themselves(three_classes):
    messages = told(three_classes, name="new", steps=STEPS[:3], weights="run:old")
    assert [text.split()[0] for text in messages if "starts from" in text] == ["appearance", "motion"]
    assert list(json.loads((three_classes.runs / "new" / "config.json").read_text())["steps"]) == list(STEPS[:3])
    new, base = weights(three_classes, "new", "joint1"), weights(three_classes, "new", "motion")
    torch.testing.assert_close(new["motion.fc.weight"], base["motion.fc.weight"])


def test_a_joint_step_starts_directly_from_the_other_joint_step_where_it_is_named(workspace):
    train.run(config(workspace, name="new", steps=("joint2",), weights="run:old/joint1"))
    record = json.loads((workspace.runs / "new" / "config.json").read_text())
    file = workspace.runs / "old" / "joint1" / "weights.pt"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["steps"]["joint2"]["weights"] == {"run": "old", "step": "joint1", "sha256": sha256}
    assert record["weights"] == "run:old/joint1"
    assert_kept(weights(workspace, "new", "joint2"), weights(workspace, "old", "joint1"), classifiers=True)


def test_a_run_of_another_workspace_is_given_by_its_folder(workspace, trained):
    folder = trained.runs / "old"
    for name, text in (("whole", str(folder)), ("step", f"{folder}/motion")):
        train.run(config(workspace, name=name, steps=("motion",), weights=f"run:{text}"))
        assert_kept(weights(workspace, name, "motion"), weights(trained, "old", "motion"), classifiers=True)
        record = json.loads((workspace.runs / name / "config.json").read_text())
        assert record["steps"]["motion"]["weights"]["run"] == str(folder.resolve())


def test_the_same_command_has_nothing_to_do_and_changed_weights_are_noticed(workspace):
    settings = {"name": "new", "steps": ("motion",), "weights": "run:old"}
    train.run(config(workspace, **settings))
    assert train.run(config(workspace, **settings)).steps[0].already_done
    assert not any("starts from" in text for text in told(workspace, **settings))
    file = workspace.runs / "old" / "motion" / "weights.pt"
    content = torch.load(file, weights_only=True)
    content["model"]["motion.fc.bias"] += 1
    torch.save(content, file)
    with pytest.raises(UsageError, match=r"steps\.motion\.weights\.sha256 was .* and is now"):
        train.run(config(workspace, **settings))


def test_other_flow_is_told_but_allowed(workspace):
    document = json.loads((workspace.runs / "old" / "config.json").read_text())
    document["flow"]["bound"] = 3.0
    (workspace.runs / "old" / "config.json").write_text(json.dumps(document))
    forget_configuration(Run(workspace.runs / "old"), "motion")
    messages = told(workspace, name="new", steps=("motion",), weights="run:old")
    assert "run old was trained on other flow: flow.bound was 3.0 and is now 20.0" in messages


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"weights": "run:older"},
            MissingError,
            "neither a run in .* nor a run's folder: in the workspace there are old",
        ),
        ({"weights": "run:"}, MissingError, "there are old"),
        ({"weights": "run:old/late"}, UsageError, "'late' is not a step, give one of appearance, motion, joint1"),
        (
            {"weights": "run:old", "name": "old"},
            UsageError,
            "is the run to be trained: give the new one another --name",
        ),
        ({"weights": "run:old", "name": "old", "overwrite": True}, UsageError, "give the new one another --name"),
        ({"width": 4}, UsageError, "--width 4 does not fit the weights of run old, which are of 2: leave it out"),
        ({"depth": 50}, UsageError, "--depth 50 does not fit the weights of run old, which are of 26"),
        ({"fusion": "multiply", "steps": ("joint1",)}, UsageError, "fusion is add there and multiply here"),
        ({"direction": "both", "steps": ("joint1",)}, UsageError, "direction is motion-to-appearance there"),
        ({"temporal_kernels": False, "steps": ("joint2",)}, UsageError, "temporal_kernels is True there.*--like old$"),
        (
            {"weights": "run:old/joint1"},
            UsageError,
            "motion cannot start from joint1 of run old: give --weights run:old without a step, or --steps joint1,j",
        ),
        ({"weights": "run:old/motion", "steps": ("joint1",)}, UsageError, "joint1 cannot start from motion"),
        ({"weights": "run:old/motion", "steps": ("appearance",)}, UsageError, "or --steps motion"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(workspace, changes, error, message):
    before = sorted(workspace.runs.rglob("*"))
    with pytest.raises(error, match=message):
        train.run(config(workspace, **({"name": "new", "steps": ("motion",), "weights": "run:old"} | changes)))
    assert sorted(workspace.runs.rglob("*")) == before


def test_depth_and_width_are_those_of_the_run_unless_given(workspace):
    train.run(config(workspace, name="new", steps=("motion",), weights="run:old", width=None, recipe="finetune"))
    network = Run(workspace.runs / "new").config().network
    assert (network.depth, network.width) == (26, 2)


def test_test_videos_that_the_run_was_trained_on_are_told(three_classes):
    settings = {"name": "new", "steps": ("motion",), "weights": "run:old"}
    before = set(Run(three_classes.runs / "old").split().train)
    seen = [id_ for id_ in read_lists(three_classes.splits)[0].test if id_ in before]
    message = (
        f"warning: run old was trained on {len(seen)} videos of this split's test, for example {seen[0]}: accuracy"
    )
    assert len(seen) > 1
    assert any(text.startswith(message) for text in told(three_classes, **settings))
    document = json.loads((three_classes.runs / "old" / "split.json").read_text())
    document["train"] = [id_.upper() for id_ in document["train"]]
    (three_classes.runs / "old" / "split.json").write_text(json.dumps(document))
    assert any(text.startswith(message) for text in told(three_classes, **settings, overwrite=True))
    document["sources"][seen[0]] = "another video of that name"
    (three_classes.runs / "old" / "split.json").write_text(json.dumps(document))
    assert any(f"for example {seen[1]}" in text for text in told(three_classes, **settings, overwrite=True))


def test_held_out_videos_that_the_run_was_trained_on_are_told(three_classes):
    settings = {"name": "new", "steps": ("motion",), "weights": "run:old", "validation": 0.3}
    messages = told(three_classes, **settings)
    held_out = Run(three_classes.runs / "new").held_out()
    seen = [id_ for id_ in held_out if id_ in set(Run(three_classes.runs / "old").split().train)]
    assert seen
    (warning,) = [text for text in messages if text.startswith("warning: run old was trained on")]
    assert f"{len(seen)} video{'s' * (len(seen) > 1)} held out here, for example {seen[0]}: held-out" in warning


# ------------------------------------------------------------------ --like


def like(workspace, **changes):
    return like_another(train.Config(workspace.root, name="new", like="old", **changes))


# Of a run: what it is of, what follows from its data and weights, and what makes no difference.
NOT_TAKEN = {
    "schema", "split", "seed", "classes", "train_videos", "flow", "split_sha256", "split_set", "excluded_classes",
    "compile", "base_run", "weights_sha256", "frames_short_side", "others",
} | not_compared(RunConfig)  # fmt: skip


def test_like_takes_every_setting_but_what_the_run_is_of(workspace):
    run = Run(workspace.runs / "old")
    begun = run.config()
    network = dataclasses.replace(
        begun.network, depth=50, resnet="v1", stem_width=3, fusion="multiply", direction="both",
        temporal_kernels=False, temporal_init="center", camera_motion="median",
    )  # fmt: skip
    old = dataclasses.replace(begun, network=network, precision="bf16", balance="loss", validation=0.2, weights="none")
    write_json(run.config_file, old.to_json())
    taken = like(workspace, split=2, seed=5)
    now = {
        "recipe": taken.base.name,
        "size": taken.size,
        "weights": taken.base.weights,
        "precision": taken.precision,
        "network": taken.network(2),
        "steps": {name: StepConfig(taken.step(name)) for name in taken.selected()},
        "validation": taken.validation,
        "balance": taken.balance,
    }
    assert now == {one.name: getattr(old, one.name) for one in dataclasses.fields(old) if one.name not in NOT_TAKEN}
    assert (taken.split, taken.seed, taken.exclude_classes) == (2, 5, ())


def test_what_is_given_beside_like_wins(trained):
    given = {"width": 6, "fusion": "multiply", "temporal_kernels": False, "temporal_init": "random", "size": (64, 80)}
    taken = like(
        trained, **given, weights="none", precision="bf16", validation=0.2, steps=("motion",),
        overrides={"motion": {"epochs": 3, "batch_size": 1}},
    )  # fmt: skip
    network = taken.network(2)
    assert (network.width, network.fusion, network.temporal_kernels, network.temporal_init, taken.size) == tuple(
        given.values()
    )
    assert (taken.weights, taken.precision, taken.validation, taken.selected()) == ("none", "bf16", 0.2, ["motion"])
    motion = taken.step("motion")
    assert (motion.epochs, motion.iterations, motion.batch_size, motion.micro_batch, motion.lr) == (
        3,
        None,
        1,
        1,
        1e-20,
    )


def test_a_run_like_another_says_so_and_is_continued_by_the_same_command(workspace):
    settings = train.Config(workspace.root, name="new", like="old", steps=("motion",), device="cpu")
    messages: list[str] = []
    train.run(settings, lambda progress: messages.append(progress.message))
    assert "settings of run old" in messages
    assert train.run(settings).steps[0].already_done
    again = train.Config(workspace.root, name="new", steps=("motion",), overrides=TINY, width=2, device="cpu")
    assert train.run(again).steps[0].already_done  # the run keeps its recipe and size


def test_like_and_a_recipe_contradict_each_other_and_lists_are_not_known_again(workspace):
    with pytest.raises(UsageError, match=r"--recipe small contradicts --like old, which takes that run's: give one"):
        like(workspace, recipe="small")
    with pytest.raises(MissingError, match="there is no run 'older'"):
        like_another(train.Config(workspace.root, like="older"))
    document = json.loads((workspace.runs / "old" / "config.json").read_text())
    (workspace.runs / "old" / "config.json").write_text(json.dumps(document | {"validation": "list"}))
    with pytest.raises(
        UsageError, match="run old was begun with held-out videos of a list or of val/: give them again"
    ):
        like(workspace)


def test_another_number_of_flow_channels_is_named(workspace):
    file = workspace.runs / "old" / "motion" / "weights.pt"
    content = torch.load(file, weights_only=True)
    content["network"]["flow_channels"] = 10
    torch.save(content, file)
    with pytest.raises(UsageError, match="flow_channels is 10 there and 20 here"):
        train.run(config(workspace, name="new", steps=("motion",), weights="run:old"))


@pytest.mark.parametrize("step", ["motion", "joint1"])
def test_a_step_that_the_run_has_not_finished_is_named(workspace, step):
    for name in {step, *(("joint2",) if step == "joint1" else ())}:
        (workspace.runs / "old" / name / "weights.pt").unlink()
    with pytest.raises(
        MissingError, match=f"{step} starts from {step} of run old, which has not finished it; it has app"
    ):
        train.run(config(workspace, name="new", steps=(step,), weights="run:old"))


def test_a_runs_weights_given_as_a_file_are_refused_with_the_words_that_work(workspace):
    file = workspace.runs / "old" / "motion" / "weights.pt"
    with pytest.raises(MissingError, match=rf"belongs to a run.*: give --weights run:{file.parent} instead") as refused:
        train.run(config(workspace, name="new", steps=("motion",), weights=str(file)))
    for folder in (file.parent, file.parent.parent):
        with pytest.raises(MissingError, match=rf"is the folder of a run: give --weights run:{folder} instead"):
            train.run(config(workspace, name="new", steps=("motion",), weights=str(folder)))
    words = str(refused.value).split("--weights ")[1].split()[0]
    train.run(config(workspace, name="newer", steps=("motion",), weights=words))
    assert_kept(weights(workspace, "newer", "motion"), weights(workspace, "old", "motion"), classifiers=True)
    assert Path(words.removeprefix("run:")).is_absolute()


def test_an_absent_file_names_runs_among_the_choices(tmp_path):
    with pytest.raises(MissingError, match="`run:NAME`"):
        load_pretrained(train_network(), tmp_path / "absent.pth")


def train_network() -> Any:
    from pipelines.models import STResNet

    return STResNet(2, depth=26, width=2)
