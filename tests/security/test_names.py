"""Names from strangers lead nowhere else, and are text wherever they are shown."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines import export, train
from pipelines.datasets.groups import read_groups
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import Scores
from pipelines.reporting.thumbnails import thumbnails
from pipelines.reporting.training_log import read_configurations
from pipelines.sources.videos import find_videos
from pipelines.storage.failures import Failure, csv_text, read_failures, record_outcomes, spreadsheet_text, typed_text
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.run_config import BaseRun
from pipelines.training.runs import Run, find_run
from stres_cli.console import CommandUI
from tests.helpers.old_weights import forget_configuration

HOSTILE = ("=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(A1)", "\tx", "'=x", "'plain")


def test_a_plain_name_is_that_of_one_thing_in_its_folder() -> None:
    assert all(map(is_plain_name, ("a", "a.b", "..a", "größe", "a b", "-x", "~")))
    assert not any(map(is_plain_name, ("", ".", "..", "../a", "a/b", "/a", "a\0b")))


# ------------------------------------------------------------------ leading elsewhere


@pytest.mark.parametrize("label", ["../../x", "..", "a/b", "/tmp/x", "."])
def test_a_label_of_a_list_file_names_a_folder_of_the_workspace(tmp_path: Path, label: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.avi good\nb.avi {label}\n")
    with pytest.raises(UsageError, match=r"line 2: the label .* cannot be a folder's name"):
        find_videos(tmp_path / "list.txt")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "/tmp/x"])
def test_a_runs_name_is_a_folders(tmp_path: Path, workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match="is not a plain folder name"):
        train.Config(tmp_path, name=name)
    (workspace.runs / "split1").mkdir(parents=True)
    (workspace.runs / "split1/config.json").write_text("{}")
    with pytest.raises(MissingError, match="there is no run"):
        find_run(workspace, name)


@pytest.mark.parametrize("elsewhere", ["../../other/frames/jump", "..", "/etc"])
def test_scores_of_a_video_that_lies_elsewhere_show_no_picture_of_it(
    workspace: Workspace, tmp_path: Path, elsewhere: str
) -> None:
    shutil.copytree(workspace.root, tmp_path / "other")
    videos = [f"{elsewhere}/jump0", "jump/../jump/jump0", "jump/jump0"]
    scores = Scores(videos, np.zeros(3, np.int64), ["jump", "wave"], motion=np.zeros((3, 2), np.float32))
    made = thumbnails(workspace, [scores], 10, lambda done, total: None)
    assert list(made) == [2]


def test_a_base_run_that_lies_elsewhere_is_not_read(trained_on_videos, tmp_path: Path) -> None:
    written = Run(trained_on_videos.workspace.runs / "split1").config()
    workspace = Workspace(tmp_path / "work")
    for folder, base in ((workspace.runs / "a", "../../other"), (tmp_path / "other", "b")):
        folder.mkdir(parents=True)
        config = dataclasses.replace(written, base_run=BaseRun(base, {}), others={"secret": folder.name})
        (folder / "config.json").write_text(json.dumps(config.to_json()))
    configurations = read_configurations(workspace, ["a"])
    assert list(configurations) == ["a"]
    assert configurations["a"].others == {"secret": "a"}


def test_nothing_is_written_outside_by_what_a_runs_files_say(trained_on_videos, tmp_path: Path) -> None:
    """Classes named like paths, in a run's configuration: they are text in the model card, and nothing else."""
    run = tmp_path / "runs" / "split1"
    shutil.copytree(trained_on_videos.workspace.runs / "split1", run)
    config = Run(run).config().to_json() | {
        "classes": ["../../escaped", "<img src=x onerror=alert(1)>|`[a](javascript:b)"]
    }
    (run / "config.json").write_text(json.dumps(config | {"weights": "`<script>`"}))
    forget_configuration(Run(run), "appearance")
    before = {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents}
    export.run(export.Config(tmp_path / "out/model.pt2", tmp_path, run=str(run), step="appearance"))
    after = {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents} - {tmp_path / "out"}
    assert after == before
    card = (tmp_path / "out/model.pt2.md").read_text()
    assert "| 0 | ../../escaped |" in card
    assert "<img" not in card
    assert "<script" not in card
    assert "[a]" not in card
    assert "&#60;img src=x onerror=alert(1)&#62;&#124;&#96;&#91;a&#93;(javascript:b)" in card


def test_a_strangers_expression_for_groups_is_not_run(trained_on_videos, tmp_path: Path) -> None:
    shutil.copytree(trained_on_videos.workspace.runs / "split1", tmp_path / "split1")
    run = Run(tmp_path / "split1")
    split = json.loads(run.split_file.read_text()) | {"groups": "(a+)+$"}
    run.split_file.write_text(json.dumps(split))
    assert run.split().groups is None


# ------------------------------------------------------------------ text that does something


def test_no_cell_is_a_formula_and_none_is_lost() -> None:
    for text in (*HOSTILE, "", "plain", "-0.25", "+3", "1e-5", "-1.5e-07"):
        cell = spreadsheet_text(text)
        assert typed_text(cell) == text
        assert not cell.startswith(("=", "@", "\t"))
        assert cell == text or cell == f"'{text}"
    assert [spreadsheet_text(number) for number in ("-0.25", "+3", "-1.5e-07")] == ["-0.25", "+3", "-1.5e-07"]


def test_failures_of_videos_named_like_formulas_are_text_and_come_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = [
        Failure("extract-frames", "c", name.replace("\t", " "), f"/v/{i}", "r", "t") for i, name in enumerate(HOSTILE)
    ]
    record_outcomes(workspace, failed=rows)
    assert sorted(read_failures(workspace), key=lambda row: row.path) == rows
    cells = [cell for row in csv.reader(io.StringIO(workspace.failures_file.read_text())) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "-"))]
    record_outcomes(workspace, succeeded=[row.key for row in rows])
    assert read_failures(workspace) == []


def test_names_like_formulas_come_back_from_tables_that_are_given_to_a_command_again(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    table, groups = tmp_path / "a.segments.csv", tmp_path / "near_duplicate_groups.csv"
    table.write_text(csv_text(["path", "start", "end", "label"], [[str(tmp_path / "a.mp4"), "0.5", "2", "-run"]]))
    assert [source.class_name for source in find_videos(table).videos] == ["-run"]
    named = {"-run/a": "=1", "-jump/a": "-jump/a"}
    groups.write_text(csv_text(["video", "group"], named.items()))
    assert read_groups(groups, named) == named


def test_a_failures_file_that_is_no_csv_says_what_to_do(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.failures_file.write_text('stage,class\n"' + "x" * 200_000)
    with pytest.raises(MissingError, match="delete it"):
        read_failures(workspace)
    workspace.failures_file.write_bytes(b"stage,class,video,path,reason,time\ns,c,\xa6,p,r,t\n")
    assert [row.video for row in read_failures(workspace)] == ["\\xa6"]


def test_a_terminal_is_sent_no_commands_and_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    ui = CommandUI(as_json=False)
    hostile = "[red]a[/red] \x1b]0;title\x07\x1b[2J :smile: \x9b31m b"
    ui.out.print(f"class {hostile}\nnext line", soft_wrap=True)
    ui.fail(hostile, 3)
    out, err = capsys.readouterr()
    assert out == "class [red]a[/red] \ufffd]0;title\ufffd\ufffd[2J :smile: \ufffd31m b\nnext line\n"
    assert "\x1b" not in err
    assert "[red]a[/red]" in err
