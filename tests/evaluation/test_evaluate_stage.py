"""The stage `evaluate`: what it leaves for a trained run, against a computation by hand; what it refuses."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import get_args

import cv2
import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipelines import evaluate, train
from pipelines.datasets.artifact_reader import ArtifactReader
from pipelines.errors import Interrupted, MissingError, UsageError
from pipelines.evaluation.metrics import stream_metrics
from pipelines.evaluation.scores import read_scores
from pipelines.interface.options import TemporalName, ViewName
from pipelines.models import STResNet
from pipelines.reporting.evaluations import find_evaluations
from pipelines.runtime.progress import ignore_progress
from pipelines.storage.failures import read_failures
from pipelines.storage.hdf5 import open_file
from pipelines.storage.workspace import Workspace
from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load
from pipelines.training.runs import Run
from stres_cli.app import app
from tests.helpers.workspaces import write_workspace

STEPS = ("appearance", "motion", "joint1", "joint2")
TINY = {
    "appearance": {"iterations": 3, "batch_size": 4},
    "motion": {"iterations": 3, "batch_size": 4},
    "joint1": {"iterations": 2, "batch_size": 2, "frames": 2, "stride": (1, 2)},
    "joint2": {"iterations": 2, "batch_size": 2, "frames": 5, "stride": (1, 1)},
}
TEST_VIDEOS = ["jump/jump3", "jump/jump4", "wave/wave3", "wave/wave4"]
WHOLE = [slice(0, 40)]  # columns of the 32 x 40 pictures: a view of the full height


@pytest.fixture(scope="session")
def trained_workspace(tmp_path_factory):
    """The run `split1` with all four steps, then the newer run `alone` with appearance only."""
    workspace = write_workspace(tmp_path_factory.mktemp("trained"))
    shared = {"recipe": "small", "width": 4, "size": (32, 32), "overrides": TINY, "device": "cpu"}
    train.run(train.Config(workspace.root, steps=("appearance",), name="alone", **shared))
    train.run(train.Config(workspace.root, steps=STEPS, **shared))
    return workspace


@pytest.fixture
def workspace(trained_workspace, tmp_path):
    shutil.copytree(trained_workspace.root, tmp_path / "work")
    return Workspace(tmp_path / "work")


def evaluated(workspace, on_progress=ignore_progress, **settings):
    defaults = {"run": "split1", "step": "joint1", "crops": 3, "device": "cpu"}
    return evaluate.run(evaluate.Config(workspace.root, **(defaults | settings)), on_progress)


def scores_of(result):
    return read_scores(result.folder / "scores.h5")


def damage(file, data_set="flow"):
    """Turns bits of the first piece of data over, as a bad sector does."""
    with open_file(file) as artifact:
        start = artifact[data_set].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[start : start + 100] = bytes(byte ^ 0x55 for byte in content[start : start + 100])
    file.write_bytes(content)


# ------------------------------------------------------------------ the same by hand


def network_of(workspace, step):
    content = load(Run(workspace.runs / "split1").weights_file(step), WEIGHTS_SCHEMA)
    network = STResNet(**content["network"])
    network.load_state_dict(content["model"])
    return network.double().eval()


def inputs_by_hand(workspace, video, centers, columns, mirror):
    """Normalised rgb [1,T,3,h,w] and flow [1,T,20,h,w] in float64, straight from the stored bytes."""
    class_name, name = video.split("/")
    with open_file(workspace.frames_file(class_name, name)) as file:
        jpeg, offsets = file["jpeg"][:], file["offsets"][:]
    pictures = [cv2.imdecode(jpeg[offsets[t] : offsets[t + 1]], cv2.IMREAD_COLOR)[..., ::-1] for t in centers]
    with open_file(workspace.flow_file(class_name, name)) as file:
        fields = file["flow"][:].astype(float)
    rgb = np.stack(pictures)[:, :, columns].transpose(0, 3, 1, 2) / 255
    flow = np.stack([fields[t - 5 : t + 5].reshape(20, *fields.shape[2:]) for t in centers])[..., columns]
    if mirror:
        rgb, flow = rgb[..., ::-1], flow[..., ::-1].copy()
        flow[:, 0::2] = 255 - flow[:, 0::2]
    mean, deviation = (np.reshape(x, (3, 1, 1)) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return torch.from_numpy((rgb - mean) / deviation)[None], torch.from_numpy((flow - 128) / 57.6)[None]


@torch.no_grad()
def logits_by_hand(workspace, network, video, windows, views, mirrors):
    """One stream's name -> float64 [C]: each window of each view, one at a time; the mean of their time steps."""
    found = {"appearance": [], "motion": []}
    for centers, columns, mirror in itertools.product(windows, views, mirrors):
        logits = network(*inputs_by_hand(workspace, video, centers, columns, mirror))
        for name, values in logits._asdict().items():
            if values is not None:
                found[name].append(values[0].mean(0).numpy())
    return {name: np.mean(values, axis=0) for name, values in found.items() if values}


