"""The stage `export`: the file gives what the run gives, for any number of videos and frames, or is not written."""

import dataclasses
import json
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipelines import evaluate, export
from pipelines.deployment import checking, formats
from pipelines.deployment.checking import clip_inputs
from pipelines.deployment.model import deployed
from pipelines.errors import MissingError, StorageError, UsageError
from pipelines.evaluation.scoring import Scorer
from pipelines.models import temporal
from pipelines.storage.workspace import Workspace
from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load, save
from pipelines.training.runs import Run, load_network
from stres_cli.app import app
from tests.helpers.old_weights import forget_configuration


def importable(*names):
    return all(formats.importlib.util.find_spec(name) for name in names)


OUTPUTS = ("probabilities", "appearance", "motion")
needs_onnx = pytest.mark.skipif(
    not importable("onnx", "onnxscript", "onnxruntime"), reason="the extra `export` is not installed"
)


@dataclasses.dataclass
class Written:
    """A file that was exported and checked, and what ran it in the check: loading it takes as long as making it."""

    result: export.Result
    run: formats.RunFile


@pytest.fixture(scope="module")
def trained_on_videos(trained_on_videos, tmp_path_factory):
    """With a copy of the workspace, for the scores of `written_joint1`."""
    root = shutil.copytree(trained_on_videos.workspace.root, tmp_path_factory.mktemp("own") / "work")
    return dataclasses.replace(trained_on_videos, workspace=Workspace(root))


@pytest.fixture(scope="module")
def write(trained_on_videos, tmp_path_factory):
    def call(name, **settings):
        config = export.Config(
            tmp_path_factory.mktemp("export") / name,
            trained_on_videos.workspace.root,
            check=trained_on_videos.video("jump/jump2"),
            **settings,
        )
        make, runs = formats.RUN[config.chosen_format], []
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(formats.RUN, config.chosen_format, lambda *given: runs.append(make(*given)) or runs[-1])
            return Written(export.run(config), *runs)

    return call


LONG_FROM = 10_000
"""In place of `temporal.LARGE_PRODUCTS` for joint1: its network computes 25 frames by other products than 1 frame."""


