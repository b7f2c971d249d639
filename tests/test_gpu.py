"""What runs on a GPU gives what the CPU gives: the checks of `benchmarks/gpu.py`."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.runtime.growth import Growth

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def checks(device: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), "--device", device, "--quick", *(options or ["--checks-only"])]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.cuda
def test_every_gpu_path_equals_the_cpu():
    found = checks("cuda")
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Runs the script in this process, which has loaded torch already: what it printed, and its rows."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    seed, threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(1)  # what is so small takes longer with more

    def run(file: Path, *options: str) -> tuple[str, list[dict]]:
        arguments = ["gpu.py", "--device", "cpu", "--quick", "--json", str(file), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        specification = importlib.util.spec_from_file_location("gpu_benchmark", BENCHMARK)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        with pytest.raises(SystemExit) as ended:
            module.main()
        told = capsys.readouterr()
        assert ended.value.code == 0, told.out + told.err
        return told.out, [json.loads(line) for line in file.read_text().splitlines()]

    yield run
    torch.random.set_rng_state(seed)
    torch.set_num_threads(threads)


def test_the_gpu_checks_themselves_run_on_the_cpu(run_here, tmp_path):
    _, rows = run_here(tmp_path / "rows.jsonl", "--checks-only")
    assert sum(row["result"] == "equal" for row in rows) == 16


def test_the_timings_of_tvl1_and_of_extraction_run_on_the_cpu_and_are_json_lines_too(
    run_here, tmp_path, monkeypatch, write_clip
):
    """So that no slip in them wastes a GPU's minutes. The number of processes is chosen as on a GPU."""
    monkeypatch.setattr("pipelines.runtime.growth._SECONDS", 0.0)

    def growth_on(device, mixer):
        growth = Growth((1, 2), mixer, 2)
        growth.helped_rate = 7.0  # there are too few clips to come to it
        return growth

    monkeypatch.setattr("pipelines.extract_flow.growth_on", growth_on)
    for name, width in (("a", 64), ("b", 52), ("c", 64)):
        write_clip(tmp_path / f"clips/{name}.mkv", frames=2, width=width)
    _, rows = run_here(tmp_path / "rows.jsonl", "--only", "tvl1", "--clips", str(tmp_path / "clips"))
    assert [row["what"] for row in rows[:3]] == ["copying", "matrix product", "launching a kernel"]
    assert sum(row["result"] == "equal" for row in rows) == 6
    assert len([row for row in rows if row.get("pairs_per_second", 0) > 0]) == 6
    assert [row["note"] for row in rows if "2 real clips of 64x48" in row["what"]] == [
        "one by one, 2 pairs",
        "together, 2 pairs",
    ]
    assert len([row for row in rows if row.get("pixel_iterations_per_second", 0) > 0]) == 2
    _, rows = run_here(tmp_path / "rows.jsonl", "--only", "extract")
    assert [row["result"] for row in rows[3:6]] == ["equal"] * 3
    (row,) = rows[6:]
    assert row["what"] == "extract-flow, 5 clips, its choice"
    assert min(row["pairs_per_second"], row["pairs_per_second_with_1"], row["pairs_per_second_mixed"]) > 0


def test_when_the_budget_is_used_up_no_further_part_begins(run_here, tmp_path):
    told, _ = run_here(tmp_path / "rows.jsonl", "--only", "tvl1", "--budget", "0")
    assert told.count("| left out | the budget of 0 s is used up |") == 4