def assert_scores(scores, expected):
    """`expected`: for each video the logits of each stream."""
    for row, video in enumerate(scores.videos):
        by_hand = expected[video] | {"fused": (expected[video]["appearance"] + expected[video]["motion"]) / 2}
        for stream, logits in scores.streams.items():
            np.testing.assert_allclose(logits[row], by_hand[stream], rtol=1e-4, atol=2e-6, err_msg=f"{video} {stream}")
    for stream, logits in scores.streams.items():
        assert np.ptp(logits, axis=0).min() > 2e-5, f"{stream}: the test would not see videos exchanged"


BOTH, PLAIN = (False, True), (False,)
SEQUENCE = [[5, 8, 10]]  # 16 frames have the valid centers 5..10; 7.5 is rounded to even
PROTOCOLS = {
    "the paper's": ({}, SEQUENCE, WHOLE, BOTH),
    "more crops than centers": ({"crops": 25}, [np.rint(np.linspace(5, 10, 25)).astype(int)], WHOLE, BOTH),
    "one crop": ({"crops": 1}, [[8]], WHOLE, BOTH),
    "no mirrors": ({"mirror": False}, SEQUENCE, WHOLE, PLAIN),
    "windows": ({"crops": 6, "temporal": "windows"}, [[5, 6], [7, 8], [9, 10]], WHOLE, BOTH),
    "overlapping windows": ({"temporal": "windows"}, [[5, 8], [8, 10]], WHOLE, BOTH),
    "center": ({"views": "center"}, SEQUENCE, [slice(4, 36)], PLAIN),
    "three crops": ({"views": "3"}, SEQUENCE, [slice(0, 32), slice(4, 36), slice(8, 40)], PLAIN),
    "ten crops": ({"views": "10"}, SEQUENCE, [slice(0, 32), slice(8, 40)] * 2 + [slice(4, 36)], BOTH),
}


@pytest.mark.parametrize(("settings", "windows", "views", "mirrors"), PROTOCOLS.values(), ids=PROTOCOLS)
def test_scores_are_those_computed_by_hand(workspace, settings, windows, views, mirrors):
    network = network_of(workspace, "joint1")
    scores = scores_of(evaluated(workspace, **settings))
    assert list(scores.streams) == ["appearance", "motion", "fused"]
    expected = {video: logits_by_hand(workspace, network, video, windows, views, mirrors) for video in TEST_VIDEOS}
    assert_scores(scores, expected)


def test_the_last_step_pools_over_time(workspace):
    network = network_of(workspace, "joint2")
    windows = [[5, 6, 7, 8, 9, 10]]
    expected = {video: logits_by_hand(workspace, network, video, windows, WHOLE, BOTH) for video in TEST_VIDEOS}
    assert_scores(scores_of(evaluated(workspace, step="joint2", crops=6)), expected)


def test_late_fusion_is_two_networks_side_by_side(workspace):
    networks = [network_of(workspace, stream) for stream in ("appearance", "motion")]
    assert [list(network.streams) for network in networks] == [["appearance"], ["motion"]]
    expected = {}
    for video in TEST_VIDEOS:
        parts = [logits_by_hand(workspace, network, video, SEQUENCE, WHOLE, BOTH) for network in networks]
        expected[video] = parts[0] | parts[1]
    assert_scores(scores_of(evaluated(workspace, step="late")), expected)


# ------------------------------------------------------------------ what it leaves


