"""`import-weights` and `train --weights FILE`: a run's network is of the form, the sizes and the normalisation of its
weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import evaluate, train
from pipelines.errors import MissingError, UsageError
from pipelines.importing import weights as import_weights
from pipelines.models import STResNet, load_pretrained
from pipelines.storage.tensor_file import read_tensors
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run, load_network
from tests.models.test_backbones import AVERAGE, random_state, write_matconvnet, write_onnx

TINY = {"appearance": {"lr": 1e-20, "iterations": 1, "batch_size": 2}}


def config(workspace: Workspace, weights: Path, **changes: Any) -> train.Config:
    defaults: dict[str, Any] = {"recipe": "small", "size": (32, 32), "overrides": TINY, "device": "cpu"}
    defaults |= {"steps": ("appearance",), "name": "run"}
    return train.Config(workspace.root, weights=str(weights), **(defaults | changes))


def network(workspace: Workspace, name: str = "run") -> dict[str, Any]:
    return json.loads((workspace.runs / name / "config.json").read_text())["network"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """`paper.mat`, the authors' kind of file; `paper.pth`, imported from it; `plain.pth`, a state dict of depth 26."""
    folder = tmp_path_factory.mktemp("weights")
    write_matconvnet(folder / "paper.mat", random_state(50, 2, 2))
    import_weights.run(import_weights.Config(folder / "paper.mat", folder / "paper.pth"))
    state = random_state() | {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "plain.pth")
    return folder


def test_a_run_takes_form_sizes_and_normalisation_from_imported_weights_and_is_tested_with_them(workspace, files):
    train.run(config(workspace, files / "paper.pth"))
    about = network(workspace)
    assert (about["resnet"], about["depth"], about["width"]) == ("v1", 50, 2)
    assert about["rgb_mean"] == pytest.approx([value / 255 for value in AVERAGE])
    assert about["rgb_deviation"] == pytest.approx([1 / 255] * 3)
    trained = load_network(Run(workspace.runs / "run"), "appearance")
    assert (trained.resnet, trained.rgb_mean) == ("v1", tuple(about["rgb_mean"]))
    result = evaluate.run(evaluate.Config(workspace.root, run="run", step="appearance", crops=2, device="cpu"))
    assert result.failed == 0


def test_a_new_weights_file_is_read_once_before_the_training_begins(workspace, files, monkeypatch):
    reads: list[Path] = []

    def read(path: Path) -> Any:
        reads.append(path)
        return read_tensors(path)

    monkeypatch.setattr("pipelines.models.weights.read_tensors", read)
    monkeypatch.setattr("pipelines.training.session.Session.train", lambda *_: (None, {}))
    train.run(config(workspace, files / "paper.pth"))
    assert reads == [files / "paper.pth"]


