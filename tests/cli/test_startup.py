"""Help answers at once: nothing heavy is loaded, and only the command that is asked for."""

import importlib
import inspect
import subprocess
import sys

import pytest

from stres_cli.app import COMMANDS

HEAVY = {"torch", "torchvision", "cv2", "h5py", "hdf5plugin", "numba", "av", "numpy", "sklearn", "matplotlib", "scipy"}
PROGRAM = """
import contextlib, io, sys
from stres_cli.app import app
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    app(sys.argv[1:], prog_name="stres", standalone_mode=False)
print(len(shown.getvalue()), *sys.modules)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_loads_no_heavy_library(arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=60
    )

    length, *loaded = done.stdout.split()
    assert int(length) > 5
    assert not HEAVY & set(loaded)
    asked = {f"stres_cli.commands.{name.replace('-', '_')}" for name in arguments if name in COMMANDS}
    assert {name for name in loaded if name.startswith("stres_cli.commands.")} == asked


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_itself(name):
    module = importlib.import_module(f"stres_cli.commands.{name.replace('-', '_')}")
    text = inspect.getdoc(getattr(module, name.replace("-", "_")))

    assert text.split("\n\n")[0].replace("\n", " ") == COMMANDS[name]


def test_help_lists_the_commands_in_the_order_of_use(stres):
    shown = stres("--help")

    assert shown.exit_code == 0
    assert [line.split()[1] for line in shown.stdout.splitlines() if line[2:].startswith(tuple(COMMANDS))] == [
        *COMMANDS
    ]


def test_a_mistyped_command_is_answered_with_the_nearest(stres):
    shown = stres("extract-flows")

    assert shown.exit_code == 2
    assert "No such command 'extract-flows'. Did you mean 'extract-flow'" in shown.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_keeps_to_the_width(stres, name, columns):
    shown = stres(name, "--help", COLUMNS=str(columns))

    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) == columns
    assert "\x1b" not in shown.stdout