@pytest.fixture(scope="module")
def written_joint1(trained_on_videos, write):
    evaluate.run(evaluate.Config(trained_on_videos.workspace.root, step="joint1", crops=3, device="cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(temporal, "LARGE_PRODUCTS", LONG_FROM)
        return write("a.b.pt2", step="joint1")


@pytest.fixture(scope="module")
def joint1(written_joint1):
    return written_joint1.result


@pytest.fixture(scope="module")
def joint2(write):
    return write("pooled.pt2")


@pytest.fixture(scope="module")
def onnx_file(write):
    return write("model.onnx", step="joint1")


def random_pixels(videos, frames):
    generator = torch.Generator().manual_seed(videos * frames)
    return [
        torch.randint(0, 256, (videos, frames, channels, 32, 32), dtype=torch.uint8, generator=generator)
        for channels in (3, 20)
    ]


def assert_gives_what_the_run_gives(run_file, trained, step, videos, frames):
    """Each video alone through the run's own scoring; the softmax by hand."""
    rgb, flow = random_pixels(videos, frames)
    found = run_file([rgb, flow])
    scorer = Scorer(load_network(Run(trained.workspace.runs / "split1"), step), torch.device("cpu"))
    for video in range(videos):
        logits = scorer.mean(rgb[video : video + 1], flow[video : video + 1], [list(range(frames))])
        for stream, values in logits.items():
            np.testing.assert_allclose(found[stream][video], values, rtol=0, atol=1e-5)
        mean = np.exp((logits["appearance"] + logits["motion"]).numpy() / 2)
        np.testing.assert_allclose(found["probabilities"][video], mean / mean.sum(), rtol=0, atol=1e-5)
    assert {name: tuple(value.shape) for name, value in found.items()} == dict.fromkeys(found, (videos, 2))


@pytest.mark.parametrize("frames", [1, 5, 25])
@pytest.mark.parametrize("videos", [1, 3])
def test_a_torch_file_takes_any_number_of_videos_and_frames(written_joint1, trained_on_videos, videos, frames):
    assert_gives_what_the_run_gives(written_joint1.run, trained_on_videos, "joint1", videos, frames)


@pytest.mark.parametrize("frames", [7, 8, 25])
@pytest.mark.parametrize("videos", [1, 3])
def test_with_temporal_pooling_from_seven_frames_on(joint2, trained_on_videos, videos, frames):
    assert (joint2.result.step, joint2.result.fewest_frames) == ("joint2", 7)
    assert joint2.result.check.shapes == [(2, 25), (1, 25), (1, 7)]
    assert_gives_what_the_run_gives(joint2.run, trained_on_videos, "joint2", videos, frames)


def test_fewer_frames_than_pooling_needs_are_refused_by_the_file(joint2):
    with pytest.raises(AssertionError, match=">= 7"):
        joint2.run(random_pixels(1, 6))


def test_a_network_that_computes_long_videos_otherwise_is_exported_for_all(
    written_joint1, trained_on_videos, monkeypatch
):
    """From some number of frames on the run's own network multiplies matrices (`TemporalConv`)."""
    counts = []
    conv, by_products = temporal.TemporalConv, temporal.TemporalConv._by_products

    def counted(self, x, frames):
        found = by_products(self, x, frames)
        if not torch.compiler.is_compiling():
            counts.append(found)
        return found

    monkeypatch.setattr(conv, "_by_products", counted)
    monkeypatch.setattr(temporal, "LARGE_PRODUCTS", LONG_FROM)
    for frames, some in ((1, False), (25, True)):
        counts.clear()
        assert_gives_what_the_run_gives(written_joint1.run, trained_on_videos, "joint1", 1, frames)
        assert any(counts) == some


@needs_onnx
@pytest.mark.parametrize(("videos", "frames"), [(1, 1), (3, 5), (1, 25)])
def test_an_onnx_file_takes_any_number_of_videos_and_frames(onnx_file, trained_on_videos, videos, frames):
    assert_gives_what_the_run_gives(onnx_file.run, trained_on_videos, "joint1", videos, frames)


@needs_onnx
def test_an_onnx_file_names_what_it_takes_and_gives(onnx_file):
    import onnx

    model = onnx.load(onnx_file.result.file)
    onnx.checker.check_model(model)
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "rgb": ["videos", "frames", 3, 32, 32],
        "flow": ["videos", "frames", 20, 32, 32],
        **{name: ["videos", 2] for name in OUTPUTS},
    }
    (metadata,) = (entry.value for entry in model.metadata_props if entry.key == formats.SETTINGS)
    assert json.loads(metadata)["classes"] == ["jump", "wave"]


@pytest.mark.parametrize(("step", "name", "channels"), [("appearance", "rgb", 3), ("motion", "flow", 20)])
def test_a_network_of_one_stream_has_one_input(trained_on_videos, step, name, channels):
    model = deployed(load_network(Run(trained_on_videos.workspace.runs / "split1"), step))
    assert (model.inputs, model.outputs) == ({name: channels}, ("probabilities", step))
    with torch.no_grad():
        found = model(**{name: random_pixels(2, 3)[channels == 20]})
    torch.testing.assert_close(found["probabilities"], found[step].softmax(1))


def test_a_torch_file_says_what_it_is(joint1):
    with zipfile.ZipFile(joint1.file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(formats.SETTINGS))
        about = json.loads(archive.read(name))
    assert (about["classes"], about["size"], about["step"]) == (["jump", "wave"], [32, 32], "joint1")
    assert about["flow"]["bound"] == 4.0


# ------------------------------------------------------------------ the check


def test_the_check_is_on_the_video_and_its_mirror_image(joint1, trained_on_videos):
    assert joint1.check.largest_difference < 1e-5
    assert joint1.check.shapes == [(2, 25), (1, 25), (1, 1)]
    run, video = Run(trained_on_videos.workspace.runs / "split1"), trained_on_videos.video("jump/jump2")
    inputs = clip_inputs(run, video, step="joint1", mirrored=True)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "rgb": (2, 25, 3, 32, 32),
        "flow": (2, 25, 20, 32, 32),
    }
    assert torch.equal(inputs["rgb"][0].flip(-1), inputs["rgb"][1])
    assert torch.equal(255 - inputs["flow"][0, :, 0::2].flip(-1), inputs["flow"][1, :, 0::2])


