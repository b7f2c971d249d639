"""The benchmarks of accuracy (`benchmarks/ablation.py`, `pretrained.py`): one cell, their stored lines, their table."""

import argparse
import json
import math
import shutil
from pathlib import Path

import pytest

from pipelines.datasets.split_lists import Split
from pipelines.storage.workspace import Workspace
from tests.helpers.workspaces import Trained

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.parametrize("name", ["ablation", "pretrained"])
def test_every_stored_line_counts(name):
    """A setting of training that was added or renamed since makes no line another recipe's. (Where a recipe is changed
    on purpose, its lines are to be computed again.)"""
    import importlib

    from cells import digest, read

    tables = {data.name: data for tables in importlib.import_module(name).DATA.values() for data in tables}
    lines = read(BENCHMARKS / f"{name}.jsonl")
    assert lines
    for data, cell, recipe in {(line["data"], line["cell"], line["recipe"]) for line in lines}:
        assert recipe == digest(tables[data], cell), (data, cell)


def test_another_recipe_is_another_digest():
    import pretrained
    from cells import digest

    of_same_steps = [digest(pretrained.FIGHT, name) for name in pretrained.VARIANTS if name.endswith("late")]
    of_lengths = [digest(pretrained.FIGHT, name) for name in pretrained.LENGTH_OF_TRAINING]
    assert len({*of_same_steps, *of_lengths}) == len(of_same_steps) + len(of_lengths)


def test_a_cell_is_trained_tested_and_written_once(trained_on_videos: Trained, tmp_path: Path):
    import pretrained
    from cells import TEMPORALS, Data, Variant, compute, read

    few = {"iterations": 1, "batch_size": 2, "lr": 1e-4}
    steps = {"appearance": few, "motion": few, "joint1": few | {"frames": 2, "stride": (1, 1)}}
    data = Data(
        "tiny",
        (1,),
        {"recipe": "small", "width": 4, "size": (32, 32), "overrides": steps},
        flow={},
        variants={"joint": Variant("joint", {"direction": "none"})},
        testing={"crops": 2},
    )
    workspace = Workspace(Path(shutil.copytree(trained_on_videos.workspace.root, tmp_path / "work")))
    arguments = argparse.Namespace(results=tmp_path / "lines.jsonl", device="cpu")

    def cell(prepare):
        compute(data, "joint", 1, 0, arguments, prepare=prepare, splits=None, tests=TEMPORALS, record=pretrained.hits)

    cell(lambda: workspace)
    lines = read(arguments.results)
    assert [line["test"] for line in lines] == [*TEMPORALS]
    for line in lines:
        protocol = f"joint1-2frames-full-mirror-{line['test']}"
        results = json.loads((workspace.scores / "fold1-seed0-joint" / protocol / "results.json").read_text())
        for stream, hits in line["hits"].items():
            assert len(hits) == line["videos"] == 2
            assert hits.count("1") == line["right"][stream] == round(2 * results[stream]["top1"])
    cell(lambda: pytest.fail("it is computed again"))
    assert read(arguments.results) == lines


def test_settings_are_compared_on_groups_that_train_nothing():
    from cells import held_out

    train = [f"{label}/{actor}_{label}" for label in ("run", "walk") for actor in ("ann", "bob", "cem", "dan", "eve")]
    split = held_out(Split(1, train, ["run/fay_run"], ["run", "walk"], "lists"), r"/([^/_]+)_")
    assert split.test == ["run/bob_run", "run/eve_run", "walk/bob_walk", "walk/eve_walk"]
    assert split.train == [id_ for id_ in train if id_ not in split.test]


def test_the_table_compares_cells_that_both_have(capsys):
    import pretrained
    from cells import digest

    def line(cell, fold, seed, hits):
        right = {stream: hits.count("1") for stream in ("appearance", "motion", "fused")}
        return {
            **{"data": "fight-surv", "cell": cell, "fold": fold, "seed": seed, "test": "sequence", "videos": len(hits)},
            **{"recipe": digest(pretrained.FIGHT, cell), "right": right, "hits": dict.fromkeys(right, hits)},
        }

    late = [line("late", fold, 0, hits) for fold, hits in ((1, "1111110"), (2, "1110"), (3, "10"))]
    scratch = [line("scratch-late", 1, 0, "0000111"), line("scratch-late", 2, 0, "1100")]
    pretrained.table([*late, *scratch])
    told = capsys.readouterr().out.splitlines()
    assert "| pretrained: late fusion | sequence | 1 | 76.9 % | 76.9 % | 76.9 % |" in told
    assert "| fight-surv | from scratch: late fusion | sequence | 0 | 1 | 7 | 3 | 3 | 3 |" in told
    p = sum(math.comb(6, k) for k in (0, 1, 5, 6)) / 2**6  # 5 videos only the one has right, 1 only the other
    tested = "pretrained: late fusion, sequence, fused | from scratch: late fusion, sequence, fused"
    assert f"| fight-surv | {tested} | 2 | 5 | 1 | +36.4 % | {p:.3f} |" in told
    assert "* fight-surv: from scratch: late fusion, sequence: 7 cells" in told
