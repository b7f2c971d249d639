"""Help answers at once: nothing heavy is loaded, and only the command that is asked for."""

import importlib
import inspect
import json
import os
import subprocess
import sys

import pytest

from stres_cli.app import COMMANDS

HEAVY = {"torch", "torchvision", "cv2", "h5py", "hdf5plugin", "numba", "av", "numpy", "sklearn", "matplotlib", "scipy"}
ASKED = [[], ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
REFUSED = [
    *([name, "-w", folder] for name in ("train", "report") for folder in (".", "nowhere")),
    *(
        [*words.split(), "-w", "."]
        for words in ("evaluate", "export", "extract-flow", "predict x.mp4", "show-flow x", "verify")
    ),
]
PROGRAM = """
import contextlib, io, json, os, sys
from stres_cli.app import app
for arguments in json.loads(sys.argv[1]):  # each in a process of its own, which has loaded nothing but this
    if not os.fork():
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            app(arguments, prog_name="stres", standalone_mode=False)
        print(json.dumps([arguments, len(shown.getvalue()), list(sys.modules)]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, arguments
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """For all that is asked, the length of the answer and the modules that were loaded for it."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([*ASKED, *REFUSED])]
    empty = tmp_path_factory.mktemp("empty")
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=True, timeout=300)
    return {tuple(asked): (length, loaded) for asked, length, loaded in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("arguments", ASKED, ids=" ".join)
def test_help_loads_no_heavy_library(answers, arguments):
    length, loaded = answers[tuple(arguments)]

    assert length > 5
    assert not HEAVY & set(loaded)
    asked = {f"stres_cli.commands.{name.replace('-', '_')}" for name in arguments or ["status"] if name in COMMANDS}
    assert {name for name in loaded if name.startswith("stres_cli.commands.")} == asked


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_an_empty_workspace_is_refused_before_torch_is_loaded(answers, arguments):
    length, loaded = answers[tuple(arguments)]

    assert length == 0  # the refusal is on stderr
    assert not {"torch", "matplotlib"} & set(loaded)


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


def test_a_shell_is_told_the_commands_options_and_values_that_may_follow():
    def completed(line):
        words = line.split(" ")
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_STRES_COMPLETE": "complete_bash"}
        command = [sys.executable, "-c", "from stres_cli.app import app; app(prog_name='stres')"]
        done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.split()

    assert completed("stres extract-f") == ["extract-frames", "extract-flow", "extract-features"]
    assert completed("stres extract-flow --method tvl") == ["tvl1", "tvl1-opencv"]
    assert "--batch-size" in completed("stres train --ba")


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
