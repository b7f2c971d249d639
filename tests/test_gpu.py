"""What runs on a GPU gives what the CPU gives: the checks of `benchmarks/gpu.py`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def checks(device: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), "--device", device, "--quick", *(options or ["--checks-only"])]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.cuda
def test_every_gpu_path_equals_the_cpu():
    found = checks("cuda")
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_gpu_checks_themselves_run_on_the_cpu():
    found = checks("cpu")
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("| equal |") >= 3


def test_the_timings_of_tvl1_run_on_the_cpu_and_are_json_lines_too(tmp_path):
    """So that no slip in them wastes a GPU's minutes."""
    file = tmp_path / "rows.jsonl"
    found = checks("cpu", "--only", "tvl1", "--json", str(file))
    assert found.returncode == 0, found.stdout + found.stderr
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["what"] for row in rows[:3]] == ["copying", "matrix product", "launching a kernel"]
    assert sum(row["result"] == "equal" for row in rows) == 6
    assert len([row for row in rows if row.get("pairs_per_second", 0) > 0]) == 4
    assert len([row for row in rows if row.get("pixel_iterations_per_second", 0) > 0]) == 2


def test_when_the_budget_is_used_up_no_further_part_begins(tmp_path):
    found = checks("cpu", "--only", "tvl1", "--budget", "0")
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("| left out | the budget of 0 s is used up |") == 3