def test_every_test_video_is_scored_once_in_the_order_of_the_split(workspace):
    result = evaluated(workspace)
    scores = scores_of(result)
    assert scores.videos == TEST_VIDEOS
    assert scores.classes == ["jump", "wave"]
    assert scores.labels.tolist() == [0, 0, 1, 1]
    assert (result.missing_videos, result.failed) == ([], 0)
    assert not workspace.failures_file.exists()


def test_another_order_of_the_videos_changes_no_score(workspace):
    before = scores_of(evaluated(workspace))
    file = workspace.runs / "split1" / "split.json"
    split = json.loads(file.read_text())
    split["test"].reverse()
    file.write_text(json.dumps(split))
    after = scores_of(evaluated(workspace))
    assert after.videos == TEST_VIDEOS[::-1]
    assert after.labels.tolist() == [1, 1, 0, 0]
    for stream, logits in before.streams.items():
        np.testing.assert_array_equal(after.streams[stream][::-1], logits)


def test_the_number_of_loader_workers_changes_no_score(workspace):
    found = []
    for workers in (0, 2):
        result = evaluated(workspace, workers=workers, views=("full", "center"))
        found.append([read_scores(evaluation.folder / "scores.h5") for evaluation in result.evaluations])
    for none, two in zip(*found, strict=True):
        assert two.videos == none.videos
        for stream, logits in none.streams.items():
            np.testing.assert_array_equal(two.streams[stream], logits)


def test_results_json_says_what_was_tested_and_how_well(workspace):
    result = evaluated(workspace, views="10")
    document = json.loads((result.folder / "results.json").read_text())
    assert result.results == document
    assert result.folder == workspace.scores / "split1" / "joint1-3frames-10-mirror-sequence"
    assert document["protocol"] == {"frames": 3, "views": "10", "mirror": True, "temporal": "sequence"}
    assert (document["split"], document["run"], document["videos"], document["step"]) == (1, "split1", 4, "joint1")
    assert (document["missing"], document["failed"]) == ([], [])
    scores = scores_of(result)
    numbers = ("top1", "top5", "mean_class_accuracy")
    for stream in ("appearance", "motion", "fused"):
        found = document.pop(stream)
        assert found.keys() == {*numbers, *(f"{number}_interval" for number in numbers)}
        assert found["top1"] == np.mean(scores.streams[stream].argmax(1) == scores.labels)
        assert found["top1_interval"] == list(stream_metrics([scores], stream).top1_interval)
    made = {"schema", "stres_version", "library_versions", "scores_sha256"}
    about = {"protocol", "split", "run", "videos", "videos_sha256", "step", "missing", "failed"}
    about |= {"interval_method", "balance"}
    assert document.keys() == {*about, *made}
    with h5py.File(result.folder / "scores.h5") as file:
        assert document["scores_sha256"] == file.attrs["content_sha256"]
        assert json.loads(file.attrs["library_versions"]).keys() == {"numpy", "opencv", "torch"}


def test_scores_say_where_they_come_from(workspace):
    attributes = {}
    for step in ("joint1", "joint2", "late"):
        with h5py.File(evaluated(workspace, step=step, crops=5).folder / "scores.h5") as file:
            attributes[step] = dict(file.attrs)
    assert attributes["joint1"].items() >= {"run": "split1", "split": 1, "step": "joint1", "precision": "fp32"}.items()
    assert len({content["weights_sha256"] for content in attributes.values()}) == 3


