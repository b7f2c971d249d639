"""`--dry-run` of `train` and `evaluate`: a table for people, a document for programs."""

import json
import shutil

import numpy as np
import pytest

from pipelines.interface.wording import size
from pipelines.storage.workspace import Workspace
from pipelines.video.synthetic import write_video

TINY = "--recipe small --width 4 --size 32 --batch-size 2 --iterations 3 --steps appearance,motion --device cpu"


def test_a_dry_run_of_training_shows_a_row_for_each_step(stres, workspace):
    before = sorted(workspace.root.rglob("*"))

    shown = stres("train", *TINY.split(), "--dry-run", "-w", workspace.root)

    assert shown.exit_code == 0, shown.stderr
    assert "run split1: still to do, on 6 training videos" in shown.stdout
    rows = [line.strip("│ ").split("│") for line in shown.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:3]] for row in rows] == [["appearance", "3", "2"], ["motion", "3", "2"]]
    assert "train motion (dry run): 3/3 updates" in shown.stderr
    assert " in all, measured on " in shown.stdout
    assert sorted(workspace.root.rglob("*")) == before


@pytest.mark.parametrize("command", ["extract-frames", "extract-flow", "train"])
@pytest.mark.parametrize(
    ("free", "told"),
    [
        (50.0, "the disk has 50 GB free, which is enough"),
        (1e-6, "warning: the disk has only 1.0 kB free, and the command would stop when it is full"),
        (0.0, ""),
    ],
)
def test_a_dry_run_says_whether_the_disk_has_room_for_the_result(
    stres, workspace, two_classes, monkeypatch, tmp_path, command, free, told
):
    monkeypatch.setattr("pipelines.jobs.dry_run.free_gigabytes", lambda folder: free)
    monkeypatch.setattr("pipelines.training.session.free_gigabytes", lambda folder: free)
    method = ["--method", "farneback"] if command == "extract-flow" else []
    arguments = [two_classes, "-w", tmp_path / "new", "--workers", 1, *method]
    if command == "train":
        arguments = [*TINY.split(), "-w", workspace.root]

    shown = stres(command, *arguments, "--dry-run")

    assert shown.exit_code == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if "the disk has" in line] == ([told] if told else [])


@pytest.mark.parametrize("command", ["extract-frames", "extract-flow"])
def test_an_extraction_ends_with_the_number_of_videos_whose_timestamps_cannot_be_true(stres, tmp_path, command):
    pictures = np.random.default_rng(1).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / "videos/walk").mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / f"videos/walk/{name}.avi", pictures, codec="libx264")  # AVI has decoding times only
    write_video(tmp_path / "videos/walk/c.mkv", pictures, codec="ffv1", pixels="bgr0")
    method = ["--method", "farneback"] if command == "extract-flow" else []

    shown = stres(command, tmp_path / "videos", "-w", tmp_path / "work", "--workers", 1, *method)

    told = "2 videos have timestamps that cannot be true: their frames have the times of the container's average rate"
    assert told in shown.stdout.splitlines()


def test_a_number_of_frames_is_exact_only_where_all_are_counted(stres, workspace, monkeypatch):
    def shown():
        arguments = ("--method", "farneback", "--workers", 1, "--overwrite", "-w", workspace.root)
        return stres("extract-flow", "--dry-run", *arguments).stdout

    assert "10 videos to do (0 already done), 160 frames: about" in shown()
    monkeypatch.setattr("pipelines.jobs.dry_run._MEASURED", 1)
    monkeypatch.setattr("pipelines.jobs.dry_run._COUNTED", 5)
    assert "10 videos to do (0 already done), about 160 frames: about" in shown()


def test_a_dry_run_of_a_finished_run_says_that_nothing_is_left(stres, trained_on_videos):
    options = "--recipe small --width 4 --size 32 --device cpu --iterations 2 --batch-size 4 --lr 1e-4"
    arguments = [*options.split(), "--steps", "motion", "--dry-run", "-w", trained_on_videos.workspace.root]

    shown = stres("train", *arguments)

    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout == "motion already done\nrun split1 has nothing left to do\n"


def test_the_document_of_a_dry_run_of_training(stres, workspace):
    shown = stres("train", *TINY.split(), "--dry-run", "--json", "-w", workspace.root)

    document = json.loads(shown.stdout)
    assert (document["run"], document["steps"]) == ("split1", [])
    cost = document["estimate"]
    assert cost.keys() == {
        "steps",
        "finished",
        "hours",
        "gigabytes",
        "peak_gigabytes",
        "memory_gigabytes",
        "free_gigabytes",
    }
    assert [(step["step"], step["videos"], step["updates"]) for step in cost["steps"]] == [
        ("appearance", 6, 3),
        ("motion", 6, 3),
    ]


def test_a_dry_run_of_testing(stres, trained_on_videos):
    arguments = ["evaluate", "--crops", 5, "--device", "cpu", "--dry-run", "-w", trained_on_videos.workspace.root]
    before = sorted(trained_on_videos.workspace.root.rglob("*"))

    shown, document = stres(*arguments), json.loads(stres(*arguments, "--json").stdout)

    assert shown.exit_code == 0, shown.stderr
    assert "run split1: to score" in shown.stdout
    assert "evaluate (dry run): 2/2 videos" in shown.stderr
    assert (document["run"], document["evaluations"], document["estimate"]["videos"]) == ("split1", [], 2)
    assert sorted(trained_on_videos.workspace.root.rglob("*")) == before


def test_a_dry_run_ends_as_the_test_where_videos_are_missing_or_unreadable(stres, trained_on_videos, tmp_path):
    work = Workspace(tmp_path / "work")
    shutil.copytree(trained_on_videos.workspace.root, work.root)
    arguments = ["evaluate", "--crops", 5, "--device", "cpu", "-w", work.root]
    for lack, told in (
        (lambda file: file.write_bytes(file.read_bytes()[:-300]), "0 test videos are missing, 1 "),
        (lambda file: file.unlink(), "1 test video is missing, 0 "),
    ):
        lack(work.flow_file("wave", "wave2"))
        dry, real = stres(*arguments, "--dry-run"), stres(*arguments)
        assert (dry.exit_code, real.exit_code) == (1, 1)
        assert f"{told}cannot be read" in dry.stdout
        assert f"{told}could not be read: the results are those of the others" in real.stdout


@pytest.mark.parametrize(
    "command", ["train --size tall", "train --steps jump", "evaluate --views 7", "evaluate --run a"]
)
def test_a_dry_run_refuses_what_the_command_refuses(stres, trained_on_videos, command):
    arguments = [*command.split(), "-w", trained_on_videos.workspace.root]

    dry, real = stres(*arguments, "--dry-run"), stres(*arguments)

    assert dry.exit_code == real.exit_code in (2, 3)
    assert dry.stderr == real.stderr


@pytest.mark.parametrize(
    ("gigabytes", "text"),
    [(12.34, "12 GB"), (1.26, "1.3 GB"), (0.3401, "340 MB"), (0.0052, "5.2 MB"), (5.1e-5, "51 kB"), (1e-7, "0.1 kB")],
)
def test_sizes_in_words(gigabytes, text):
    assert size(gigabytes) == text
