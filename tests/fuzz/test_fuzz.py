"""The quick form of `make fuzz`: the same harness with few inputs."""

import random
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stres_cli.app import app
from tests.fuzz import checks, fuzzing, mutations, workspaces

SLOW = ("report", "report --with")  # a second and more each


@pytest.fixture(scope="module")
def whole(trained_on_videos, tmp_path_factory: pytest.TempPathFactory) -> workspaces.Whole:
    place = tmp_path_factory.mktemp("fuzz") / "whole"
    return workspaces.write_whole(place, trained_on_videos.workspace, trained_on_videos.video("jump/jump2"))


@pytest.fixture(autouse=True)
def _commands_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make fuzz` starts a process for each command; here the test's own spares their starts. What is damaged is read
    in worker processes either way."""

    def stres(*arguments: str) -> "subprocess.CompletedProcess[str]":
        shown = CliRunner().invoke(app, arguments, prog_name="stres", catch_exceptions=False)
        return subprocess.CompletedProcess(arguments, shown.exit_code, shown.stdout, shown.stderr)

    monkeypatch.setattr(fuzzing, "_stres", stres)


def test_damaged_videos_end_as_a_result_or_one_clear_error(tmp_path: Path) -> None:
    tally = fuzzing.Tally()
    fuzzing.fuzz(tmp_path, 50, seed=0, tally=tally)
    assert tally.findings == []
    assert tally.inputs == 50
    assert {result for kind, result in tally.outcomes if not kind.startswith("payload")} == {"done", "VideoError"}
    payloads = {result for kind, result in tally.outcomes if kind.startswith("payload")}
    assert tally.compared >= 2  # flow of two widths at least
    assert {"named as damaged"} <= payloads <= {"as it was", "named as damaged", "named otherwise", "other pictures"}


def test_folders_laid_out_in_any_way_are_read_or_refused_in_words(tmp_path: Path) -> None:
    tally = fuzzing.Tally()
    for given in fuzzing.damaged_layouts(tmp_path, 150, seed=0):
        tally.add(given, checks.check(given, lambda units: None))
    assert tally.findings == []
    assert {result for _, result in tally.outcomes} == {"done", "UsageError", "MissingError"}


def test_damaged_pictures_of_others_end_as_a_result_or_one_clear_error(tmp_path: Path) -> None:
    tally = fuzzing.Tally()
    fuzzing.fuzz_pictures(tmp_path, 16, seed=0, tally=tally)
    assert tally.findings == []
    assert tally.inputs == 16


def test_damaged_files_end_as_a_result_or_one_clear_error(
    whole: workspaces.Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = tuple(target for target in workspaces.TARGETS if target[1] not in SLOW)
    monkeypatch.setattr(workspaces, "TARGETS", quick)
    tally = fuzzing.Tally()
    fuzzing.run(fuzzing.damaged_files(tmp_path, whole, 30, seed=0), 2, tally)
    assert tally.findings == []
    assert tally.inputs == 30


def test_what_is_not_damaged_is_done(whole: workspaces.Whole, tmp_path: Path) -> None:
    """Or the fuzzing would only ever see the first error."""
    for number, (file, kind, _, _) in enumerate(whole.targets()):
        if kind in SLOW:
            continue
        path = whole.copy(tmp_path / str(number), file, (whole.root / file).read_bytes())
        outcome = checks.check(checks.Input(kind, file, path, tmp_path / str(number)), lambda units: None)
        assert (outcome.result, outcome.finding) == ("done", ""), (file, kind)


def test_an_input_is_a_function_of_its_number() -> None:
    content = bytes(range(256)) * 20
    damaged = [mutations.damaged(content, random.Random(f"0 video {n % 40}"), [content]) for n in range(80)]
    assert damaged[:40] == damaged[40:]
    assert sum(each != content for each in damaged[:40]) > 35


def test_crashes_hangs_and_unclear_errors_are_findings(tmp_path: Path) -> None:
    tally = fuzzing.Tally()
    given = checks.Input("video", "a.avi", tmp_path / "a.avi")
    tally.add(given, checks.Outcome("done", 1.0, 1000))
    assert tally.findings == []
    tally.add(given, fuzzing.VideoError("no progress for 60 s"))
    tally.add(given, checks.Outcome("done", 1.0, fuzzing.MEMORY_LIMIT + 1))
    tally.add(given, checks.Outcome("done", 1.0, 1, "exit code 4"))
    assert len(tally.findings) == 3