def test_progress_counts_the_videos(workspace):
    reports = []
    evaluated(workspace, reports.append)
    assert reports.pop(0).message == "test: 2 classes, 4 videos: jump 2, wave 2"
    assert [(report.done, report.total) for report in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {report.phase for report in reports} == {"evaluate"}


# ------------------------------------------------------------------ after an interruption


@pytest.fixture
def read(monkeypatch):
    """The ids of the videos read, as they are read."""
    ids, read_video = [], ArtifactReader.read
    monkeypatch.setattr(ArtifactReader, "read", lambda *given: ids.append(given[1].id) or read_video(*given))
    return ids


def interrupt(workspace, after, **settings):
    def stop(progress):
        if progress.done == after:
            raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        evaluated(workspace, stop, **settings)
    (left,) = workspace.scores.glob("*/*/unfinished.jsonl")
    return left


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_test_goes_on_to_the_same_bits(workspace, read, after):
    whole = evaluated(workspace, **SEVERAL)
    files = [evaluation.folder / "scores.h5" for evaluation in whole.evaluations]
    bits = [file.read_bytes() for file in files]
    shutil.rmtree(workspace.scores)
    left = interrupt(workspace, after, **SEVERAL)
    read.clear()
    reports = []

    again = evaluated(workspace, reports.append, **SEVERAL)

    assert read == TEST_VIDEOS[after:]
    assert again.evaluations == whole.evaluations
    assert [file.read_bytes() for file in files] == bits
    assert reports[1].message == f"{after} of 4 videos were scored before the interruption"
    assert [report.done for report in reports[2:]] == list(range(after, 5))
    assert not left.exists()


def test_what_changed_since_the_interruption_is_scored_again(workspace, read):
    interrupt(workspace, 3)
    os.utime(workspace.flow_file("jump", "jump4"))
    read.clear()
    evaluated(workspace)
    assert read == ["jump/jump4", "wave/wave4"]


@pytest.mark.parametrize(
    "other", [{"precision": "bf16"}, {"views": ("full", "center")}, {"recalibrate_bn": 2}, {"step": "joint2"}]
)
def test_another_test_takes_nothing_of_an_interrupted_one(workspace, read, other):
    interrupt(workspace, 3, crops=5)
    read.clear()
    evaluated(workspace, crops=5, **other)
    assert read[-4:] == TEST_VIDEOS


def test_other_weights_take_nothing_of_an_interrupted_test(workspace, read):
    interrupt(workspace, 3)
    weights = workspace.runs / "split1" / "joint1" / "weights.pt"
    torch.save(torch.load(weights, weights_only=True) | {"seconds": 0.0}, weights)
    read.clear()
    evaluated(workspace)
    assert read == TEST_VIDEOS


@pytest.mark.parametrize(
    ("damage_text", "known"),
    [
        (lambda text: text[: len(text) - 20], 2),  # the power went amid a line
        (lambda text: text + "\0" * 40, 3),
        (lambda text: text.replace("wave/wave3", "\0" * 10), 2),
        (lambda text: text[10:], 0),
        (lambda text: "", 0),
    ],
)
def test_of_an_unfinished_test_the_whole_lines_count(workspace, read, damage_text, known):
    whole = scores_of(evaluated(workspace))
    left = interrupt(workspace, 3)
    left.write_text(damage_text(left.read_text()))
    read.clear()
    interrupt(workspace, max(known + 1, 1))
    assert read[0] == TEST_VIDEOS[known]
    read.clear()
    np.testing.assert_array_equal(scores_of(evaluated(workspace)).fused, whole.fused)
    assert read == TEST_VIDEOS[known + 1 :]


def test_videos_that_failed_before_the_interruption_are_tried_again(workspace):
    file = workspace.flow_file("jump", "jump3")
    content = file.read_bytes()
    damage(file)
    interrupt(workspace, 2)
    file.write_bytes(content)
    result = evaluated(workspace)
    assert (result.failed, scores_of(result).videos) == (0, TEST_VIDEOS)


# ------------------------------------------------------------------ several protocols in one pass

SEVERAL = {"views": ("full", "10", "center"), "temporal": ("sequence", "windows"), "crops": 6}


def test_several_protocols_in_one_pass_leave_what_separate_runs_leave(workspace):
    together = evaluated(workspace, **SEVERAL)
    folders = [evaluation.folder.name for evaluation in together.evaluations]
    assert folders == [
        f"joint1-6frames-{views}-{temporal}"
        for views in ("full-mirror", "10-mirror", "center-plain")
        for temporal in ("sequence", "windows")
    ]
    assert (together.folder.name, together.results) == (folders[0], together.evaluations[0].results)
    found = [(evaluation, read_scores(evaluation.folder / "scores.h5")) for evaluation in together.evaluations]
    shutil.rmtree(workspace.scores)
    for evaluation, scores in found:
        settings = {name: evaluation.results["protocol"][name] for name in ("views", "mirror", "temporal")}
        alone = evaluated(workspace, crops=6, **settings)
        assert (alone.folder, alone.results) == (evaluation.folder, evaluation.results)
        for stream, logits in scores_of(alone).streams.items():
            np.testing.assert_array_equal(scores.streams[stream], logits)
    assert len({scores.motion.tobytes() for _, scores in found}) == len(found), "the test would not see them exchanged"


def test_several_protocols_read_each_video_once(workspace, read):
    reports = []
    evaluated(workspace, reports.append, **SEVERAL)
    assert read == TEST_VIDEOS
    assert reports.pop(0).message == "test: 2 classes, 4 videos: jump 2, wave 2"
    assert [(report.done, report.total) for report in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_damaged_video_is_left_out_of_every_protocol_and_fails_once(workspace):
    damage(workspace.flow_file("jump", "jump4"))
    result = evaluated(workspace, **SEVERAL)
    assert (result.failed, len(read_failures(workspace))) == (1, 1)
    for evaluation in result.evaluations:
        assert evaluation.results["failed"] == ["jump/jump4"]
        assert len(read_scores(evaluation.folder / "scores.h5").videos) == 3


def test_of_several_protocols_the_first_is_the_one_reported(workspace):
    result = evaluated(workspace, **SEVERAL)
    (reported,) = find_evaluations(workspace, None, None, ())
    assert reported.folder == result.evaluations[0].folder


def test_a_pass_that_one_protocol_cannot_take_is_refused_before_it_begins(workspace):
    with pytest.raises(UsageError, match="--crops 4: joint2 of run split1 pools over 5 frames"):
        evaluated(workspace, step="joint2", crops=4, temporal=("windows", "sequence"))
    assert not workspace.scores.exists()


def test_the_command_takes_lists_and_prints_one_table(workspace):
    given = ["--crops", "3", "--views", "center, 10", "--temporal", "sequence,windows", "--device", "cpu"]
    given += ["--run", "split1", "--network", "joint1", "-w", str(workspace.root)]
    shown = CliRunner().invoke(app, ["evaluate", *given], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.count("95 % interval") == 1
    assert "run split1, joint1: frames 3" in shown.stdout.splitlines()[0]
    assert shown.stdout.count("appearance") == shown.stdout.count("fused") == 4
    for views, temporal in itertools.product(("center, mirror no", "10, mirror yes"), ("sequence", "windows")):
        assert f"views {views}, temporal {temporal}" in shown.stdout
    document = json.loads(CliRunner().invoke(app, ["evaluate", *given, "--json"]).stdout)
    keys = {"run", "evaluations", "folder", "results", "missing_videos", "failed", "seconds", "estimate", "left_out"}
    assert document.keys() == keys
    assert document["folder"] == document["evaluations"][0]["folder"]
    assert [Path(one["folder"]).name for one in document["evaluations"]] == [
        f"joint1-3frames-{views}-{temporal}"
        for views, temporal in itertools.product(("center-plain", "10-mirror"), ("sequence", "windows"))
    ]


# ------------------------------------------------------------------ which network


def test_by_default_the_newest_run_and_its_last_step(workspace):
    config = evaluate.Config(workspace.root, crops=6, device="cpu")
    assert (config.run, config.step) == (None, None)
    result = evaluate.run(config)
    assert (result.run, result.results["step"]) == ("split1", "joint2")


def test_a_run_of_appearance_only_has_only_appearance(workspace):
    result = evaluated(workspace, run="alone", step=None)
    assert list(scores_of(result).streams) == ["appearance"]
    assert "appearance" in result.results
    assert not {"motion", "fused"} & result.results.keys()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"run": "other"}, MissingError, "no run 'other' in .*: there are alone, split1"),
        ({"run": "../runs/split1"}, MissingError, "there are alone, split1"),
        ({"step": "joint3"}, UsageError, "--network 'joint3' is not known: give one of appearance, motion, .*, late"),
        ({"run": "alone", "step": "motion"}, MissingError, "has not finished 'motion'; it has appearance"),
        ({"run": "alone", "step": "late"}, MissingError, "has not finished 'late'; it has appearance"),
        ({"step": "joint2", "crops": 4}, UsageError, "--crops 4: joint2 of run split1 pools over 5 frames"),
        ({"precision": "fp16"}, UsageError, "--precision fp16 needs a GPU; on the CPU use fp32 or bf16"),
    ],
)
def test_a_network_that_cannot_be_tested_is_refused_by_name(workspace, settings, error, message):
    with pytest.raises(error, match=message):
        evaluated(workspace, **settings)
    assert not workspace.scores.exists()


