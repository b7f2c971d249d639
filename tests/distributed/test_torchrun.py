"""Two processes of torchrun do what one does: the same training, every video once, one voice."""

import contextlib
import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from pipelines import evaluate, train
from pipelines.evaluation.scores import read_scores
from pipelines.interface.options import CheckpointName
from pipelines.storage.failures import read_failures
from pipelines.storage.workspace import Workspace
from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load
from pipelines.training.runs import Run
from pipelines.video.synthetic import write_clips
from tests.distributed import ranks_script
from tests.helpers.workspaces import Trained, write_workspace


def torchrun(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `ranks_script` in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    arguments = [*command, ranks_script.__file__, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, **pipes, env=env, start_new_session=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=480)
        except subprocess.TimeoutExpired:  # ranks that wait for each other
            process.terminate()  # torchrun ends them
            stdout, stderr = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # ranks that outlive it would hold the pipes open
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def launched(trained_on_videos: Trained, tmp_path_factory) -> tuple[dict[str, Any], Path, str, str, int]:
    """What `ranks_script.healthy` finds, its folder, what the script prints, and its exit code."""
    folder = tmp_path_factory.mktemp("ranks")
    write_clips(folder / "stages" / "clips", 1, seed=0)
    (folder / "stages" / "clips" / "bad").mkdir()
    (folder / "stages" / "clips" / "bad" / "bad.avi").write_text("this is no video")
    cut_short(write_workspace(folder / "stages" / "work").frames_file("wave", "wave4"))
    shutil.copytree(trained_on_videos.videos, folder / "looks" / "clips")
    bad = folder / "looks" / "clips" / "jump" / "jump1.mkv"
    bad.write_bytes(bad.read_bytes()[:300])
    trained_workspace(trained_on_videos, folder / "looks" / "work")
    ended = torchrun(folder)
    assert (folder / "healthy.pickle").exists(), ended.stderr
    found = pickle.loads((folder / "healthy.pickle").read_bytes())
    return found, folder, ended.stdout, ended.stderr, ended.returncode


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def trained_workspace(trained: Trained, root: Path) -> None:
    """A copy, in which one video's frames are damaged."""
    shutil.copytree(trained.workspace.root, root)
    cut_short(Workspace(root).frames_file("jump", "jump1"))


@pytest.fixture(scope="module")
def staged(launched) -> tuple[dict[str, Any], Path, str, str]:
    found, folder, stdout, stderr, _ = launched
    return found["working"], folder / "stages", stdout, stderr


# ------------------------------------------------------------------ updates, in double precision


@pytest.fixture(scope="module")
def trained(staged) -> dict[str, Any]:
    return staged[0]["training"]


@pytest.fixture(scope="module", params=["STEP", "STUDENT"])
def alone(request) -> dict[str, Any]:
    return ranks_script.updates(None, getattr(ranks_script, request.param)) | {"step": request.param}


@pytest.mark.parametrize("way", ["together", "dealt"])
def test_updates_are_those_of_one_process(trained, alone, way):
    """Weights, running moments and sums: with a micro-batch each, with a part of each; with short batches that leave a
    rank without work, damaged videos on one rank only, and dropout."""
    found = trained[way if alone["step"] == "STEP" else f"student {way}"]
    assert found["model"].keys() == alone["model"].keys()
    for name, value in alone["model"].items():
        torch.testing.assert_close(
            found["model"][name], value, rtol=1e-7, atol=1e-9, msg=lambda m, name=name: f"{name} {m}"
        )
    assert found["sums"] == pytest.approx(alone["sums"], rel=1e-5)
    assert found["bad"].values() == alone["bad"].values() or set(found["bad"].values()) == {"bad"}


@pytest.mark.parametrize("way", ["together", "dealt"])
def test_running_moments_are_the_same_on_all_ranks(trained, way):
    assert trained[way]["moments agree"]


def plain_norm(videos: slice) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    x, weights = torch.randn(2, 4, 5, 2, 3, dtype=torch.float64) * 3 + 7
    norm = nn.BatchNorm2d(5, momentum=0.05).double()
    nn.init.normal_(norm.weight)
    x = x[videos].clone().requires_grad_()
    y = norm(x)
    (y * weights[videos]).sum().backward()
    gradients = {f"d_{name}": parameter.grad for name, parameter in norm.named_parameters()}
    moments = {"running_mean": norm.running_mean, "running_var": norm.running_var}
    return {"y": y.detach(), "dx": x.grad, **gradients, **moments}


def test_synchronised_batch_norm_is_that_of_all_images_at_once(trained):
    whole = plain_norm(slice(0, 4))
    for name, value in whole.items():
        torch.testing.assert_close(trained["norm"][name], value, msg=lambda m, name=name: f"{name} {m}")


def test_a_rank_without_images_counts_for_nothing_in_it(trained):
    others = plain_norm(slice(0, 3))
    torch.testing.assert_close(trained["norm"]["y without rank 1"], others["y"])
    torch.testing.assert_close(trained["norm"]["dx without rank 1"], others["dx"])
    assert not trained["norm"]["absent dx"].any()


# ------------------------------------------------------------------ stages


def weights(folder: Path, run: str, step: str, checkpoint: CheckpointName = "last") -> dict[str, torch.Tensor]:
    return load(Run(folder / "work" / "runs" / run, checkpoint).weights_file(step), WEIGHTS_SCHEMA)["model"]


def losses(folder: Path, run: str, of: str = "loss") -> list[tuple[str, int, float]]:
    lines = map(json.loads, (folder / "work" / "runs" / run / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["iteration"], line[of]) for line in lines]


def test_extraction_does_every_video_once_and_says_so_once(staged):
    found, folder, stdout, stderr = staged
    result = json.loads(stdout)  # one document, of one rank
    assert found["extract"] == [1, 1]  # a video failed
    assert (result["done"], result["failed"], result["skipped"]) == (9, 1, 0)
    files = list((folder / "flow" / "flow").rglob("*.h5"))
    assert len(files) == 9
    assert result["units"] == 9 * 23
    assert [row.video for row in read_failures(Workspace(folder / "flow"))] == ["bad"]
    assert stderr.count("\nbad/bad: ") == 1


def test_the_loss_curve_is_that_of_one_process(staged):
    _, folder, _, _ = staged
    train.run(ranks_script.config(folder, "one"))
    for of in ("loss", "validation_loss"):
        one, two = losses(folder, "one", of), losses(folder, "two", of)
        assert [line[:2] for line in one] == [line[:2] for line in two]
        assert [line[2] for line in one] == pytest.approx([line[2] for line in two], rel=1e-5)
    assert Run(folder / "work" / "runs" / "one").config() == Run(folder / "work" / "runs" / "two").config()


def test_ranks_stop_after_the_same_update_and_continue_to_the_same_bits(staged):
    found, folder, _, _ = staged
    assert found["stopped"] == [143, 143]  # only rank 0 had been sent a signal
    assert found["checkpoint"]
    for step, checkpoint in itertools.product(ranks_script.TINY, get_args(CheckpointName)):
        two, parts = weights(folder, "two", step, checkpoint), weights(folder, "parts", step, checkpoint)
        for name, value in two.items():
            assert torch.equal(parts[name], value), f"{step} {name}"
    assert [line[2] for line in losses(folder, "parts")] == pytest.approx([line[2] for line in losses(folder, "two")])


def test_one_process_continues_what_two_began(staged):
    _, folder, _, _ = staged
    seen: list[int] = []
    config = ranks_script.config(folder, "moved", steps=("motion",))
    train.run(config, lambda progress: None if progress.message else seen.append(progress.done))
    assert seen == [4, 5]
    two, moved = weights(folder, "two", "motion"), weights(folder, "moved", "motion")
    for name, value in two.items():
        torch.testing.assert_close(moved[name], value, rtol=1e-3, atol=1e-4)


def test_scores_are_those_of_one_process_bit_for_bit(staged):
    found, folder, _, _ = staged
    ours, others = found["evaluated"]
    assert ours == others  # the result is everybody's
    shared = [read_scores(evaluation.folder / "scores.h5") for evaluation in ours.evaluations]
    documents = [(evaluation.folder / "results.json").read_text() for evaluation in ours.evaluations]
    for views, scores, document in zip(("full", "center"), shared, documents, strict=True):
        settings = {"crops": 3, "views": views, "device": "cpu", "fusion_weight": "held-out"}
        single = evaluate.run(evaluate.Config(folder / "work", run="two", step="late", **settings))
        again = read_scores(single.folder / "scores.h5")
        assert scores.videos == again.videos
        assert (scores.motion == again.motion).all()
        assert document == (single.folder / "results.json").read_text()


def test_every_split_is_trained_by_all_ranks_and_one_that_diverges_ends_none(staged):
    found, folder, _, _ = staged
    for diverged, trained in found["every split"]:
        assert (diverged.runs, list(diverged.diverged)) == ([], ["wild1"])
        assert ([one.run for one in trained.runs], trained.diverged) == (["every1"], {})
    assert Run(folder / "work" / "runs" / "every1").finished() == ["appearance"]


def test_a_dry_run_measures_training_as_all_ranks_do_it(staged):
    found, folder, _, _ = staged
    for cost in found["dry training"]:
        assert [(step.step, step.updates, step.measured_updates) for step in cost.steps] == [
            ("appearance", 4, 3),
            ("motion", 5, 4),
        ]
    assert not (folder / "work" / "runs" / "dry").exists()


def test_a_dry_run_divides_the_test_by_the_ranks(staged):
    cost, other = staged[0]["dry test"]
    assert cost == other  # what rank 0 measured is everybody's
    assert cost.videos == 3  # a fourth is damaged
    assert cost.held_out == 2
    assert cost.hours == cost.seconds_per_video * (3 + 2) / 2 / 3600


# ------------------------------------------------------------------ looking at many videos

LOOKS = ("verify", "predict", "timeline", "fix")


@pytest.fixture(scope="module")
def looked(launched, trained_on_videos: Trained) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """What two processes and one say of the same videos; the workspaces they leave are `two` and `work`."""
    folder = launched[1] / "looks"
    (folder / "work").rename(folder / "two")
    trained_workspace(trained_on_videos, folder / "work")
    return launched[0]["looking"], ranks_script.looking(folder), folder


def document(told: dict[str, Any]) -> dict[str, Any]:
    """What rank 0 printed, but for the time it took."""
    everything = json.loads(told["out"][0])
    return {name: value for name, value in everything.items() if "_per_second" not in name and name != "seconds"}


@pytest.mark.parametrize("look", LOOKS)
def test_each_video_is_one_ranks_and_all_ranks_have_some(looked, look):
    two, one, _ = looked
    first, second = two[look]["work"]
    assert first
    assert second
    assert sorted(first + second) == sorted(one[look]["work"][0])


@pytest.mark.parametrize("look", LOOKS)
def test_two_processes_say_what_one_says_in_one_voice(looked, look):
    two, one, _ = looked
    assert two[look]["codes"] == [1, 1] == 2 * one[look]["codes"]
    assert document(two[look]) == document(one[look])
    assert (two[look]["out"][1], two[look]["err"][1]) == ("", "")
    assert two[look]["err"][0].count("jump1.mkv: ") == one[look]["err"][0].count("jump1.mkv: ")


def test_what_is_bad_is_among_what_they_say(looked):
    two, _, _ = looked
    faults = {fault["subject"]: fault for fault in document(two["verify"])["faults"]}
    assert faults["jump/jump1"]["kind"] == "truncated"
    assert "the worker process died" in faults[ranks_script.DEADLY]["detail"]
    for look, bad in {"predict": ["jump1"], "timeline": ["absent", "jump1"]}.items():
        assert [row["video"] for row in document(two[look])["failures"]] == bad
        assert len(document(two[look])["predictions"]) == 5


def test_two_processes_leave_what_one_leaves(looked):
    """Timelines and their pictures, what `--fix` sets aside, and the rows of `failures.csv`."""
    _, _, folder = looked
    roots = folder / "two", folder / "work"
    two, one = ({path.relative_to(root): path for path in root.rglob("*") if path.is_file()} for root in roots)
    assert two.keys() == one.keys()
    assert sum(path.parts[0] == "predictions" for path in one) == 5 * len(
        ("csv", "json", "png", "mp4", "segments", "srt")
    )
    for name in one:  # x264 writes other bytes each time it is given the same pictures
        if name.suffix != ".mp4" and name.name != "failures.csv":
            assert two[name].read_bytes() == one[name].read_bytes(), name
    rows, others = ([(*row.key, row.path, row.reason) for row in read_failures(Workspace(root))] for root in roots)
    assert rows == others
    assert {(stage, video) for stage, _, video, _, _ in rows} == {
        ("predict", str(folder / "absent.avi")),
        ("predict", str(folder / "clips" / "jump" / "jump1.mkv")),
        ("extract-frames", "jump1"),
        ("extract-flow", "wave0"),
        ("extract-frames", "wave0"),
    }


# ------------------------------------------------------------------ errors


def test_one_ranks_error_ends_all_and_is_told_once(launched):
    _, _, _, stderr, code = launched
    assert code != 0
    assert stderr.count("error: rank 1 found no cake\n") == 1
    assert "interrupted" not in stderr
