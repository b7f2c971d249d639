"""Ctrl-C, SIGTERM and a terminal that closes: an orderly end, and the same command continues. A real process, stopped
at a line it prints, where worker processes must not outlive it; else this process sends itself the signal."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from pipelines import train
from pipelines.errors import Interrupted
from pipelines.runtime.progress import Progress
from pipelines.runtime.signals import stop_requests
from stres_cli import INTERRUPTED

WORDS = f"{INTERRUPTED}\n"


def stop_at(arguments, line_begins, number):
    """Starts `stres`, sends it the signal when a line of stderr begins so, and returns its exit code and stderr."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STRES_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "stres_cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    too_long = threading.Timer(120, process.kill)  # which ends the lines below
    with process:
        try:
            too_long.start()
            lines = []
            for line in process.stderr:
                lines.append(line)
                if line.startswith(line_begins):
                    break
            else:
                pytest.fail(f"no line begins with {line_begins!r}: {lines}")
            process.send_signal(number)
            _, rest = process.communicate(timeout=60)
        finally:
            too_long.cancel()
            process.kill()
    return process.returncode, "".join([*lines, rest])


@pytest.fixture
def stop_training(stres, monkeypatch):
    """`stop_training(command, phase, number)`: the exit code and stderr of a training that gets the signal at the first
    progress of that phase."""

    def call(command, phase, number):
        real, sent = train.run, []

        def run(config, on_progress):
            def report(progress):
                on_progress(progress)
                if progress.phase == phase and progress.done and not sent:
                    sent.append(number)
                    signal.raise_signal(number)

            return real(config, report)

        with monkeypatch.context() as patch:
            patch.setattr("pipelines.train.run", run)
            ended = stres(*command)
        assert sent
        return ended.exit_code, ended.stderr

    return call


def test_extract_flow_continues_after_ctrl_c(stres, clips, tmp_path):
    bad = tmp_path / "videos" / "a" / "bad.avi"
    bad.parent.mkdir(parents=True)
    bad.write_text("this is no video")
    for folder in clips.iterdir():
        (tmp_path / "videos" / folder.name).symlink_to(folder)
    command = ["extract-flow", tmp_path / "videos", "-w", tmp_path / "work", "--method", "farneback", "--workers", 1]

    code, stderr = stop_at(command, "a/bad: ", signal.SIGINT)  # the first video; 36 are still to do

    assert code == 130
    assert stderr.endswith(WORDS)
    assert "Traceback" not in stderr
    stored = list((tmp_path / "work" / "flow").rglob("*"))
    assert len([path for path in stored if path.suffix == ".h5"]) < 36
    assert not [path for path in stored if ".tmp-" in path.name]
    asked = ("status", "-w", tmp_path / "work", "--json")
    assert json.loads(stres(*asked).stdout)["steps"][1]["state"] == "begun"

    bad.unlink()
    finished = stres(*command)
    assert json.loads(stres(*asked).stdout)["steps"][1]["state"] == "done"

    assert finished.exit_code == 0, finished.stderr
    assert len(list((tmp_path / "work" / "flow").rglob("*.h5"))) == 36
    assert not (tmp_path / "work" / "failures.csv").exists()


def test_train_continues_from_its_checkpoint_after_sigterm(stres, stop_training, workspace):
    tiny = "--recipe small --width 4 --size 32 --batch-size 2 --iterations 100 --steps appearance --device cpu"
    command = ["train", *tiny.split(), "-w", workspace.root]
    folder = workspace.runs / "split1" / "appearance"

    code, stderr = stop_training(command, "train appearance", signal.SIGTERM)

    assert code == 143
    assert stderr.endswith(WORDS)
    assert "Traceback" not in stderr
    assert (folder / "checkpoint.pt").is_file()
    assert not (folder / "weights.pt").exists()

    finished = stres(*command)

    assert finished.exit_code == 0, finished.stderr
    first = next(line for line in finished.stderr.splitlines() if line.startswith("train appearance: "))
    assert int(first.split()[2].split("/")[0]) > 1  # not from the start
    assert (folder / "weights.pt").is_file()
    assert not (folder / "checkpoint.pt").exists()