def test_a_run_whose_weights_are_damaged_is_refused(workspace):
    file = workspace.runs / "split1" / "joint1" / "weights.pt"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(MissingError, match="does not load"):
        evaluated(workspace)


# ------------------------------------------------------------------ which videos


def set_flow_attribute(workspace, name, value):
    for file in workspace.flow.glob("*/*.h5"):
        with h5py.File(file, "r+") as flow:
            flow.attrs[name] = value


@pytest.mark.parametrize(
    ("name", "value", "difference"),
    [
        ("bound", 5.0, r"bound was 20\.0 and is now 5\.0"),
        ("method", "tvl1", 'method was "farneback" and is now "tvl1"'),
        ("method_parameters", '{"winsize": 9}', r"method_parameters\.winsize was none and is now 9"),
        ("short_side", 64, "short_side was 32 and is now 64"),
    ],
)
def test_other_flow_than_that_of_the_training_is_refused_unless_forced(workspace, name, value, difference):
    set_flow_attribute(workspace, name, value)
    with pytest.raises(UsageError, match=f"{difference}.*--force"):
        evaluated(workspace)
    assert evaluated(workspace, force=True).results["videos"] == 4


def test_missing_videos_are_counted_and_named(workspace):
    workspace.flow_file("jump", "jump4").unlink()
    workspace.frames_file("wave", "wave3").unlink()
    messages = []
    result = evaluated(workspace, lambda progress: messages.append(progress.message))
    assert result.missing_videos == result.results["missing"] == ["jump/jump4", "wave/wave3"]
    assert scores_of(result).videos == ["jump/jump3", "wave/wave4"]
    assert result.results["videos"] == 2
    assert (
        "2 of 4 test videos have no frames or no flow, for example jump/jump4; 1 of them has frames and no flow: run "
        "`stres extract-flow` on the videos"
    ) in messages


