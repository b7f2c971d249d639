"""A student of the joint network: its losses, its training, and what it needs no flow for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import evaluate, train, verify
from pipelines.datasets.samples import NO_CLASS
from pipelines.deployment.card import Exported, write_card
from pipelines.deployment.checking import ExportCheck, clip_inputs
from pipelines.deployment.model import deployed
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scores import read_scores
from pipelines.models import StreamLogits
from pipelines.prediction.inputs import FlowOnDemand
from pipelines.prediction.predictor import Predictor
from pipelines.prediction.speed import about_speed, speed_file
from pipelines.storage.workspace import Workspace
from pipelines.training.distillation import Student, Teacher, matching_losses
from pipelines.training.loop import video_loss
from pipelines.training.runs import Run, load_network
from tests.helpers.tiny_training import record_gains
from tests.helpers.workspaces import TINY_STEPS

SETTINGS = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "overrides": TINY_STEPS}
TRAINED = SETTINGS | {"steps": tuple(TINY_STEPS), "camera_motion": "median"}  # as `split1` was


@pytest.fixture
def workspace(trained_on_videos, tmp_path) -> Workspace:
    """A copy of one's own."""
    return Workspace(Path(shutil.copytree(trained_on_videos.workspace.root, tmp_path / "work")))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def losses(logits: np.ndarray, features: np.ndarray, taught: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    as_tensors = (torch.tensor(taught[0]), torch.tensor(taught[1]))
    found = matching_losses(StreamLogits(torch.tensor(logits)), torch.tensor(features), as_tensors, 2.0)
    return {name: float(value) for name, value in found.items()}


def test_matching_losses_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    logits, features = rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 6))
    taught = rng.normal(size=(4, 5)), rng.normal(size=(4, 6))
    own, others = softmax(logits.mean(axis=1) / 2), softmax(taught[0] / 2)
    divergence = sum(p * np.log(p / q) for p, q in zip(others.ravel(), own.ravel(), strict=True))
    squares = sum(sum((a - b) ** 2) / sum(b**2) for a, b in zip(features, taught[1], strict=True))
    assert losses(logits, features, taught) == pytest.approx(
        {"logit_loss": 4 * divergence, "feature_loss": squares}, rel=1e-6
    )
    same = losses(taught[0][:, None], taught[1], taught)
    assert same == pytest.approx({"logit_loss": 0, "feature_loss": 0}, abs=1e-5)


def test_the_teacher_is_the_joint_network_as_it_is_tested(trained_on_videos):
    run = Run(trained_on_videos.workspace.runs / "split1")
    network = load_network(run, "joint2")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rgb, flow = torch.randn(2, 5, 3, 32, 32), torch.randn(2, 5, 20, 32, 32)
    seen = []
    network.motion.fc.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    logits, motion = Teacher(network.train())(rgb, flow)
    expected = network(rgb, flow)
    torch.testing.assert_close(logits, ((expected.appearance + expected.motion) / 2).mean(1))
    torch.testing.assert_close(motion, seen[0].unflatten(0, (2, -1)).mean(1))
    assert not logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_student_begins_as_the_joint_networks_appearance_stream_and_predicts_its_own_features(trained_on_videos):
    run = Run(trained_on_videos.workspace.runs / "split1")
    network = load_network(run, "student")
    logits, features = Student(network)(rgb := torch.randn(2, 5, 3, 32, 32))
    torch.testing.assert_close(logits.appearance, network(rgb, None).appearance)
    own = network.appearance.features(network.feature_maps(rgb, None)["appearance"]).mean(1)
    torch.testing.assert_close(features, own)
    ours, joint = network.state_dict(), load_network(run, "joint2").state_dict()
    kernel = "appearance.layer4.1.conv1.weight"
    if kernel not in ours or ours[kernel].ndim != 5:
        kernel = next(name for name, value in ours.items() if value.ndim == 5)
    assert 0 < float((ours[kernel] - joint[kernel]).norm() / joint[kernel].norm()) < 0.1  # after two small updates


def test_its_run_is_tested_without_flow(workspace):
    shutil.rmtree(workspace.flow)
    result = evaluate.run(evaluate.Config(workspace.root, step="student", crops=10, device="cpu"))
    scores = read_scores(result.folder / "scores.h5")
    assert scores.headline == "appearance"
    assert result.folder.name == "student-10frames-full-mirror-clips"
    assert [fault for fault in verify.run(verify.Config(workspace.root)).faults if fault.kind == "run"] == []
    assert Run(workspace.runs / "split1").choose(None) == "joint2"  # the student only where it is asked for


