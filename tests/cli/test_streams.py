"""Standard output and error closed, closed early or full: the right exit code, and never a traceback."""

import os
import pickle
import shlex
import subprocess
import sys
import time

import pytest

from pipelines import verify
from stres_cli.__main__ import _again

STRES = ("-m", "stres_cli")


def stres(*arguments, redirected, program=STRES):
    """The exit code of the real process under a shell's redirections, and what arrived on the other stream's file."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STRES_")}
    command = shlex.join([sys.executable, *program, *map(str, arguments)])
    script = f"set -o pipefail; {command} {redirected}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, timeout=120, check=False)
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
    return done


# Looking for the faults takes 4 s of torch and worker processes; what is tested is what becomes of them.
_FOUND_BEFORE = """
import pickle, sys
from pathlib import Path
import pipelines.verify
found = Path(sys.argv.pop(1))
pipelines.verify.run = lambda config, on_progress: pickle.loads(found.read_bytes())
from stres_cli.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The pickled result of a `verify` that finds more faults than a pipe holds lines before its reader leaves."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "frames" / "a").mkdir(parents=True)
    for number in range(3):
        (folder / "frames" / "a" / f"v{number}.h5").write_bytes(b"not HDF5")
    result = verify.run(verify.Config(folder, depth="quick", workers=1))
    (folder / "found").write_bytes(pickle.dumps(result))
    return folder / "found"


@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("| true", 1),
        (">&-", 1),
        (">/dev/full", 3),
        ("--json >/dev/full", 3),
        ("--json >&-", 1),
        ("--json | true", 1),
        ("2>/dev/full", 1),
        (">&- 2>&-", 1),
    ],
)
def test_a_result_that_nobody_takes_leaves_the_exit_code_and_one_that_is_lost_is_3(found, redirected, code):
    done = stres(found, "verify", "--quick", redirected=redirected, program=("-c", _FOUND_BEFORE))

    assert done.returncode == code
    if code == 3:
        assert "its result cannot be written to standard output (No space left on device)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train"], "again"),
        (["train", "--overwrite"], "again without --overwrite: what it made is kept"),
        (["export", "a.pt2"], "again, which keeps what it made; export needs --overwrite"),
    ],
)
def test_a_lost_result_does_not_advise_to_do_the_work_anew(arguments, told):
    assert f"again{_again(['stres', *arguments])}" == told


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"]])
def test_help_that_cannot_be_written_is_an_error_and_that_is_not_wanted_is_none(arguments):
    assert stres(*arguments, redirected=">/dev/full").returncode == 3
    assert stres(*arguments, redirected=">&-").returncode == 0
    assert stres(*arguments, redirected="| true").returncode == 0


def test_an_error_keeps_its_exit_code_wherever_it_cannot_be_told(tmp_path):
    for redirected in (">/dev/full 2>/dev/full", ">&- 2>&-", "2>&1 | true"):
        assert stres("runs", "-w", tmp_path / "none", redirected=redirected).returncode == 3
        assert stres("train", "--split", "x", "--json", redirected=redirected).returncode == 2


def test_no_file_takes_the_number_of_a_closed_descriptor():
    """What a library or a process prints would be written into it."""
    script = (
        "import os, subprocess, sys; from stres_cli.__main__ import _open_what_is_closed\n"
        "os.closerange(0, 3); _open_what_is_closed()\n"
        "file = open(sys.argv[1], 'wb'); assert file.fileno() > 2\n"
        "subprocess.run(['sh', '-c', 'echo printed; echo printed >&2'], check=True)\n"
    )
    subprocess.run([sys.executable, "-c", script, os.devnull], check=True, timeout=300)


def test_a_reader_that_takes_its_time_gets_everything_of_a_non_blocking_pipe():
    """Some programs leave the pipe they share so; Python's own streams raise BlockingIOError."""
    reader = "import os, sys, time; os.set_blocking(1, False); os.execvp(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", reader, sys.executable, "-c", _MUCH]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    with process:
        time.sleep(1.0)  # until the pipe is full
        assert len(process.communicate(timeout=120)[0]) == 1_000_001
    assert process.returncode == 0


_MUCH = """
import sys, types
sys.modules["stres_cli.app"] = module = types.ModuleType("stres_cli.app")
def app():
    print("x" * 1_000_000)
    sys.exit(0)
module.app = app
from stres_cli.__main__ import main
main()
"""
