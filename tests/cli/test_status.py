"""`stres status` and `stres runs`: what they say of workspaces in every state, whole or damaged."""

import json
import os
import shutil

import numpy as np
import pytest

from pipelines.storage.atomic import locked, read_json, write_json
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run, only_trainer

PROTOCOL = "joint1-3frames-full-mirror-sequence"


@pytest.fixture
def work(old):
    return Workspace(old / "work")


@pytest.fixture
def ask(stres):
    """`ask("status", workspace)`: the document; what is printed without `--json` is never a traceback."""

    def call(command, workspace):
        assert stres(command, "-w", workspace.root).exit_code == 0
        return json.loads(stres(command, "-w", workspace.root, "--json").stdout)

    return call


def states(document):
    return [step["state"] for step in document["steps"]]


def copy_run(work, name, change, top1=None):
    """A newer run like split1, with another configuration, and maybe scores with this accuracy."""
    shutil.copytree(work.runs / "split1", work.runs / name)
    config = read_json(work.runs / name / "config.json")
    change(config)
    write_json(work.runs / name / "config.json", config)
    os.utime(work.runs / name / "config.json", (2e9, 2e9))
    if top1 is not None:
        shutil.copytree(work.scores / "split1", work.scores / name)
        results = read_json(work.scores / name / PROTOCOL / "results.json")
        results["fused"]["top1"] = top1
        write_json(work.scores / name / PROTOCOL / "results.json", results)


def test_without_a_command_the_five_steps_are_shown_and_where_to_begin(stres, tmp_path):
    shown = stres(STRES_WORKSPACE=str(tmp_path / "none"))

    assert shown.exit_code == 0
    assert [line.split()[1] for line in shown.stdout.splitlines()[1:6]] == [
        *("extract-frames", "extract-flow", "train", "evaluate", "report")
    ]
    assert "next: stres extract-frames VIDEOS\n" in shown.stdout
    assert "stres --help" in shown.stdout


def test_each_stage_leads_to_the_next(ask, stres, work):
    """Backwards, from a workspace in which all but the report was done."""
    assert ask("status", work)["next"] == f"stres report --run split1 --workspace {work.root}"
    page = work.reports / "split1" / "report.html"
    page.parent.mkdir(parents=True)
    page.touch()
    whole = ask("status", work)
    assert states(whole) == ["done"] * 5
    assert whole["next"].startswith("stres predict VIDEO")
    assert whole["videos"] == {"frames": 6, "flow": 6}
    (work.runs / "split1/student").mkdir()
    (work.runs / "split1/student/weights.pt").touch()
    os.utime(work.runs / "split1/student/weights.pt", (2e9, 2e9))
    assert ask("status", work)["next"].startswith("stres predict VIDEO")  # `evaluate` would test joint1 again
    os.utime(work.runs / "split1/joint1/weights.pt", (2e9, 2e9))
    assert ask("status", work)["next"].startswith("stres evaluate --run split1")
    shutil.rmtree(work.scores)
    shutil.rmtree(work.reports)
    assert ask("status", work)["next"].startswith("stres evaluate --run split1")
    (work.runs / "split1/joint1/weights.pt").unlink()
    unfinished = ask("status", work)
    assert states(unfinished)[2:4] == ["begun", "to do"]
    assert unfinished["runs"][0]["unfinished"] == ["joint1"]
    assert unfinished["next"].startswith("stres train --name split1")
    shutil.rmtree(work.runs)
    assert ask("status", work)["next"].startswith("stres train --split 1")
    next(work.flow.glob("*/*.h5")).unlink()
    assert states(ask("status", work))[:2] == ["done", "begun"]
    shutil.rmtree(work.flow)
    assert ask("status", work)["next"].startswith("stres extract-flow VIDEOS")


@pytest.mark.parametrize(("short_side", "told"), [(32, "VIDEOS --short-side 32 "), (None, "VIDEOS --workspace ")])
def test_the_extraction_that_comes_next_gets_the_size_of_what_is_stored(
    ask, stres, two_classes, tmp_path, short_side, told
):
    size = [] if short_side is None else ["--short-side", short_side]
    stres("extract-frames", two_classes, *size, "-w", tmp_path / "work")
    assert f"stres extract-flow {told}" in ask("status", Workspace(tmp_path / "work"))["next"]


