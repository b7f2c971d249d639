"""Which build of torch `make demo` installs: nothing is downloaded, since a recorder stands for Python and pip."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDER = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/stres" ;;
"-m pip") echo "$*" ;;
-c*) exec {python} "$@" ;;
*) echo "${{0##*/}} $*" ;;
esac
"""


@pytest.fixture
def index(tmp_path):
    """The address of a package index that has torch."""
    (tmp_path / "index/torch").mkdir(parents=True)
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    serve = functools.partial(quiet, directory=tmp_path / "index")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("gpu", "reachable", "cpu_build"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_without_a_gpu_torch_is_the_cpu_build_where_its_index_answers(tmp_path, index, gpu, reachable, cpu_build):
    tools = tmp_path / "tools"
    tools.mkdir()
    scripts = {"recorder": RECORDER.format(python=sys.executable), "nvidia-smi": f"#!/bin/sh\nexit {0 if gpu else 9}\n"}
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    address = index if reachable else "http://127.0.0.1:1"
    given = (f"PYTHON={tools}/recorder", f"VENV={tmp_path}/venv", f"TORCH_INDEX={address}")
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), "demo", *given],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    installed = [line for line in done.stdout.splitlines() if line.startswith("-m pip install")]
    assert (f"-m pip install --quiet --index-url {address} torch torchvision" in installed) == cpu_build
    assert installed[-1] == "-m pip install --quiet --editable .[dev]"
    assert ("torch's CPU build comes from" if cpu_build else "torch comes from PyPI, with CUDA") in done.stdout
    assert done.stdout.splitlines()[-1] == "stres demo"
