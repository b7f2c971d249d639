"""What runs on a GPU gives what the CPU gives: the checks of `benchmarks/gpu.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def checks(device: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), "--device", device, "--quick", "--checks-only"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.cuda
def test_every_gpu_path_equals_the_cpu():
    found = checks("cuda")
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_gpu_checks_themselves_run_on_the_cpu():
    found = checks("cpu")
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("| equal |") >= 3
