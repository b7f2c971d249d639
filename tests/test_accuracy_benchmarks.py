"""The benchmarks of accuracy (`ablation.py`, `pretrained.py`, `trials.py`): a cell, their stored lines, their table."""

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
        for stream, logits in line["logits"].items():
            assert line["hits"][stream] == "".join(
                str(int(one.index(max(one)) == label)) for one, label in zip(logits, line["labels"], strict=True)
            )
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


def test_streams_are_fused_as_all_thirds_of_the_training_teach(capsys):
    import pretrained
    from cells import digest

    def line(data, seed, labels, **logits):
        found = {"data": data, "cell": "frozen-240", "fold": 1, "seed": seed, "test": "sequence", "videos": len(labels)}
        streams = ("appearance", "motion", "fused")
        rest = {"right": dict.fromkeys(streams, 0), "hits": dict.fromkeys(streams, "0" * len(labels))}
        recipe = digest(pretrained.FIGHT, "frozen-240")
        return found | rest | {"recipe": recipe, "labels": labels, "logits": logits}

    tested = line("fight-surv", 1, [0, 1], appearance=[[0, 5], [3, 0]], motion=[[1, 0], [0, 1]])
    held_out = {"appearance": [[0, 2], [2, 0]], "motion": [[1, 0], [0, 1]]}
    thirds = [line("fight-surv, thirds held out", third, [0, 1], **held_out) for third in range(3)]
    title = pretrained.VARIANTS["frozen-240"].title
    pretrained.table([tested, *thirds[:2]])
    assert "weight of appearance" not in capsys.readouterr().out  # one third is missing
    pretrained.table([tested, *thirds])
    told = capsys.readouterr().out.splitlines()
    assert f"fight-surv, {title}: weight of appearance by fold: {{1: 0.0}}" in told
    for test in (pretrained.CROSS, pretrained.LEARNT):
        assert f"| fight-surv | {title} | {test} | 1 | 1 | 2 | 0 | 0 | 2 |" in told


def trained_by(trainer_type, step, **settings):
    """The weights of a tiny motion network after three updates."""
    import torch

    from pipelines.datasets.samples import Batch
    from pipelines.models import STResNet
    from pipelines.training.recipes import Step

    torch.manual_seed(0)
    network = STResNet(3, depth=26, width=4, streams=(step,), fusion="none", direction="none", temporal_kernels=False)
    few = Step(step, 0.01, "cosine", epochs=1, factor=1, batch_size=4, micro_batch=4, iterations=3, **settings)
    trainer = trainer_type(network, few, 4, torch.device("cpu"))
    flow = torch.randint(0, 256, (4, few.frames, 20, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 0])
    trainer.fit([Batch(None, flow, labels, labels, {}, ())] * 3)
    return network.state_dict()


def test_every_stored_line_of_a_trial_counts():
    import trials
    from cells import read

    lines = read(BENCHMARKS / "trials.jsonl")
    assert lines
    assert {(line["trial"], line["recipe"]) for line in lines} == {
        (one["trial"], trials.digest(one["trial"])) for one in lines
    }


def test_trials_train_otherwise_than_the_recipe_and_the_recipe_alike():
    import torch
    import trials

    from pipelines.training.loop import StepTrainer

    plain = trained_by(StepTrainer, "motion")
    in_hook = [name for name, trial in trials.TRIALS["motion"].items() if not trial.settings or trial.augment]
    assert {"recipe", "cutmix", "reverse", "noise", "subsample", "average", "early-rate"} == {*in_hook}
    for name in in_hook:
        trial = trials.TRIALS["motion"][name]
        tried = trained_by(type("Trying", (trials.Trainer,), {"trial": trial}), "motion", **trial.settings)
        same = all(torch.equal(tried[key], value) for key, value in plain.items())
        assert same == (name == "recipe"), name


def test_cutmix_weighs_labels_by_the_area_that_stays():
    import numpy as np
    import torch
    import trials

    trainer = argparse.Namespace(rng=lambda: np.random.default_rng(3))
    videos = torch.arange(5.0).view(5, 1, 1, 1, 1).expand(5, 2, 3, 40, 50)
    mixed = trials.cutmix(trainer, videos)
    other, share = trainer.mixed
    for number in range(5):
        of_other = mixed[number] == other[number]
        assert ((mixed[number] == number) | of_other).all()
        if other[number] != number:
            assert of_other.float().mean().item() == pytest.approx(1 - share)


def test_backwards_is_the_flow_of_the_film_played_backwards():
    import torch
    import trials

    trainer = argparse.Namespace(rng=lambda: argparse.Namespace(random=lambda count: torch.zeros(count).numpy()))
    fields = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).view(1, 1, 6, 1, 1)
    expected = torch.tensor([[-5.0, -6.0], [-3.0, -4.0], [-1.0, -2.0]]).view(1, 1, 6, 1, 1)
    assert torch.equal(trials.reverse(trainer, fields), expected)
