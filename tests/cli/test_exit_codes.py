"""Each way in which a command can end has its exit code, and its one sentence."""

import csv
import shutil

import pytest

from pipelines import report


def test_0_done_and_the_same_command_again_has_nothing_to_do(stres, two_classes, tmp_path):
    first = stres("extract-frames", two_classes, "-w", tmp_path / "work")
    again = stres("extract-frames", two_classes, "-w", tmp_path / "work")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "8 videos done, 0 already done, 0 failed" in first.stdout
    assert "0 videos done, 8 already done, 0 failed" in again.stdout


def test_1_a_bad_video_is_a_row_of_failures_until_it_is_repaired(stres, two_classes, tmp_path):
    bad = two_classes / "red_rising" / "bad.avi"
    bad.write_text("this is no video")
    command = ("extract-frames", two_classes, "-w", tmp_path / "work")

    for _ in range(2):
        failed = stres(*command)
        assert failed.exit_code == 1
        assert "1 failed" in failed.stdout
        assert "red_rising/bad: " in failed.stderr
        with (tmp_path / "work" / "failures.csv").open(encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["stage"], row["class"], row["video"]) == ("extract-frames", "red_rising", "bad")
        assert row["path"] == str(bad)
        assert row["reason"]

    shutil.copy(two_classes / "red_rising" / "red_rising_000.avi", bad)
    repaired = stres(*command)
    assert repaired.exit_code == 0
    assert "1 video done, 8 already done" in repaired.stdout
    assert not (tmp_path / "work" / "failures.csv").exists()


WRONG_USAGE = {
    "unknown method": ("extract-flow . --method sift", ["'sift'", "tvl1, ", "farneback, dis, raft"]),
    "unknown compression": ("extract-flow . --compression rar", ["'rar'", "zstd, gzip"]),
    "unknown recipe": ("train --recipe big", ["'big'", "paper, finetune, small"]),
    "unknown fusion": ("train --fusion sum", ["'sum'", "add, multiply, none"]),
    "unknown step": ("train --steps joint3", ["'joint3'", "appearance, motion, joint1, joint2"]),
    "unknown augmentation": ("train --augmentation huge", ["'huge'", "corner-jittered"]),
    "unknown device": ("extract-flow . --device tpu", ["'tpu'", "auto, cpu, cuda"]),
    "unknown views": ("evaluate --views 7", ["'7'", "full, center, 3, 5, 10"]),
    "not a number": ("train --split one", ["--split", "'one'", "a number of at least 1, or all"]),
    "too small": ("extract-frames . --workers -1", ["--workers -1: give an integer from 0 to 4096"]),
    "not finite": ("train --lr nan", ["--lr nan for appearance: give a number above 0"]),
    "infinite": ("extract-frames . --patience inf", ["--patience inf: give a number of at least 1"]),
    "infinite bound": ("extract-flow . --bound inf", ["--bound", "inf"]),
    "no number": ("extract-flow . --bound nan", ["--bound nan: give a number above 0"]),
    "infinite factor": ("train --schedule 1:inf", ["--schedule", "inf"]),
    "not above zero": ("extract-flow . --bound 0", ["--bound 0.0: give a number above 0"]),
    "no such option": ("report --colour red", ["--colour"]),
    "no argument": ("extract-frames", ["VIDEOS"]),
    "splits": ("report --splits 1,b", ["'1,b'", "1,2,3"]),
    "a share of nothing": ("report --with-weight 0.3", ["--with-weight 0.3 goes with --with only"]),
    "an option of lists": (
        "extract-frames . --label-column x",
        ["--label-column is for lists of videos, but", "folder"],
    ),
    "method option": ("extract-flow . --method-option warps", ["'warps'", "NAME=VALUE"]),
}


@pytest.mark.parametrize(("arguments", "expected"), WRONG_USAGE.values(), ids=WRONG_USAGE)
def test_2_wrong_usage_echoes_what_was_given_and_what_is_accepted(stres, tmp_path, arguments, expected):
    (tmp_path / "a.avi").touch()
    arguments = [str(tmp_path) if word == "." else word for word in arguments.split()]

    shown = stres(*arguments, "-w", tmp_path / "work")

    assert shown.exit_code == 2
    assert shown.stdout == ""
    text = " ".join(shown.stderr.replace("│", " ").split())  # as if the box around it did not wrap
    assert [part for part in expected if part not in text] == []
    assert not (tmp_path / "work").exists()