def test_classes_without_test_videos_are_named(workspace):
    for video in ("wave3", "wave4"):
        workspace.flow_file("wave", video).unlink()
    messages = []
    evaluated(workspace, lambda progress: messages.append(progress.message))
    assert "1 of the run's classes has no test video: wave" in messages


@pytest.mark.parametrize(("kind", "data_set"), [("frames", "jpeg"), ("flow", "flow")])
def test_a_damaged_video_is_a_failure_and_the_others_are_scored(workspace, kind, data_set):
    whole = scores_of(evaluated(workspace))
    file = workspace.root / kind / "jump" / "jump4.h5"
    content = file.read_bytes()
    damage(file, data_set)
    messages = []
    result = evaluated(workspace, lambda progress: messages.append(progress.message))
    assert_only_jump4_failed(workspace, result, file)
    assert any(message.startswith("not scored: jump/jump4: ") for message in messages)
    np.testing.assert_array_equal(scores_of(result).fused, whole.fused[[0, 2, 3]])
    file.write_bytes(content)
    assert evaluated(workspace).failed == 0
    assert not workspace.failures_file.exists()


def test_a_video_cut_short_is_a_failure_too(workspace):
    file = workspace.flow_file("jump", "jump4")
    file.write_bytes(file.read_bytes()[:3000])
    messages = []
    result = evaluated(workspace, lambda progress: messages.append(progress.message))
    assert_only_jump4_failed(workspace, result, file)
    assert any(message.startswith("not scored: jump/jump4: ") for message in messages)


def assert_only_jump4_failed(workspace, result, file):
    assert (result.failed, result.missing_videos) == (1, [])
    assert result.results["failed"] == ["jump/jump4"]
    rows = read_failures(workspace)
    assert [(row.stage, row.class_name, row.video) for row in rows] == [("evaluate", "jump", "jump4")]
    assert rows[0].path == str(file)
    assert str(file) in rows[0].reason
    assert scores_of(result).videos == ["jump/jump3", "wave/wave3", "wave/wave4"]