def test_a_dry_run_of_training_that_is_stopped_leaves_nothing(stop_training, workspace):
    before = sorted(workspace.root.rglob("*"))
    tiny = "--recipe small --width 4 --size 32 --iterations 100 --device cpu --dry-run"

    command = ["train", *tiny.split(), "-w", workspace.root]
    code, stderr = stop_training(command, "train appearance (dry run)", signal.SIGINT)

    assert code == 130
    assert stderr.endswith("interrupted: nothing was written\n")
    assert "Traceback" not in stderr
    assert sorted(workspace.root.rglob("*")) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_document_says_that_it_was_interrupted(stres, monkeypatch, number, code):
    monkeypatch.setattr("pipelines.report.run", lambda config, on_progress: signal.raise_signal(number))

    shown = stres("report", "--json")

    assert shown.exit_code == code
    assert f'"exit_code": {code}' in shown.stdout
    assert shown.stderr == WORDS


def test_an_interrupted_test_continues_and_a_dry_run_of_it_leaves_nothing(stres, monkeypatch):
    monkeypatch.setattr("pipelines.evaluate.run", lambda config, on_progress: signal.raise_signal(signal.SIGINT))

    assert stres("evaluate").stderr == WORDS
    assert stres("evaluate", "--dry-run").stderr == "interrupted: nothing was written\n"


def test_the_second_sighup_of_a_closed_terminal_does_not_interrupt_the_orderly_end(stres, monkeypatch):
    """The system sends one, and so does the shell."""
    put_in_order = []

    def run(config, on_progress):
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGHUP)
            put_in_order.append("everything")

    monkeypatch.setattr("pipelines.report.run", run)

    assert stres("report").exit_code == 129
    assert put_in_order == ["everything"]

    with stop_requests() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert stop.signal_number == signal.SIGHUP


def test_a_signal_amid_a_destructor_prints_nothing_and_is_not_lost(monkeypatch):
    """Matplotlib's callbacks, too, can be what it interrupts."""

    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with stop_requests(at_once=True) as stop:
        Dying()
        with pytest.raises(Interrupted):
            stop.check()
    assert told == []
    assert sys.unraisablehook == told.append


@pytest.mark.parametrize("becomes", [RecursionError, None], ids=["another exception", "nothing"])
def test_a_signal_that_an_import_swallows_ends_the_command_all_the_same(stres, monkeypatch, becomes):
    """torch, interrupted amid its import, has raised a RecursionError instead."""

    def run(config, on_progress):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            if becomes is not None:
                raise becomes from None
        on_progress(Progress("report", 0, 1))
        pytest.fail("the command goes on")

    monkeypatch.setattr("pipelines.report.run", run)
    shown = stres("report")

    assert shown.exit_code == 130
    assert shown.stderr == WORDS


STARTING = """
import signal, sys, types
number = signal.Signals[sys.argv[1]]
if len(sys.argv) > 2:
    signal.signal(number, signal.SIG_IGN)
sys.modules["stres_cli.app"] = module = types.ModuleType("stres_cli.app")
module.app = lambda: signal.raise_signal(number)  # in the place of imports
from stres_cli.__main__ import main
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_before_the_command_has_begun_is_no_traceback(name, code):
    stopped = subprocess.run(
        [sys.executable, "-c", STARTING, name], capture_output=True, text=True, check=False, timeout=300
    )
    assert (stopped.returncode, stopped.stderr) == (code, WORDS)

    nohup = subprocess.run(
        [sys.executable, "-c", STARTING, name, "ignored"], capture_output=True, check=False, timeout=300
    )
    assert (nohup.returncode, nohup.stderr) == (0, b"")