def test_a_student_learns_from_another_run_and_is_refused_without_a_joint_network(workspace, monkeypatch):
    with pytest.raises(MissingError, match="student learns from a joint network, and run other has finished none"):
        train.run(train.Config(workspace.root, name="other", steps=("student",), **SETTINGS))
    factors = record_gains(monkeypatch)
    scaled = {"student": TINY_STEPS["student"] | {"flow_scale": 1.5}}  # which its teacher does not see
    asked = {"name": "other", "steps": ("student",), "base_run": "split1", **SETTINGS, "overrides": scaled}
    joint = Run(workspace.runs / "split1").weights_sha256("joint2")
    assert train.run(train.Config(workspace.root, **asked)).steps[0].metrics["feature_loss"] > 0
    assert set(factors) == {1.0}
    assert Run(workspace.runs / "split1").weights_sha256("joint2") == joint
    run = Run(workspace.runs / "other")
    teacher = json.loads(run.config_file.read_text())["steps"]["student"]["teacher"]
    assert teacher == {"run": "split1", "step": "joint2", "sha256": joint}
    assert train.run(train.Config(workspace.root, name="other", device="cpu")).steps[0].already_done
    assert run.choose(None) == "student"  # where there is nothing else


def test_its_speed_is_measured_after_training_and_said_wherever_it_is_used(workspace, monkeypatch):
    run, now = Run(workspace.runs / "split1"), [0.0]
    kept = json.loads(speed_file(run).read_text())
    assert (kept["teacher"], kept["frames"], kept["width"], kept["height"]) == ("split1/joint2", 24, 40, 32)

    def takes(owner, name, seconds):
        method = getattr(owner, name)

        def timed(self, *arguments):
            now[0] += seconds(self)
            return method(self, *arguments)

        monkeypatch.setattr(owner, name, timed)

    takes(Predictor, "logits", lambda predictor: {"student": 2.0, "joint2": 5.0}[predictor.protocol.step])
    takes(FlowOnDemand, "fields", lambda flow: 0.0 if flow.kept else 4.0)
    monkeypatch.setattr("pipelines.prediction.speed.time.perf_counter", lambda: now[0])
    speed_file(run).unlink()
    train.run(train.Config(workspace.root, **TRAINED))
    monkeypatch.undo()
    kept = json.loads(speed_file(run).read_text())
    assert [kept[f"{part}_seconds"] for part in ("student", "network", "flow")] == [2.0, 5.0, 4.0]

    said = "the student needs no flow: 4.5 times as fast as split1/joint2 with its flow, 2.5 times where flow is stored"
    notes = []
    common = {"run": "split1", "step": "student"}
    evaluate.run(
        evaluate.Config(workspace.root, **common, crops=5, device="cpu"), lambda one: notes.append(one.message)
    )
    assert any(said in text for text in notes)
    about = Exported("x.pt2", "torch", "0", run, "student", run.config(), {}, ExportCheck(None, "jump", 0.5, 0.0, []))
    assert f"In stres {said}" in write_card(about, deployed(load_network(run, "student")))
    assert about_speed(run, "joint2") == ""
    speed_file(run).write_text(json.dumps(kept | {"student_seconds": 0.0}))
    assert about_speed(run, "student") == ""


def test_a_look_that_had_to_wait_for_a_core_is_not_taken_for_the_speed(workspace, monkeypatch):
    run, now, looks = Run(workspace.runs / "split1"), [0.0], []

    def logits(self, pixels):
        looks.append(pixels)
        now[0] += 0.5 if len(looks) == 3 else 0.01  # the student's first look after that which warms up

    monkeypatch.setattr(Predictor, "logits", logits)
    monkeypatch.setattr(FlowOnDemand, "fields", lambda self, indices: now.__setitem__(0, now[0] + 0.02))
    monkeypatch.setattr("pipelines.prediction.inputs.FramePlan.pixels", lambda self, frames, flow: None)
    monkeypatch.setattr("pipelines.prediction.speed.time.perf_counter", lambda: now[0])
    speed_file(run).unlink()
    train.run(train.Config(workspace.root, **TRAINED))
    kept = json.loads(speed_file(run).read_text())
    found = [kept[f"{part}_seconds"] for part in ("student", "network", "flow")]
    assert found == pytest.approx([0.01, 0.01, 0.02])