def test_when_no_video_can_be_read_every_one_is_a_failure(workspace):
    for video in TEST_VIDEOS:
        damage(workspace.flow_file(*video.split("/")))
    with pytest.raises(MissingError, match=r"no test video of run split1 .*: 4 cannot be read, for example: .*jump3"):
        evaluated(workspace)
    assert [f"{row.class_name}/{row.video}" for row in read_failures(workspace)] == TEST_VIDEOS
    assert not workspace.scores.exists()


def test_without_any_flow_the_test_videos_are_missing(workspace):
    shutil.rmtree(workspace.flow)
    with pytest.raises(
        MissingError, match=r"no test video of run split1 .*: 4 have no frames or no flow; .*extract-flow"
    ):
        evaluated(workspace)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": "10", "mirror": False}, "--views 10 is five crops and their mirrors: without mirrors it is"),
        ({"views": "4"}, "--views '4' is not known: give some of full, center, 3, 5, 10"),
        ({"temporal": "random"}, "--temporal 'random' is not known: give some of sequence, windows"),
        ({"precision": "int8"}, "--precision 'int8' is not known: give one of fp32, bf16, fp16"),
        ({"crops": 0}, "--crops 0: give an integer of at least 1"),
        ({"views": ("full", "4")}, "--views '4' is not known: give some of full, center, 3, 5, 10"),
        ({"views": ("full", "")}, "--views '' is not known"),
        ({"views": ()}, "--views '' is not known"),
        ({"views": ("full", "10", "full")}, "--views full,10,full names one of them twice"),
        ({"views": ("full", "10"), "mirror": False}, "without mirrors it is --views 5"),
        ({"temporal": ("sequence", "windows"), "recalibrate_bn": 2}, "one protocol: give one --views and one --temp"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        evaluate.Config(tmp_path, **settings)


def test_whole_frames_and_ten_crops_are_mirrored_unless_told_otherwise(tmp_path):
    mirrored = {views: evaluate.Config(tmp_path, views=views).protocol("joint1").mirror for views in get_args(ViewName)}
    assert mirrored == {"full": True, "center": False, "3": False, "5": False, "10": True}
    assert evaluate.Config(tmp_path, views="5", mirror=True).protocol("joint1").mirror
    assert not evaluate.Config(tmp_path, views="full", mirror=False).protocol("joint1").mirror


def test_what_was_trained_without_mirrors_is_tested_without(tmp_path):
    def mirror(views, mirror=None):
        return evaluate.Config(tmp_path, views=views, mirror=mirror).protocol("joint1", mirrored=False).mirror

    assert (mirror("full"), mirror("full", True), mirror("5"), mirror("10", True)) == (False, True, False, True)
    with pytest.raises(UsageError, match="joint1 was trained without mirrors: give --views 5, or --mirror yes"):
        mirror("10")


def test_no_two_protocols_share_a_folder():
    choices = {
        "step": (*STEPS, "late"),
        "frames": (1, 2, 5, 25),
        "views": get_args(ViewName),
        "mirror": (False, True),
        "temporal": get_args(TemporalName),
        "recalibrate_bn": (0, 5, 25),
        "checkpoint": ("last", "best"),
        "fusion_weight": (0, 0.3, 0.5, "held-out"),
    }
    assert list(choices) == [field.name for field in dataclasses.fields(evaluate.Protocol)]
    protocols = [evaluate.Protocol(*values) for values in itertools.product(*choices.values())]
    assert len({protocol.name for protocol in protocols}) == len(protocols)


# ------------------------------------------------------------------ batch norm's statistics taken anew


def test_recalibrated_scores_stand_in_a_folder_of_their_own_and_say_so(workspace):
    plain = evaluated(workspace)
    anew = evaluated(workspace, recalibrate_bn=2)
    assert anew.folder.name == plain.folder.name + "-bn2"
    assert anew.results["protocol"] == plain.results["protocol"] | {"recalibrate_bn": 2}
    assert np.abs(scores_of(anew).motion - scores_of(plain).motion).max() > 1e-3


def test_recalibrating_needs_training_videos(workspace):
    for class_name in ("jump", "wave"):
        for number in range(3):
            damage(workspace.flow_file(class_name, f"{class_name}{number}"))
    with pytest.raises(MissingError, match="--recalibrate-bn 4: none of 4 training videos of run split1"):
        evaluated(workspace, recalibrate_bn=4)