@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
def test_a_file_that_differs_from_the_run_is_not_written(trained_on_videos, tmp_path, monkeypatch, wrong):
    right = checking._reference

    def off(*arguments):
        logits = right(*arguments)
        return logits | {"motion": logits["motion"] + wrong}

    monkeypatch.setattr(checking, "_reference", off)
    monkeypatch.setitem(formats.EXPORT, "torch", lambda *arguments: b"as if exported")
    monkeypatch.setitem(formats.RUN, "torch", lambda path, outputs: run_itself(trained_on_videos))
    video = trained_on_videos.video("jump/jump2")
    config = export.Config(tmp_path / "model.pt2", trained_on_videos.workspace.root, step="joint1", check=video)
    with pytest.raises(MissingError, match=r"differs from the run by (0.0002|nan) on .*jump2.mkv, more than 0.0001"):
        export.run(config)
    assert list(tmp_path.iterdir()) == []


def run_itself(trained):
    model = deployed(load_network(Run(trained.workspace.runs / "split1"), "joint1"))
    return torch.no_grad()(lambda inputs: model(*inputs))


def test_a_video_that_cannot_be_read_is_no_check(trained_on_videos, tmp_path, monkeypatch):
    monkeypatch.setitem(formats.EXPORT, "torch", lambda *arguments: b"as if exported")
    monkeypatch.setitem(formats.RUN, "torch", lambda path, outputs: None)
    config = export.Config(tmp_path / "a.pt2", trained_on_videos.workspace.root, check=tmp_path / "gone.avi")
    with pytest.raises(MissingError, match=r"--check .*gone.avi: the file does not exist: name another video"):
        export.run(config)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ the card


def code_of(card):
    return re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.S)


def test_the_code_of_the_card_runs(joint1, monkeypatch, capsys):
    (code,) = code_of(joint1.card)
    assert "pipelines" not in code
    monkeypatch.chdir(joint1.file.parent)
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.startswith("torch.Size([1, 2]) ")


@needs_onnx
def test_the_code_of_an_onnx_files_card_runs(onnx_file, monkeypatch, capsys):
    (code,) = code_of(onnx_file.result.card)
    monkeypatch.chdir(onnx_file.result.file.parent)
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.startswith("(1, 2) ")


def test_the_card_says_what_there_is_to_know(joint1, trained_on_videos):
    card = joint1.card.read_text(encoding="utf-8")
    assert joint1.card.name == "a.b.pt2.md"
    for text in (
        "| 0 | jump |",
        "| `flow` | uint8 [B, T, 20, 32, 32] |",
        "by `farneback` (",
        "winsize=9",
        "clipped to ±4, then `round(255 * (v + 4) / 8)`",
        "short side of 32 pixels",
        joint1.sha256,
        Run(trained_on_videos.workspace.runs / "split1").weights_sha256("joint1"),
        "| frames 3, views full, mirror yes, temporal sequence | 2 | fused | ",
        "| lr | 0.0001 |",
        "| temporal pool | none |",
        "checked against the run on jump2.mkv (B 2 T 25, B 1 T 25, B 1 T 1): largest difference",
    ):
        assert text in card


def test_accuracy_is_only_that_of_these_weights(joint1, trained_on_videos, tmp_path, monkeypatch):
    monkeypatch.setitem(formats.EXPORT, "torch", lambda *arguments: b"as if exported")
    monkeypatch.setitem(formats.RUN, "torch", lambda path, outputs: run_itself(trained_on_videos))
    for folder in ("runs", "scores"):
        shutil.copytree(trained_on_videos.workspace.root / folder, tmp_path / folder)
    weights = Run(tmp_path / "runs" / "split1").weights_file("joint1")
    cards = []
    for content in (load(weights, WEIGHTS_SCHEMA), load(weights, WEIGHTS_SCHEMA) | {"seconds": 1.5}):
        save(weights, WEIGHTS_SCHEMA, content)
        evaluated = [file for file in tmp_path.glob("scores/split1/joint1-*/scores.h5") if not cards]
        for file in evaluated:
            with h5py.File(file, "r+") as scores:
                scores.attrs["weights_sha256"] = Run(tmp_path / "runs" / "split1").weights_sha256("joint1")
        result = export.run(export.Config(tmp_path / f"{len(cards)}.pt2", tmp_path, step="joint1"))
        cards.append(result.card.read_text(encoding="utf-8"))
    assert "top-1 with its 95 % interval" in cards[0]
    assert "Not measured: the run has no scores of this network" in cards[1]