def test_a_speed_that_cannot_be_measured_is_told(workspace, monkeypatch):
    run, notes = Run(workspace.runs / "split1"), []
    speed_file(run).unlink()
    monkeypatch.setattr("pipelines.optical_flow.methods.METHODS", {})
    monkeypatch.setattr("pipelines.prediction.inputs.METHODS", {})
    train.run(
        train.Config(workspace.root, **TRAINED),
        lambda progress: notes.append(progress.message),
    )
    assert any(text.startswith("how much faster the student is was not measured: run split1") for text in notes)
    monkeypatch.undo()

    def full(self, pixels):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(FlowOnDemand, "fields", full)
    train.run(train.Config(workspace.root, **TRAINED), lambda progress: notes.append(progress.message))
    assert any("was not measured: out of GPU memory: give the same command again" in text for text in notes)
    assert not speed_file(run).exists()


def test_videos_without_a_class_are_matched_and_nothing_else(workspace):
    """The log's means are those of the videos that have each: of classes all but the unlabelled, of matching all."""
    for kind in (workspace.frames, workspace.flow):
        (kind / "unlabelled").mkdir()
        for number, file in enumerate(sorted(kind.glob("jump/*.h5"))[:2]):
            shutil.copy(file, kind / "unlabelled" / f"more{number}.h5")
    asked = {"name": "more", "steps": ("student",), "base_run": "split1", "unlabelled": True, **SETTINGS}
    damaged = workspace.flow / "unlabelled" / "more0.h5"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    result = train.run(train.Config(workspace.root, **asked))
    assert result.failed == 1
    assert "unlabelled,more0" in workspace.failures_file.read_text()
    trained = result.steps[0].metrics
    run = Run(workspace.runs / "more")
    config = run.config()
    student = config.steps["student"]
    assert student.unlabelled is not None
    assert student.unlabelled.count == 2
    assert config.train_videos.count == Run(workspace.runs / "split1").config().train_videos.count
    assert 0 < trained["videos"] < trained["updates"] * student.step.batch_size
    before = run.config_file.read_bytes()
    assert train.run(train.Config(workspace.root, name="more", device="cpu")).steps[0].already_done
    assert run.config_file.read_bytes() == before


def test_a_video_without_a_class_adds_nothing_to_the_cross_entropy():
    logits = StreamLogits(torch.randn(3, 2, 4))
    labels, weights = torch.tensor([1, NO_CLASS, 3]), torch.rand(4)
    known = StreamLogits(logits.appearance[::2])
    for smoothing, of_classes in ((0.0, None), (0.1, None), (0.1, weights)):
        total = video_loss(logits, labels, smoothing, of_classes)
        torch.testing.assert_close(total, video_loss(known, labels[::2], smoothing, of_classes))


def test_an_exported_student_is_fed_one_clip_of_frames(trained_on_videos):
    run = Run(trained_on_videos.workspace.runs / "split1")
    inputs = clip_inputs(run, trained_on_videos.video("jump/jump2"), step="student")
    assert {name: value.shape for name, value in inputs.items()} == {"rgb": (1, 5, 3, 32, 32)}


def test_settings_that_cannot_be_are_refused(workspace):
    few = SETTINGS | {"overrides": {"student": TINY_STEPS["student"] | {"frames": 3}}}
    with pytest.raises(UsageError, match="--frames 3 for student: its teacher joint2 pools over 5 frames"):
        train.run(train.Config(workspace.root, name="few", steps=("student",), base_run="split1", **few))
    with pytest.raises(UsageError, match="--logit-weight for joint1: only the student has a teacher"):
        train.Config(workspace.root, **SETTINGS | {"overrides": {"joint1": {"logit_weight": 1.0}}})
    with pytest.raises(UsageError, match="--temporal clips looks at other frames"):
        evaluate.Config(workspace.root, temporal=("clips", "windows"))


def test_the_protocol_of_clips():
    assert Protocol.of_paper("student").windows(5, 1, "run") == [list(range(5 * i, 5 * i + 5)) for i in range(5)]
