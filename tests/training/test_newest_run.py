"""Which run, and which of its networks and evaluations, is meant where none is named; and how one is named."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import evaluate, train
from pipelines.errors import MissingError
from pipelines.evaluation.headline import headline
from pipelines.evaluation.protocols import Protocol
from pipelines.reporting.evaluations import find_evaluations
from pipelines.storage.atomic import write_json
from pipelines.storage.workspace import Workspace
from pipelines.training.fine_tuning import find_source
from pipelines.training.runs import Run, choose_run, find_run, trained_with_mirrors
from tests.helpers.tiny_training import config
from tests.helpers.workspaces import write_workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workspace:
    """The run `done` with its three steps."""
    workspace = write_workspace(tmp_path_factory.mktemp("newest"))
    train.run(config(workspace, name="done", steps=("appearance", "motion", "joint1")))
    return workspace


@pytest.fixture
def workspace(trained, tmp_path) -> Workspace:
    """`done`, and the newer `half`, whose joint1 is still to be trained."""
    shutil.copytree(trained.root, tmp_path / "work")
    workspace = Workspace(tmp_path / "work")
    shutil.copytree(workspace.runs / "done", workspace.runs / "half")
    (workspace.runs / "half/joint1/weights.pt").unlink()
    for age, name in enumerate(("half", "done")):
        os.utime(workspace.runs / name / "config.json", (2e9 - age, 2e9 - age))
    return workspace


def test_without_a_name_the_newest_finished_run_is_used_and_a_newer_unfinished_one_is_told(workspace):
    chosen = choose_run(workspace, None, None)
    assert (chosen.run.name, chosen.step) == ("done", "joint1")
    assert chosen.warning.startswith(
        "warning: run half, the newest, is unfinished (joint1 still to be trained): done, "
    )
    shutil.rmtree(workspace.runs / "half")
    assert choose_run(workspace, None, None).warning == ""


def test_where_no_run_is_finished_the_step_used_is_told(workspace):
    shutil.rmtree(workspace.runs / "done")
    chosen = choose_run(workspace, None, None)
    assert (chosen.run.name, chosen.step) == ("half", "late")
    assert chosen.warning == (
        "warning: no run is finished: step late of run half is used, of which joint1 is still to be trained"
    )


def test_a_run_that_has_trained_nothing_yet_is_never_the_newest(workspace):
    shutil.rmtree(workspace.runs / "done")
    shutil.copytree(workspace.runs / "half", workspace.runs / "empty")
    for step in ("appearance", "motion", "joint1"):
        shutil.rmtree(workspace.runs / "empty" / step)
    os.utime(workspace.runs / "empty/config.json", (3e9, 3e9))
    assert choose_run(workspace, None, None).run.name == "half"


def test_an_unfinished_run_that_is_named_is_used_with_a_warning_that_says_which_step(workspace):
    chosen = choose_run(workspace, "half", None)
    assert (chosen.run.name, chosen.step) == ("half", "late")
    assert chosen.warning == "warning: run half is unfinished (joint1 still to be trained): its step late is used"
    assert choose_run(workspace, "done", "motion").warning == ""


def test_every_option_names_a_run_by_its_name_first_then_by_its_folder(workspace, tmp_path, monkeypatch):
    shutil.copytree(workspace.runs / "half", tmp_path / "done")  # a folder of that name where the command is started
    shutil.copytree(workspace.runs / "half", tmp_path / "away")
    monkeypatch.chdir(tmp_path)
    for name, folder in (("done", workspace.runs / "done"), ("./done", tmp_path / "done"), ("away", tmp_path / "away")):
        assert find_run(workspace, name).folder == folder
        source = find_source(f"run:{name}", workspace)
        assert source is not None
        assert source.run.folder == folder
    with pytest.raises(MissingError, match=r"no run 'gone' in .*, and no folder of a run at .*: there are done, half"):
        find_run(workspace, "gone")


# ------------------------------------------------------------------ evaluations


def test_the_headline_is_what_evaluate_does_where_it_is_told_nothing():
    for mirrored in (True, False):
        told_nothing = evaluate.Config(Path("x")).protocol("joint1", mirrored=mirrored)
        assert Protocol.of_paper("joint1", mirrored=mirrored) == told_nothing


def test_late_fusion_saw_mirrors_where_both_streams_did(trained):
    begun = Run(trained.runs / "done").config()
    assert trained_with_mirrors(begun, "late")
    motion = begun.steps["motion"]
    for changes in ({"mirror": False}, {"augmentation": "center"}):  # which is never mirrored
        changed = {"motion": replace(motion, step=replace(motion.step, **changes))}
        without = replace(begun, steps={**begun.steps, **changed})
        assert [trained_with_mirrors(without, step) for step in ("appearance", "motion", "late")] == [
            True,
            False,
            False,
        ]


def test_the_headline_of_a_run_without_mirrors_is_without_them(trained, tmp_path):
    workspace = Workspace(tmp_path)
    run = Run(workspace.runs / "split1")
    begun = Run(trained.runs / "done").config()
    joint1 = replace(begun.steps["joint1"], step=replace(begun.steps["joint1"].step, mirror=False))
    write_json(run.config_file, replace(begun, steps={**begun.steps, "joint1": joint1}).to_json())
    folders = [
        workspace.scores / "split1" / f"joint1-25frames-full-{mirror}-sequence" for mirror in ("mirror", "plain")
    ]
    assert headline(workspace, folders, [].append) == folders[1]
    write_json(run.config_file, begun.to_json())
    assert headline(workspace, folders, [].append) == folders[0]


def scored(workspace: Workspace, run: str, **settings: object) -> None:
    evaluate.run(evaluate.Config(workspace.root, run=run, device="cpu", **settings))  # type: ignore[arg-type]


def reported(workspace: Workspace, run: str | None = None) -> tuple[str, str, list[str]]:
    told: list[str] = []
    (found,) = find_evaluations(workspace, run, None, (), told.append)
    return found.run, found.protocol_name, told


def test_a_report_is_of_the_newest_finished_run_by_the_papers_protocol_on_its_last_step(workspace):
    scored(workspace, "done", step="joint1")
    scored(workspace, "done", step="joint1", crops=2)
    scored(workspace, "done", step="motion")
    scored(workspace, "half")
    run, protocol, told = reported(workspace)
    assert (run, protocol) == ("done", "joint1-25frames-full-mirror-sequence")
    assert told == [told[0]]
    assert told[0].startswith(
        "warning: run half, the newest evaluated, is unfinished (joint1 still to be trained): done,"
    )
    run, protocol, told = reported(workspace, "half")
    assert (run, protocol) == ("half", "late-25frames-full-mirror-sequence")
    assert told == ["warning: run half is unfinished (joint1 still to be trained): its scores are of earlier steps"]


def test_a_report_of_another_evaluation_than_the_headline_says_so(workspace):
    scored(workspace, "done", step="motion", crops=2)
    scored(workspace, "done", step="joint1", crops=2)
    _, protocol, told = reported(workspace, "done")
    assert protocol == "joint1-2frames-full-mirror-sequence"
    assert told[0].startswith("warning: run done has no evaluation of its last step, joint1, by the paper's protocol")
    told.clear()
    shutil.copytree(workspace.scores / "done" / protocol, workspace.scores / "half" / protocol)
    headline(workspace, [workspace.scores / "done" / protocol, workspace.scores / "half" / protocol], told.append)
    assert told == []  # there is nothing else to name that both have
