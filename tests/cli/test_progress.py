"""Progress: plain lines in a log; on a terminal one bar that fits, and one line for each finished phase."""

import io
import re
from dataclasses import replace

import pytest

from pipelines.errors import MissingError
from pipelines.runtime.progress import Progress, note
from stres_cli import progress_view as module
from stres_cli.console import PlainConsole
from stres_cli.progress_view import progress_view

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def updates(done, total=100, phase="train joint1", **metrics):
    return Progress(phase, done, total, "updates", metrics)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def log(clock):
    """A view that is no terminal, the lines it has printed, and its clock."""
    stream = io.StringIO()
    view = progress_view(PlainConsole(file=stream))
    return view, lambda: stream.getvalue().splitlines(), clock


def test_a_log_gets_the_first_and_the_last_line_of_a_phase_and_one_every_few_seconds(log):
    view, lines, clock = log

    for done in range(101):
        clock.now = 1000 + 0.1 * done
        view.show(updates(done, loss=1.25))
    view.close()

    assert lines() == [
        "train joint1: 0/100 updates, loss 1.25",
        "train joint1: 50/100 updates, 10 updates/s, 5 s left, loss 1.25",
        "train joint1: 100/100 updates, loss 1.25",
    ]


def test_a_log_keeps_where_a_phase_was_when_it_ended_early(log):
    view, lines, _ = log

    view.show(updates(0))
    view.show(updates(7))
    view.close()

    assert lines()[-1].startswith("train joint1: 7/100 updates")


def test_a_phase_may_come_again(log):
    view, lines, clock = log

    for _ in range(2):
        view.show(updates(0, 2, "evaluate"))
        clock.now += 1
        view.show(updates(1, 2, "evaluate"))
        view.show(updates(2, 2, "evaluate"))

    assert lines() == ["evaluate: 0/2 updates", "evaluate: 2/2 updates"] * 2


def test_a_long_wait_is_told_in_hours(log):
    view, lines, clock = log

    view.show(updates(0, 1000))
    clock.now += 100
    view.show(updates(10, 1000))

    assert lines()[-1] == "train joint1: 10/1000 updates, 0.1 updates/s, 2 h 45 min left"


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_one_bar_and_a_line_for_each_finished_phase(width):
    stream = io.StringIO()
    view = progress_view(PlainConsole(file=stream, force_terminal=True, width=width, _environ={}))
    metrics = {"loss": 15.583, "appearance_accuracy": 0.71234, "motion_accuracy": 0.3, "fused_accuracy": 0.5}

    for phase in ("train appearance", "train joint1"):
        for done in (0, 3171, 12345):
            view.show(updates(done, 12345, phase, **metrics))
    view.close()

    printed = [line for line in re.split(r"[\r\n]+", ANSI.sub("", stream.getvalue())) if line.strip()]
    bars = [line for line in printed if "━" in line]  # without a time that is left, which nobody knows yet
    assert bars
    assert all("12345 updates" in line and "━━━━━━" in line and len(line) <= width for line in bars)
    assert [line for line in printed if " in 0 s" in line] == [
        f"{phase}: 12345/12345 updates in 0 s, "
        "loss 15.58  appearance accuracy 0.7123  motion accuracy 0.3  fused accuracy 0.5"
        for phase in ("train appearance", "train joint1")
    ]


@pytest.mark.parametrize("width", range(30, 121, 3))
def test_no_terminal_is_too_narrow_for_the_numbers_of_a_bar(width):
    stream = io.StringIO()
    view = progress_view(PlainConsole(file=stream, force_terminal=True, width=width, _environ={}))

    view.show(updates(123456, 234567, "extract-flow (what is done)", loss=15.58, flow_accuracy=0.7123))
    view.close()

    printed = [line for line in re.split(r"[\r\n]+", ANSI.sub("", stream.getvalue())) if line.strip()]
    assert all(len(line) <= width for line in printed)
    assert "123456/234567" in " ".join(printed)
    assert "loss 15.58" in " ".join(printed)


def test_no_remaining_time_is_claimed_where_none_is_known(log):
    view, lines, clock = log

    view.show(updates(0))
    for done, now in ((1, 10), (2, 20), (4, 40)):  # of two units it could be chance
        clock.now = 1000 + now
        view.show(updates(done))
    assert [" left" in line for line in lines()] == [False, False, False, True]

    subjects = Progress("doctor", 0, 8, "subjects", even=False)  # half a minute for the last, no time for the others
    view.show(subjects)
    for done in range(1, 8):
        clock.now += 6
        view.show(replace(subjects, done=done))
    assert not any("left" in line for line in lines() if line.startswith("doctor"))


def test_a_remaining_time_counts_down_and_goes_where_a_unit_takes_much_longer_than_those_before(clock):
    phase = module._Phase(updates(0))
    clock.now += 10
    phase.report(updates(10, 20))
    assert phase.remaining() == pytest.approx(10)
    clock.now += 3
    assert phase.remaining() == pytest.approx(7)
    clock.now += 3
    assert phase.remaining() is None


def test_a_note_leaves_the_progress_alone(log, stres, monkeypatch):
    def run(config, on_progress):
        on_progress(Progress("report", 1, 2, "files"))
        on_progress(note("something to know"))
        on_progress(Progress("report", 2, 2, "files"))
        raise MissingError("enough")

    monkeypatch.setattr("pipelines.report.run", run)
    assert stres("report").stderr.splitlines()[:3] == [
        "report: 1/2 files",
        "something to know",
        "report: 2/2 files",
    ]


def test_a_phase_with_nothing_to_do_leaves_no_line_on_a_terminal():
    stream = io.StringIO()
    view = progress_view(PlainConsole(file=stream, force_terminal=True, width=80, _environ={}))

    view.show(updates(8, 8, "extract-frames"))
    view.close()

    assert " in " not in ANSI.sub("", stream.getvalue())
