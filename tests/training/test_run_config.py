"""A run's `config.json` as a type: nothing is lost on the way, and what is broken is named in one sentence."""

import json
import re
import tarfile
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from pipelines import train
from pipelines.errors import MissingError
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.typed_json import WrongField
from pipelines.training.differing_settings import differing_settings
from pipelines.training.run_config import BaseRun, InitialWeights, NetworkConfig, RunConfig, StepConfig
from pipelines.training.runs import Run
from tests.reporting.conftest import run_config

PATH = Path("runs/split1/config.json")
MISSING = object()


@pytest.fixture(scope="module")
def document():
    """The `config.json` of a run that stres 0.1.0 trained."""
    with tarfile.open(Path(__file__).parents[1] / "data/workspace-0.1.0.tar.xz") as archive:
        return json.load(archive.extractfile("work/runs/split1/config.json"))


def as_written(config):
    """Its text in the file."""
    return json.dumps(config.to_json(), indent=2)


def changed(document, name, value):
    """The document with `value` at the dotted `name`, or without it."""
    document = json.loads(json.dumps(document))
    *path, last = name.split(".")
    inner = document
    for part in path:
        inner = inner[part]
    inner[last] = value
    if value is MISSING:
        del inner[last]
    return document


def test_the_configuration_of_a_run_of_0_1_0_is_written_again_byte_for_byte_but_for_a_name(document):
    today = json.dumps(document, indent=2).replace('"crops":', '"augmentation":')
    assert as_written(RunConfig.from_json(document, PATH)) == today


def test_the_words_of_0_1_0_are_read_as_todays(document):
    old = changed(document, "network.temporal_init", "centre")
    old = changed(changed(old, "steps.joint1.crops", "centre"), "classes", ["centre", "crops"])
    config = RunConfig.from_json(old, PATH)
    assert config.network.temporal_init == config.steps["joint1"].step.augmentation == "center"
    assert config.classes == ("centre", "crops")


def test_what_only_some_runs_have_comes_back(document):
    config = RunConfig.from_json(document, PATH)
    steps = {"joint1": StepConfig(config.steps["joint1"].step, InitialWeights("old", "joint2", "0" * 64))}
    config = replace(
        config,
        steps=steps,
        excluded_classes=("skip",),
        compile=True,
        base_run=BaseRun("base", {"appearance": "1" * 64}),
        others={"of_tomorrow": [1, {"a": None}]},
    )
    assert RunConfig.from_json(json.loads(as_written(config)), PATH) == config
    assert config.to_json()["steps"]["joint1"]["weights"] == {"run": "old", "step": "joint2", "sha256": "0" * 64}


def test_the_fields_that_are_not_written_where_they_have_their_default_can_be_asked_for(document):
    config = RunConfig.from_json(document, PATH)
    whole = config.to_json(defaults=True)
    assert whole.keys() == {each.name for each in fields(RunConfig)} - {"others"}
    assert whole["network"].keys() == {each.name for each in fields(NetworkConfig)}


def test_a_run_without_flow_has_an_empty_object(document):
    config = RunConfig.from_json(document | {"flow": {}}, PATH)
    assert config.flow is None
    assert config.to_json()["flow"] == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, MISSING) for name in ("recipe", "split", "size", "network", "classes", "flow", "steps", "weights")),
        *((name, None) for name in ("seed", "stres_version", "train_videos", "steps.joint1", "flow.method")),
        *(("split", value) for value in (-1, 1.5, True, "1", 1 << 21)),
        *(("size", value) for value in ([32], [32, 32, 32], [16, 32], [32, 9000], "32x32", {"0": 32})),
        *(("classes", value) for value in ([], ["a", "a"], ["a", 1], "ab")),
        *(("train_videos.count", value) for value in (-1, "4", 1 << 41)),
        *(("flow.bound", value) for value in (0, -4.0, float("nan"), float("inf"), "4", MISSING)),
        *(("flow.step", value) for value in (0, 1.5, None, 1 << 21)),
        *(("flow.short_side", value) for value in (0, 9000, "32")),
        *(("flow.method_parameters", value) for value in ("{}", None, {"tau": float("nan")}, MISSING)),
        *(("network.depth", value) for value in ("26", None, MISSING, -1)),
        *(("steps.joint1.frames", value) for value in (0, 1 << 21, "2", MISSING)),
        *(("steps.joint1.crops", value) for value in ("wide", ["mild"], MISSING)),
        *(("steps.joint1.stride", value) for value in ([1], [2, 1], "1-2")),
        *(("steps.joint1.lr", value) for value in (0, "fast", float("nan"))),
        ("steps.joint1.name", "motion"),
        ("steps.joint9", {}),
        ("base_run", "other"),
    ],
)
def test_a_broken_configuration_is_told_in_one_sentence_with_the_field(document, name, value):
    first = name.partition(".")[0]
    wanted = rf"^{re.escape(str(PATH))} has .* for '{first}[\w.]*': restore it, or train the run again$"
    with pytest.raises(MissingError, match=wanted):
        RunConfig.from_json(changed(document, name, value), PATH)


