"""The options of `stres report`, as they reach the stage."""

from pathlib import Path

import pytest

from pipelines import report
from pipelines.errors import MissingError


@pytest.fixture
def asked(monkeypatch):
    """The configurations that `report` was called with; it then finds nothing to report."""
    seen = []

    def run(config, on_progress):
        seen.append(config)
        raise MissingError("nothing here")

    monkeypatch.setattr(report, "run", run)
    return seen


@pytest.mark.parametrize(
    "arguments",
    [
        "--splits 1 2 3",
        "--splits 1,2,3",
        "--splits 1 --splits 2 --splits 3",
        "--splits 1,2 3",
        "--splits 1 2 3 --protocol a",
        "--protocol a --splits 1 2 3",
    ],
)
def test_splits_are_given_as_one_likes(stres, asked, arguments):
    stres("report", *arguments.split())
    assert [config.splits for config in asked] == [(1, 2, 3)]


def test_a_loose_argument_is_refused_with_what_it_may_have_meant(stres, asked):
    shown = stres("report", "split1")
    assert (shown.exit_code, asked) == (2, [])
    assert shown.stderr == (
        "error: 'split1' does not belong to an option: name a run with --run, splits with --splits 1 2 3\n"
    )


def test_the_usage_line_shows_no_argument(stres):
    usage = stres("report", "--help").stdout.split("\n")[1]
    assert usage.split() == ["Usage:", "stres", "report", "[OPTIONS]"]


def test_what_stands_beside_a_run_reaches_the_stage(stres, asked):
    stres("report", "--run", "mine", "--compare", "other/late", *["--with", "idt.npz", "--with-weight", "0.3"])
    stres("report", *["--with", "idt.npz", "--with-space", "softmax", "--thumbnails", "0"])
    assert (asked[0].run, asked[0].compare, asked[0].with_file) == ("mine", "other/late", Path("idt.npz"))
    assert (asked[0].with_weight, asked[0].with_space, asked[0].thumbnails) == (0.3, "auto", 400)
    assert (asked[1].with_space, asked[1].thumbnails) == ("softmax", 0)