def test_2_a_run_is_not_continued_with_another_configuration(stres, workspace):
    tiny = "--recipe small --width 4 --size 32 --batch-size 2 --iterations 1"
    command = ["train", *tiny.split(), "--steps", "appearance"]

    assert stres(*command, "-w", workspace.root).exit_code == 0
    again = stres(*command, "-w", workspace.root)
    other = stres(*command, "-w", workspace.root, "--lr", 0.5)
    recipe = stres("train", "--recipe", "paper", "--steps", "appearance", "-w", workspace.root)

    assert (again.exit_code, other.exit_code) == (0, 2)
    assert "already done" in again.stdout
    assert other.stderr.splitlines()[-1].startswith(
        "error: run split1 was begun with another configuration: steps.appearance.lr was"
    )
    assert (
        "another configuration: recipe was small and is now paper; give the same options, or none as in"
        in recipe.stderr
    )


MISSING = {
    "videos": ("extract-frames nowhere/videos", "there is no nowhere/videos"),
    "workspace for training": ("train -w nowhere", "there is no workspace at nowhere: run `stres extract-frames`"),
    "workspace for flow": ("extract-flow -w nowhere", "there is no workspace at nowhere: run `stres extract-frames`"),
    "run": ("evaluate", "there is no run in {work}/runs: train one with `stres train"),
    "run's folder": ("evaluate --run nowhere", "there is no run 'nowhere' in {work}/runs, and no folder of a run at"),
    "scores": ("report", "{work}/scores"),
    "GPU": ("train --device cuda:99", "--device cuda:99: torch"),
    "weights": ("train --weights nowhere.pth --width 64", "nowhere.pth"),
}


@pytest.mark.parametrize(("arguments", "expected"), MISSING.values(), ids=MISSING)
def test_3_what_is_missing_is_named_in_one_sentence(stres, workspace, arguments, expected):
    shown = stres(*arguments.split(), STRES_WORKSPACE=str(workspace.root))

    assert shown.exit_code == 3
    assert shown.stdout == ""
    *told, error = shown.stderr.splitlines()
    assert error.startswith("error: ")
    assert all(line.startswith(("training: ", "test: ", "validation: ", "recipe ", "input ")) for line in told)
    assert expected.format(work=workspace.root) in shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "extract-frames {}",
        "import-frames {}",
        "train --splits {}",
        "show-flow {}.avi",
        "status -w {}",
    ],
)
def test_3_a_path_that_the_system_refuses_is_no_bug(stres, workspace, arguments):
    shown = stres(*arguments.format("long" * 70).split(), STRES_WORKSPACE=str(workspace.root))

    assert shown.exit_code == 3
    assert "cannot be used (File name too long): check the path, and the permissions of the" in shown.stderr


def test_3_a_workspace_below_a_file_is_not_called_one_of_permissions(stres, two_classes, tmp_path):
    (tmp_path / "file").touch()
    shown = stres("extract-frames", two_classes, "-w", tmp_path / "file")

    assert shown.exit_code == 3
    assert "cannot be listed (Not a directory): check the path" in shown.stderr


def test_4_an_unexpected_error_is_one_sentence_and_a_traceback_only_with_debug(stres, monkeypatch, tmp_path):
    def fail(config, on_progress):
        raise RuntimeError("boom\nand more")

    monkeypatch.setattr(report, "run", fail)

    plain = stres("report", "-w", tmp_path)
    debug = stres("report", "-w", tmp_path, "--debug")

    assert (plain.exit_code, debug.exit_code) == (4, 4)
    sentence = "error: internal error, please report it: RuntimeError: boom (--debug shows the traceback)\n"
    assert plain.stderr == sentence
    assert debug.stderr.startswith("Traceback (most recent call last)")
    assert "in fail" in debug.stderr
    assert debug.stderr.endswith(sentence)


def test_a_name_cannot_control_the_terminal(stres, tmp_path):
    shown = stres("extract-frames", tmp_path / "\x1b[2Jgone\udcff")

    assert shown.exit_code == 3
    assert "�[2Jgone�" in shown.stderr


def test_the_workspace_is_taken_from_the_environment(stres, two_classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    shown = stres("extract-frames", two_classes / "red_rising" / "red_rising_000.avi", STRES_WORKSPACE="from-env")

    assert shown.exit_code == 0
    assert (tmp_path / "from-env" / "frames" / "unlabelled" / "red_rising_000.h5").is_file()
    assert not (tmp_path / "stres-work").exists()


@pytest.mark.parametrize("command", ["extract-frames", "extract-flow --method farneback"])
def test_a_dry_run_writes_nothing(stres, two_classes, tmp_path, command):
    before = sorted(tmp_path.rglob("*"))

    shown = stres(*command.split(), two_classes, "--dry-run", "-w", tmp_path / "work")

    assert shown.exit_code == 0
    assert "8 videos to do (0 already done), about 192 frames: about" in shown.stdout  # so the containers say
    assert sorted(tmp_path.rglob("*")) == before