def test_a_run_that_is_being_trained_is_waited_for(ask, stres, work):
    def document():
        found = ask("status", work)
        return found["runs"][0]["training"], found["steps"][2]["found"], found["next"]

    (work.runs / "split1/joint1/weights.pt").unlink()
    assert document()[0] is None
    with only_trainer(Run(work.runs / "split1")):
        training, found, then = document()
        of = training["of"]
        assert training == {"step": "joint1", "updates": of, "of": of}  # as logged before the weights were lost
        assert found == f"in training: split1 (joint1, {of} of {of} updates)"
        assert then.startswith("wait for run split1, which is in training: joint1, ")
        assert "joint1 unfinished (in training: joint1, " in stres("runs", "-w", work.root, COLUMNS="200").stdout
        with (work.runs / "split1/metrics.jsonl").open("a") as file:
            file.write('{"step": "joint1", "iteration": 1}\n{"step": "joi')
        assert document()[0]["updates"] == 1
        (work.runs / "split1/metrics.jsonl").unlink()
        assert document()[0]["updates"] == 0


def test_an_extraction_that_is_running_is_waited_for(ask, work):
    mark = work.unfinished_file("flow")
    mark.touch()
    stopped = ask("status", work)
    assert stopped["steps"][1]["found"] == "6 videos of 2 classes, not all that was asked for"
    with locked(mark, shared=True):
        running = ask("status", work)
    assert running["next"] == "wait for extract-flow, which is running"
    assert (running["steps"][1]["found"], states(running)[1]) == ("6 videos of 2 classes, running", "begun")
    assert [step["running"] for step in running["steps"]] == [False, True, False, False, False]
    assert stopped["next"].startswith("stres extract-flow VIDEOS")


def test_a_run_of_frames_alone_needs_no_flow(ask, work):
    shutil.rmtree(work.flow)
    assert states(ask("status", work))[:3] == ["done", "to do", "done"]
    for step in ("motion", "joint1"):
        shutil.rmtree(work.runs / "split1" / step)
    config = read_json(work.runs / "split1/config.json")
    config["steps"] = {"appearance": config["steps"]["appearance"]}
    write_json(work.runs / "split1/config.json", config | {"flow": {}})

    assert states(ask("status", work))[:3] == ["done", "done", "done"]


def test_only_the_settings_that_differ_are_shown_and_the_best_and_newest_run_are_marked(ask, stres, work):
    def change(config):
        config["seed"] = 7
        config["steps"]["motion"]["lr"] = 0.5
        config["network"]["fusion"] = "multiply"

    copy_run(work, "other", change, top1=0.0)
    other, split1 = ask("runs", work)["runs"]

    before = read_json(work.runs / "split1/config.json")
    assert (other["name"], other["newest"], other["best"]) == ("other", True, False)
    assert (split1["name"], split1["newest"], split1["best"]) == ("split1", False, True)
    assert other["settings"] == {"fusion": "multiply", "lr": "motion=0.5", "seed": "7"}
    assert split1["settings"] == {
        "fusion": before["network"]["fusion"],
        "lr": f"motion={before['steps']['motion']['lr']:g}",
        "seed": str(before["seed"]),
    }
    results = read_json(work.scores / "split1" / PROTOCOL / "results.json")
    assert split1["scores"][0]["top1"] == results["fused"]["top1"]
    assert split1["finished"] == ["appearance", "motion", "joint1"]
    shown = stres("runs", "-w", work.root).stdout
    assert "other (newest)" in shown
    assert "split1 (best)" in shown
    assert "other: fusion multiply, seed 7, lr motion=0.5" in shown


def test_runs_of_other_splits_are_not_rivals_and_their_videos_no_setting(ask, work):
    copy_run(work, "split2", lambda config: config.update(split=2, split_sha256="x"), top1=0.1)
    results = work.scores / "split2" / PROTOCOL / "results.json"
    write_json(results, read_json(results) | {"split": 2})

    assert [(one["best"], one["settings"]) for one in ask("runs", work)["runs"]] == [(False, {}), (False, {})]