def test_a_state_dict_gives_depth_and_widths_but_not_its_form(workspace, files):
    with pytest.raises(UsageError, match=r"plain\.pth does not tell the form of its ResNet: add --resnet v1\.5"):
        train.run(config(workspace, files / "plain.pth"))
    train.run(config(workspace, files / "plain.pth", resnet="v1"))
    about = network(workspace)
    assert (about["resnet"], about["depth"], about["width"], about["stem_width"]) == ("v1", 26, 4, 6)
    assert "rgb_mean" not in about


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"resnet": "v1.5"}, r"--resnet v1\.5 does not fit .*paper\.pth, which are of v1:"),
        ({"depth": 26}, "--depth 26 does not fit .*, which are of 50:"),
        ({"width": 64}, "--width 64 does not fit .*, which are of 2:"),
        ({"stem_width": 64}, "--stem-width 64 does not fit .*, which are of 2:"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused(workspace, files, asked, told):
    with pytest.raises(UsageError, match=told):
        train.run(config(workspace, files / "paper.pth", **asked))
    assert not (workspace.runs / "run").exists()


def test_a_run_goes_on_in_its_form_where_its_weights_file_is_gone(workspace, files, tmp_path):
    shutil.copyfile(files / "paper.pth", tmp_path / "gone.pth")
    train.run(config(workspace, tmp_path / "gone.pth"))
    (tmp_path / "gone.pth").unlink()
    train.run(config(workspace, tmp_path / "gone.pth"))
    assert network(workspace)["resnet"] == "v1"


def test_a_run_that_starts_from_another_has_its_form(workspace, files):
    train.run(config(workspace, files / "paper.pth"))
    train.run(config(workspace, Path("run:run"), name="next", depth=50, width=2))
    assert {key: network(workspace, "next")[key] for key in ("resnet", "rgb_mean")} == {
        key: network(workspace)[key] for key in ("resnet", "rgb_mean")
    }
    with pytest.raises(UsageError, match=r"--resnet v1\.5 does not fit"):
        train.run(config(workspace, Path("run:run"), name="other", depth=50, width=2, resnet="v1.5"))


def test_weights_of_one_form_are_not_loaded_into_a_network_of_the_other(files):
    with pytest.raises(UsageError, match=r"paper\.pth are of a ResNet v1, the network is of form v1\.5"):
        load_pretrained(STResNet(3, depth=50, width=2), files / "paper.pth")
    load_pretrained(STResNet(3, depth=50, width=2, resnet="v1"), files / "paper.pth")


def test_folded_batch_norms_are_refused_unless_they_are_calibrated_and_then_trained_with(files, workspace, tmp_path):
    write_onnx(tmp_path / "net.onnx", random_state(), "v1", fold=True)
    asked: dict[str, Any] = {"mean": (104.0, 117.0, 123.0), "deviation": (1.0, 1.0, 1.0), "bgr": True}
    with pytest.raises(UsageError, match=r"batch norms of .* are folded .*--calibrate"):
        import_weights.run(import_weights.Config(tmp_path / "net.onnx", tmp_path / "net.pth", **asked))
    with pytest.raises(UsageError, match="how its pictures are normalised"):
        import_weights.Config(tmp_path / "net.onnx", tmp_path / "net.pth")


def test_frames_of_videos_calibrate(files, tmp_path, write_clip):
    write_clip(tmp_path / "videos" / "a.avi", 100)
    asked = import_weights.Config(
        files / "plain.pth", tmp_path / "out.pth", resnet="v1", calibrate=str(tmp_path / "videos"), frames=8
    )
    result = import_weights.run(asked)
    assert 0 < result.calibration_frames <= 8
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (files / "plain.pth", asked.output))
    assert not torch.equal(before["module.bn1.running_mean"], after["bn1.running_mean"])


@pytest.mark.parametrize(
    "change", [{"layer4.1.bn2.running_var": None}, {"layer2.0.conv2.weight": torch.zeros(9, 9, 3, 3)}]
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(workspace, files, tmp_path, change):
    state = {key: value for key, value in (random_state() | change).items() if value is not None}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(MissingError, match=rf"taken as a ResNet-26 of width 4, .*: {next(iter(change))} is"):
        import_weights.run(import_weights.Config(tmp_path / "other.pth", tmp_path / "out.pth", resnet="v1"))
    with pytest.raises(MissingError, match="taken as a ResNet-26 of width 4, does not fit the network"):
        train.run(config(workspace, tmp_path / "other.pth", resnet="v1"))
    assert not (tmp_path / "out.pth").exists()
    assert not (workspace.runs / "run").exists()


def test_what_cannot_be_imported_is_said(files, tmp_path):
    with pytest.raises(UsageError, match="does not tell the form"):
        import_weights.run(import_weights.Config(files / "plain.pth", tmp_path / "out.pth"))
    with pytest.raises(MissingError, match="no weights file"):
        import_weights.run(import_weights.Config(tmp_path / "none.pth", tmp_path / "out.pth"))
    with pytest.raises(UsageError, match=r"ends with \.pth"):
        import_weights.Config(files / "plain.pth", tmp_path / "out.bin")
    with pytest.raises(UsageError, match="--mean: give three numbers"):
        import_weights.Config(files / "plain.pth", tmp_path / "out.pth", mean=(1.0, 2.0))
    assert list(tmp_path.iterdir()) == []
