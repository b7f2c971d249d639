"""`verify` on what only shows when all of the workspace is seen: duplicates, settings, splits, runs, left-overs."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import verify
from pipelines.datasets.catalogue import load_catalogue
from pipelines.errors import MissingError
from pipelines.storage.atomic import write_json
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from tests.verification.planting import fields_of, found, opened, rewrite_flow, set_attribute, write_lists

Verify = Callable[..., verify.Result]
ONE, OTHER = ("drift", "v_drift_g00_c01"), ("drift", "v_drift_g01_c01")


def test_a_workspace_that_is_empty_or_not_there_is_missing(tmp_path: Path, verified: Verify) -> None:
    with pytest.raises(MissingError, match="there is no workspace"):
        verified(Workspace(tmp_path / "none"))
    with pytest.raises(MissingError, match="nothing to verify"):
        verified(Workspace(tmp_path))


def test_a_stage_that_has_not_run_is_one_fault(workspace: Workspace, verified: Verify) -> None:
    shutil.rmtree(workspace.flow)
    shutil.rmtree(workspace.splits)

    result = verified(workspace)

    assert found(result) == {("flow", "missing")}
    assert "run `stres extract-flow`" in result.faults[0].detail


def test_a_video_that_failed_is_missing_and_says_why(workspace: Workspace, verified: Verify) -> None:
    failure = Failure("extract-frames", "drift", "v_drift_g09_c01", "/a/video", "truncated: decoded 49 of 107")
    other = Failure("evaluate", "drift", "v_drift_g08_c01", "/a/video", "damaged")
    record_outcomes(workspace, failed=[failure, other])

    result = verified(workspace)

    assert found(result) == {("drift/v_drift_g09_c01", "missing")}
    assert "extract-frames: truncated: decoded 49 of 107" in result.faults[0].detail


# ------------------------------------------------------------------ duplicates and settings


def test_two_videos_with_the_same_flow_are_found(workspace: Workspace, verified: Verify) -> None:
    rewrite_flow(workspace.flow_file(*OTHER), fields_of(workspace.flow_file(*ONE)))

    kinds = found(verified(workspace))

    assert {(f"{ONE[0]}/{ONE[1]}", "duplicated flow"), (f"{OTHER[0]}/{OTHER[1]}", "duplicated flow")} <= kinds
    assert {kind for _, kind in kinds} <= {"duplicated flow", "foreign flow"}


def test_of_a_file_under_two_names_the_wrong_name_is_at_fault(workspace: Workspace, verified: Verify) -> None:
    for kind in ("frames", "flow"):
        shutil.copy(workspace.artifact_file(kind, *ONE), workspace.artifact_file(kind, *OTHER))

    result = verified(workspace)

    assert found(result) == {("/".join(OTHER), "duplicated flow"), ("/".join(OTHER), "duplicated video")}
    assert {fault.remake for fault in result.faults} == {("frames",), ("flow",)}


def test_a_data_set_with_a_video_twice_is_told_of_not_made_again(workspace: Workspace, verified: Verify) -> None:
    for kind in ("frames", "flow"):
        source = Path(peek(workspace.artifact_file(kind, *ONE), f"stres/{kind}/1")["source"])
        shutil.copy(workspace.artifact_file(kind, *ONE), workspace.artifact_file(kind, *OTHER))
        set_attribute(workspace.artifact_file(kind, *OTHER), source=str(source.with_name(f"{OTHER[1]}.gone.mkv")))
        set_attribute(workspace.artifact_file(kind, *OTHER), source=f"/gone/{OTHER[1]}.mkv")

    result = verified(workspace)

    assert found(result) == {("/".join(OTHER), "duplicated video")}
    assert result.faults[0].remake == ()


def test_still_videos_share_their_flow_without_fault(workspace: Workspace, verified: Verify) -> None:
    for name in (ONE, OTHER):
        rewrite_flow(workspace.flow_file(*name), np.full_like(fields_of(workspace.flow_file(*name)), 128))

    assert {kind for _, kind in found(verified(workspace))} == {"constant flow"}  # their frames move


@pytest.mark.parametrize(
    "changed", [{"method": "dis"}, {"bound": 5.5}, {"method_parameters": json.dumps({"winsize": 15})}], ids=str
)
def test_flow_with_other_settings_than_the_rest_is_found(
    workspace: Workspace, verified: Verify, changed: dict[str, object]
) -> None:
    set_attribute(workspace.flow_file(*ONE), **changed)

    result = verified(workspace)

    wrong = {("/".join(ONE), "wrong flow")} if "bound" in changed else set()  # its bytes are of the bound it had
    assert found(result) == {("/".join(ONE), "settings"), *wrong}
    assert result.faults[0].detail.startswith(f"its flow has {next(iter(changed))} ")


def test_dataset_json_may_be_old_but_not_wrong(workspace: Workspace, verified: Verify) -> None:
    load_catalogue(workspace)
    path = workspace.flow_file(*ONE)
    rewrite_flow(path, fields_of(path))
    assert found(verified(workspace)) == set()

    load_catalogue(workspace)
    text = workspace.dataset_file.read_text(encoding="utf-8")
    workspace.dataset_file.write_text(text.replace('"frames": 14', '"frames": 15', 1), encoding="utf-8")
    assert found(verified(workspace)) == {("dataset.json", "dataset file")}

    verified(workspace, fix=True)
    assert found(verified(workspace)) == set()


# ------------------------------------------------------------------ splits


def ids(workspace: Workspace) -> list[str]:
    return sorted(f"{path.parent.name}/{path.stem}" for path in workspace.frames.glob("*/*.h5"))


def test_a_split_that_names_absent_videos_is_found(workspace: Workspace, verified: Verify) -> None:
    every = ids(workspace)
    write_lists(workspace, every[:6], [*every[6:], "rise/v_rise_g07_c01"])
    row = Failure("extract-flow", "rise", "v_rise_g07_c01", "/a/video", "no frame decodes")
    record_outcomes(workspace, failed=[row])

    result = verified(workspace)

    assert ("split1", "split names absent videos") in found(result)
    (fault,) = (fault for fault in result.faults if fault.subject == "split1")
    assert "of which 1 has no frames or no flow: rise/v_rise_g07_c01 (extract-flow: no frame decodes)" in fault.detail


def test_a_group_on_both_sides_of_a_split_is_found(workspace: Workspace, verified: Verify) -> None:
    every = ids(workspace)
    write_lists(workspace, every[:6], every[6:])
    assert found(verified(workspace)) == set()

    write_lists(workspace, every[:6], every[6:], group_regex="_g(..)_")
    result = verified(workspace)
    assert found(result) == {("split1", "group on both sides")}
    assert result.faults[0].detail == "has videos of 3 groups in both train and test: 00, 01, 02"


def test_videos_in_no_split_are_told_and_no_fault(workspace: Workspace, verified: Verify) -> None:
    every = ids(workspace)
    write_lists(workspace, every[:6], every[6:-2])
    result = verified(workspace)
    assert (result.in_no_split, found(result)) == (every[-2:], set())


def test_a_group_of_ucf101_on_both_sides_is_found(workspace: Workspace, verified: Verify) -> None:
    every = [*ids(workspace), "rise/v_rise_g02_c02"]
    for kind in ("frames", "flow"):
        (workspace.root / kind / "rise" / "v_rise_g02_c02.h5").write_bytes(b"")
    write_lists(workspace, every[:9], every[9:])

    assert ("split1", "group on both sides") in found(verified(workspace))


def test_lists_that_cannot_be_read_are_found(workspace: Workspace, verified: Verify) -> None:
    (workspace.splits / "trainlist01.txt").write_text("no line\n")

    result = verified(workspace)

    assert found(result) == {("splits", "splits")}
    assert "trainlist01.txt" in result.faults[0].detail


# ------------------------------------------------------------------ left-overs


def test_temporary_files_are_found_once_their_process_is_gone(workspace: Workspace, verified: Verify) -> None:
    folder = workspace.flow / "drift"
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True, timeout=300
    )
    host = socket.gethostname().replace("-", "_")
    gone = folder / f".a.h5.tmp-{host}-{int(dead.stdout)}-00000000"
    living = folder / f".a.h5.tmp-{host}-{os.getpid()}-00000000"
    for path in (gone, living):
        path.touch()

    result = verified(workspace)
    assert [(fault.kind, fault.path) for fault in result.faults] == [("temporary files", str(gone))]
    assert gone.exists()

    verified(workspace, fix=True)
    assert (gone.exists(), living.exists()) == (False, True)
    assert found(verified(workspace)) == set()


# ------------------------------------------------------------------ runs and scores


PROTOCOL = {"frames": 25, "views": "full", "mirror": False, "temporal": "sequence"}


@pytest.fixture
def run_folder(workspace: Workspace) -> Path:
    """A run with one finished step and one begun, and its scores."""
    import torch

    from pipelines.evaluation.metrics import results_document
    from pipelines.evaluation.scores import Scores, write_scores
    from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA, save
    from pipelines.training.runs import Run

    run = Run(workspace.runs / "split1")
    write_json(run.config_file, {"schema": "stres/run/1"})
    write_json(run.split_file, {"number": 1})
    save(run.weights_file("appearance"), WEIGHTS_SCHEMA, {"model": {"weight": torch.zeros(1000)}})
    save(run.checkpoint_file("motion"), CHECKPOINT_SCHEMA, {"model": {"weight": torch.zeros(1000)}})
    logits = np.eye(3, dtype=np.float32)
    scores = Scores(["a/1", "b/2", "c/3"], np.arange(3), ["a", "b", "c"], appearance=logits)
    folder = workspace.scores / "split1" / "appearance-25frames"
    about = {"step": "appearance", "weights_sha256": run.weights_sha256("appearance")}
    write_scores(folder / "scores.h5", scores, about)
    write_json(folder / "results.json", results_document(PROTOCOL, 1, "split1", scores))
    return run.folder


def test_sound_runs_and_scores_are_no_fault(workspace: Workspace, verified: Verify, run_folder: Path) -> None:
    assert found(verified(workspace)) == set()


@pytest.mark.parametrize("name", ["appearance/weights.pt", "motion/checkpoint.pt"])
def test_a_flipped_bit_in_a_checkpoint_is_found(
    workspace: Workspace, verified: Verify, run_folder: Path, name: str
) -> None:
    path = run_folder / name
    content = bytearray(path.read_bytes())
    content[content.index(bytes(1000)) + 500] ^= 1  # among the tensor's zeros: torch loads it
    path.write_bytes(content)

    kinds = found(verified(workspace))

    assert ("runs/split1", "run") in kinds
    assert kinds <= {("runs/split1", "run"), ("scores/split1/appearance-25frames", "scores")}


@pytest.mark.parametrize(("name", "text"), [("config.json", "{"), ("split.json", "[]"), ("motion/checkpoint.pt", "")])
def test_an_unreadable_run_is_found(
    workspace: Workspace, verified: Verify, run_folder: Path, name: str, text: str
) -> None:
    (run_folder / name).write_text(text)

    result = verified(workspace)

    assert found(result) == {("runs/split1", "run")}
    assert result.faults[0].path == str(run_folder / name)


def test_scores_of_other_weights_are_found(workspace: Workspace, verified: Verify, run_folder: Path) -> None:
    import torch

    from pipelines.training.checkpoints import WEIGHTS_SCHEMA, save

    save(run_folder / "appearance" / "weights.pt", WEIGHTS_SCHEMA, {"model": {"weight": torch.ones(1000)}})

    result = verified(workspace)

    assert found(result) == {("scores/split1/appearance-25frames", "scores")}
    assert "other weights" in result.faults[0].detail


def test_damaged_scores_are_found(workspace: Workspace, verified: Verify, run_folder: Path) -> None:
    (path,) = workspace.scores.glob("*/*/scores.h5")
    with opened(path) as file:
        file["appearance"][0, 0] += 1

    assert found(verified(workspace)) == {("scores/split1/appearance-25frames", "scores")}