# ------------------------------------------------------------------ files and settings


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("model.pt", {}, "OUT must end in .pt2 or .onnx, not 'model.pt'"),
        ("model.pt2", {"format": "onnx"}, "--format onnx does not go with 'model.pt2'"),
        ("model.pt2", {"format": "tflite"}, "--format 'tflite' is not known: give one of torch, onnx"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, name, settings, message):
    with pytest.raises(UsageError, match=message):
        export.Config(tmp_path / name, tmp_path, **settings)


def test_a_file_is_replaced_only_when_asked(tmp_path):
    (tmp_path / "model.pt2").touch()
    with pytest.raises(UsageError, match=r"model.pt2 is there already: give --overwrite"):
        export.Config(tmp_path / "model.pt2", tmp_path)
    export.Config(tmp_path / "model.pt2", tmp_path, overwrite=True)


def test_where_nothing_can_be_written_nothing_is_left(trained_on_videos, tmp_path, monkeypatch):
    monkeypatch.setitem(formats.EXPORT, "torch", lambda *arguments: b"as if exported")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="the disk is full"):
        export.run(export.Config(tmp_path / "model.pt2", trained_on_videos.workspace.root))
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_and_a_video_the_file_is_named_after_the_run_and_checked_on_noise(
    trained_on_videos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(formats.EXPORT, "torch", lambda *arguments: b"as if exported")
    monkeypatch.setitem(formats.RUN, "torch", lambda path, outputs: run_itself(trained_on_videos))
    config = export.Config(None, trained_on_videos.workspace.root, step="joint1")
    seen = []
    result = export.run(config, lambda progress: seen.append((progress.done, progress.total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["split1-joint1.pt2", "split1-joint1.pt2.md"]
    assert (result.check.video, result.check.shapes) == (None, [(2, 25), (1, 25), (1, 1)])
    assert "checked against the run on noise" in result.card.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match=r"split1-joint1.pt2 is there already: give --overwrite"):
        export.run(config)


def test_a_run_on_flow_that_stres_cannot_compute_is_exported_all_the_same(trained_on_videos, tmp_path, monkeypatch):
    shutil.copytree(trained_on_videos.workspace.runs / "split1", tmp_path / "run")
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    document["flow"]["method"] = "brox"
    (tmp_path / "run" / "config.json").write_text(json.dumps(document))
    forget_configuration(Run(tmp_path / "run"), "joint1")
    monkeypatch.setitem(formats.EXPORT, "torch", lambda *arguments: b"as if exported")
    monkeypatch.setitem(formats.RUN, "torch", lambda path, outputs: run_itself(trained_on_videos))
    export.run(export.Config(tmp_path / "model.pt2", tmp_path, run=str(tmp_path / "run"), step="joint1"))
    assert (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
def test_noise_too_tells_a_wrong_file(trained_on_videos, tmp_path, monkeypatch, wrong):
    def run_wrongly(path, outputs):
        right = run_itself(trained_on_videos)
        return lambda inputs: (found := right(inputs)) | {"motion": found["motion"] + wrong}

    monkeypatch.setitem(formats.EXPORT, "torch", lambda *arguments: b"as if exported")
    monkeypatch.setitem(formats.RUN, "torch", run_wrongly)
    with pytest.raises(MissingError, match=r"the exported file differs from the run by .* on noise"):
        export.run(export.Config(tmp_path / "model.pt2", trained_on_videos.workspace.root, step="joint1"))
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_its_name_is_told(trained_on_videos, tmp_path, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingError, match=r"an .onnx file needs onnx and onnxscript and onnxruntime: pip install '\.\[export\]'"
    ):
        export.run(export.Config(tmp_path / "model.onnx", trained_on_videos.workspace.root))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_the_file_takes_and_where_the_card_lies(joint1, trained_on_videos, monkeypatch):
    monkeypatch.setattr(export, "run", lambda config, on_progress: joint1)
    arguments = ["export", "x.pt2", "-w", str(trained_on_videos.workspace.root)]
    shown = CliRunner().invoke(app, arguments, prog_name="stres")
    assert shown.exit_code == 0
    assert "  rgb           uint8 [B, T, 3, 32, 32]" in shown.stdout
    assert "largest difference from the run" in shown.stdout
    where, then = shown.stdout.splitlines()[-1].split("; next: ")
    assert where == f"model card: {joint1.card}"
    program, option, code = shlex.split(then)
    assert (program, option) == ("python", "-c")
    assert code.startswith("import torch; ")
    assert compile(code, "next", "exec")  # the card's, which runs above
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert document["sha256"] == joint1.sha256
