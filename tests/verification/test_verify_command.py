"""`stres verify` as its user sees it: worker processes, exit codes, lines, table, JSON."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines import verify
from pipelines.storage.workspace import Workspace
from pipelines.verification.faults import FIXES, Fault
from stres_cli import verify_view
from stres_cli.app import app
from stres_cli.console import PlainConsole
from tests.verification.planting import fields_of, rewrite_flow


def stres(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="stres")


def test_faults_are_told_line_by_line_and_the_exit_code_is_1(workspace: Workspace) -> None:
    path = workspace.flow_file("fall", "v_fall_g01_c01")
    rewrite_flow(path, 255 - fields_of(path))
    workspace.flow_file("drift", "v_drift_g01_c01").write_bytes(b"")

    shown = stres("verify", "-w", workspace.root, "--workers", 2, "--json")

    assert shown.exit_code == 1
    document = json.loads(shown.stdout)
    assert document["counts"] == {"damaged": 1, "turned flow": 1}
    assert [fault["subject"] for fault in document["faults"]] == ["drift/v_drift_g01_c01", "fall/v_fall_g01_c01"]
    assert "9 videos, 18 files" in shown.stderr
    assert "damaged: 1; `stres verify --fix`" in shown.stderr
    assert f"next: stres verify --fix --workspace {workspace.root}\n" in shown.stderr
    assert "  fall/v_fall_g01_c01: it fits its frames with x and y negated: " in shown.stderr
    assert "\x1b" not in shown.stderr


def test_no_faults_and_the_exit_code_is_0(healthy: Workspace) -> None:
    shown = stres("verify", "-w", healthy.root, "--quick", "--workers", 1)

    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-1] == f"no faults; next: stres train --split 1 --workspace {healthy.root}"


@pytest.mark.parametrize(("arguments", "code"), [(["--quick", "--full"], 2), ([], 3), (["--workers", "-1"], 2)])
def test_wrong_usage_and_a_workspace_that_is_not_there(tmp_path: Path, arguments: list[str], code: int) -> None:
    assert stres("verify", "-w", tmp_path / "none", *arguments).exit_code == code


def test_a_check_that_does_not_end_is_a_fault_of_its_video(workspace: Workspace, monkeypatch: Any) -> None:
    from pipelines.runtime import worker_pool

    def dying(function: Any, tasks: Any, workers: int, **options: Any) -> Any:
        yield from ((task, worker_pool.WorkerDied("the worker process died (killed by signal 11)")) for task in tasks)

    monkeypatch.setattr(worker_pool, "run_tasks", dying)
    shutil.rmtree(workspace.splits)

    result = verify.run(verify.Config(workspace.root))

    assert result.counts == {"damaged": 9}
    assert "cannot be checked: the worker process died" in result.faults[0].detail


def test_a_terminal_gets_a_table_with_what_to_do_and_only_some_of_the_faults() -> None:
    faults = [Fault("missing", f"a/{number}", f"/w/{number}", "has no flow", ("flow",)) for number in range(7)]
    faults.append(Fault("turned flow", "a/\x1b[31m\u202e", "/w", "it fits its frames with x negated", ("flow",)))
    counts = {"missing": 7, "turned flow": 1}
    result = verify.Result(10, 20, 0.1, 2.0, faults, counts, 3, 4, [], [])  # type: ignore[arg-type]
    console = PlainConsole(force_terminal=True, width=100, color_system=None, record=True)

    verify_view.show(result, console, "stres verify --fix")

    text = console.export_text()
    assert "10 videos, 20 files, 100.0 MB in 2 s (5.0 videos/s)" in text
    assert "8 faults" in text
    (row,) = (line for line in text.splitlines() if "│ missing" in line)
    assert " 7 " in row
    assert FIXES["missing"] in row
    assert "a/4: has no flow" in text
    assert "a/5" not in text
    assert "and 2 more: --json lists all" in text
    assert text.endswith("\nnext: stres verify --fix\n")
    assert "\x1b" not in text
    assert "\u202e" not in text