@pytest.mark.parametrize("name", ["steps.joint1.warmth", "network.heads"])
def test_a_setting_that_this_version_does_not_know_is_of_a_newer_one(document, name):
    with pytest.raises(MissingError, match=rf"was made by a newer version of stres, which has the setting '{name}'"):
        RunConfig.from_json(changed(document, name, 1), PATH)


@pytest.mark.parametrize("broken", [[], None, "text", 1])
def test_a_configuration_that_is_no_object_is_told(broken):
    with pytest.raises(MissingError, match="is not a JSON object: restore it"):
        RunConfig.from_json(broken, PATH)


def test_the_first_difference_of_two_runs_is_named_but_not_that_of_their_programs(document):
    config = RunConfig.from_json(document, PATH)
    assert config.first_difference(replace(config, stres_version="9", library_versions={})) == ""
    assert config.first_difference(replace(config, seed=3)) == "seed was 0 and is now 3"
    other = replace(config, flow=replace(config.flow, bound=5.0))
    assert config.first_difference(other) == "flow.bound was 4.0 and is now 5.0"


# ------------------------------------------------------------------ how flow was made

MADE = FlowSettings.of("dis", {"preset": "fast", "a": 1}, 20, 1, "video")


def test_flow_settings_come_back_from_a_file_and_from_json():
    assert FlowSettings.from_attributes(MADE.attributes()) == MADE
    assert FlowSettings.from_json(MADE.to_json()) == MADE
    assert MADE.to_json()["method_parameters"] == {"a": 1, "preset": "fast"}


@pytest.mark.parametrize("changes", [{"bound": 0.0}, {"bound": float("nan")}, {"step": 0}, {"step": 1.5}])
def test_a_bound_or_a_step_that_no_flow_has_is_refused_wherever_it_stands(changes):
    with pytest.raises(WrongField, match=next(iter(changes))):
        FlowSettings.from_attributes(MADE.attributes() | changes)
    with pytest.raises(WrongField, match=next(iter(changes))):
        FlowSettings.from_json(MADE.to_json() | changes)


def test_what_contradicts_other_flow_of_a_workspace_is_named_and_what_may_differ_is_not():
    assert MADE.contradiction(replace(MADE, short_side=256, flow_input="jpeg")) == ""
    assert MADE.contradiction(replace(MADE, bound=5.0, step=2)) == "bound"
    assert MADE.difference(replace(MADE, step=2)) == "step was 2 and is now 1"
    assert MADE.difference(None, "flow") == "flow.bound was none and is now 20.0"


def test_a_setting_that_is_newer_than_a_run_has_its_default_there(workspace):
    """Adding a field to `Step` must not turn finished steps and checkpoints into those of another run."""
    train.run(
        train.Config(
            workspace.root, recipe="small", width=2, size=(32, 32), steps=("appearance",), device="cpu",
            overrides={"appearance": {"iterations": 1, "batch_size": 2, "lr": 1e-6}},
        )
    )  # fmt: skip
    run = Run(workspace.runs / "split1")
    content = torch.load(run.weights_file("appearance"), weights_only=True)
    assert content["configuration"]["steps"]["appearance"].pop("mirror") is True
    torch.save(content, run.weights_file("appearance"))
    run.weights("appearance")

    document = json.loads(run.config_file.read_text())
    document["steps"]["appearance"]["mirror"] = False  # which is not what the weights were trained with
    run.config_file.write_text(json.dumps(document))
    with pytest.raises(MissingError, match=r"steps\.appearance\.mirror was yes and is now no"):
        run.weights("appearance")


def test_runs_that_began_from_different_runs_are_told_apart_by_these():
    bases = {"a": BaseRun("first", {}), "b": BaseRun("second", {}), "c": None}
    found = differing_settings({name: run_config(base) for name, base in bases.items()})
    assert {name: of["base run"] for name, of in found.items()} == {"a": "first", "b": "second", "c": "none"}


def test_a_setting_that_one_run_leaves_at_its_default_differs_from_that_of_another():
    usual = run_config()
    network = replace(usual.network, stem_width=8, camera_motion="median")
    changed = replace(usual, network=network, excluded_classes=("x", "y"), compile=True, validation=0.1, size=(48, 64))
    found = differing_settings({"a": usual, "b": changed})
    assert found["a"] == {
        **{"camera motion": "none", "compile": "no", "excluded classes": "none", "stem width": "none"},
        **{"validation": "0", "size": "64x64"},
    }
    assert found["b"] == {
        **{"camera motion": "median", "compile": "yes", "excluded classes": "x,y", "stem width": "8"},
        **{"validation": "0.1", "size": "48x64"},
    }