def test_only_runs_that_were_tested_on_the_same_videos_are_rivals(ask, work):
    def best():
        return [one["best"] for one in ask("runs", work)["runs"]]

    copy_run(work, "other", lambda config: config.update(split_sha256="x"), top1=0.1)
    assert best() == [False, False]  # as many videos of split 1 of other lists
    for name, sha256 in (("other", "y"), ("split1", "z")):
        results = work.scores / name / PROTOCOL / "results.json"
        write_json(results, read_json(results) | {"videos_sha256": sha256})
    assert best() == [False, False]
    write_json(results, read_json(results) | {"videos_sha256": "y"})
    assert best() == [False, True]


def test_imported_scores_are_listed_beside_the_runs(ask, stres, work, tmp_path):
    np.save(tmp_path / "scores.npy", np.eye(2))
    (tmp_path / "list.txt").write_text("jump/jump2.mkv jump\nwave/wave2.mkv wave\n")
    files = ("--fused", tmp_path / "scores.npy", "--list", tmp_path / "list.txt")
    assert stres("import-scores", "--name", "theirs", *files, "-w", work.root).exit_code == 0

    (theirs,) = (one for one in ask("runs", work)["runs"] if one["name"] == "theirs")
    assert (theirs["origin"], theirs["split"], theirs["scores"][0]["top1"]) == ("imported", 1, 1.0)
    assert "theirs" in ask("status", work)["steps"][3]["found"]
    assert ask("status", work)["steps"][2]["found"] == "split1"
    shutil.rmtree(work.runs)
    shutil.rmtree(work.scores / "split1")
    assert ask("status", work)["steps"][2]["found"] == "none here, but scores of theirs (imported)"
    shown = stres("report", "-w", work.root)
    assert shown.stdout.count("; next: ") == shown.stdout.count("; next: stres status ") == 1
    assert ask("status", work)["next"].startswith("stres extract-frames VIDEOS ")


def test_a_run_that_was_moved_aside_is_neither_to_be_continued_nor_to_be_tested(ask, work):
    copy_run(work, "split1.old1", lambda config: None)
    (work.runs / "split1.old1/joint1/weights.pt").unlink()
    document = ask("status", work)
    assert [step["state"] for step in document["steps"][2:4]] == ["done", "done"]
    assert "old1" not in f"{document['steps']} {document['next']}"
    assert {one["name"] for one in document["runs"]} == {"split1", "split1.old1"}


def test_an_unfinished_test_of_a_run_that_lies_elsewhere_makes_no_run_of_it(ask, work):
    before = ask("runs", work)
    folder = work.scores / "elsewhere" / PROTOCOL
    folder.mkdir(parents=True)
    (folder / "unfinished.jsonl").write_text("{}\n")
    assert ask("runs", work) == before


def test_a_file_is_no_workspace(stres, tmp_path):
    (tmp_path / "file").touch()
    shown = stres("status", "-w", tmp_path / "file")
    assert (shown.exit_code, shown.stderr) == (
        3,
        f"error: the workspace {tmp_path / 'file'} is a file: name a folder with --workspace\n",
    )
    assert stres("status", "-w", "").stderr == "error: --workspace '' cannot be read: give a path\n"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"split": "one"}'])
def test_damaged_files_are_told_and_the_rest_is_shown(ask, work, content):
    copy_run(work, "other", lambda config: None, top1=0.5)
    (work.runs / "other/config.json").write_bytes(content)
    (work.scores / "other" / PROTOCOL / "results.json").write_bytes(content)
    (work.scores / "split1" / "half").mkdir()
    (work.scores / "split1" / "half" / "scores.h5").touch()
    (work.splits / "trainlist01.txt").write_bytes(content)
    document = ask("status", work)

    told = "\n".join(document["faults"])
    for path in ("runs/other/config.json", f"scores/other/{PROTOCOL}/results.json", "scores/split1/half"):
        assert path in told
    assert document["steps"][2]["found"].startswith("split1")
    (split1,) = (one for one in document["runs"] if one["name"] == "split1")
    assert split1["scores"][0]["protocol"] == PROTOCOL
