"""`--fusion-weight`: the share of each stream in the fused scores, given or chosen on videos held out of training."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import evaluate, predict, train
from pipelines.deployment.card import Exported, _evaluations, write_card
from pipelines.deployment.checking import ExportCheck
from pipelines.deployment.model import deployed, random_inputs
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.fusion_weight import choose_weight, known_weight
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scores import read_scores
from pipelines.reporting.compute import compute, load
from pipelines.reporting.evaluations import load_evaluation
from pipelines.storage.atomic import write_json
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run, choose_run, load_network
from stres_cli.app import app
from tests.helpers.workspaces import TINY_STEPS, write_workspace

HELD_OUT = {"jump/jump0", "wave/wave1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of both streams with one video of each class held out. Only to be read."""
    folder = tmp_path_factory.mktemp("held")
    workspace = write_workspace(folder / "work")
    (workspace.root / "held.txt").write_text("".join(f"{id_}.avi\n" for id_ in sorted(HELD_OUT)))
    train.run(training(workspace))
    return workspace


def training(workspace: Workspace) -> train.Config:
    settings = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "overrides": TINY_STEPS}
    validation = workspace.root / "held.txt"
    return train.Config(workspace.root, steps=("appearance", "motion"), validation=validation, **settings)


@pytest.fixture
def workspace(trained: Workspace, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(trained.root, tmp_path / "work")))


def evaluated(workspace: Workspace, **settings: Any) -> evaluate.Result:
    return evaluate.run(evaluate.Config(workspace.root, **{"crops": 3, "device": "cpu"} | settings))


def naive(appearance: Any, motion: Any, labels: list[int]) -> tuple[float, float]:
    """The weight, and its accuracy, by the definition: nothing but sums."""
    found = []
    for step in range(21):
        weight, right, loss = step / 20, 0, 0.0
        for a, m, label in zip(appearance, motion, labels, strict=True):
            fused = [weight * float(x) + (1 - weight) * float(y) for x, y in zip(a, m, strict=True)]
            right += fused.index(max(fused)) == label
            loss += math.log(sum(math.exp(value) for value in fused)) - fused[label]
        found.append((-right, round(loss, 9), abs(weight - 0.5), weight))
    best = min(found)
    return best[3], -best[0] / len(labels)


@pytest.mark.parametrize("seed", range(5))
def test_the_highest_accuracy_is_chosen_and_of_equals_the_lowest_loss(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, 30).tolist()
    appearance, motion = generator.normal(size=(2, 30, 4))
    motion[np.arange(30), labels] += 1.5
    chosen = choose_weight([{"appearance": a, "motion": m} for a, m in zip(appearance, motion, strict=True)], labels)
    assert (chosen.weight, chosen.accuracy) == naive(appearance, motion, labels)
    equal = ((appearance + motion) / 2).argmax(axis=1) == labels
    assert (chosen.videos, chosen.equal_weights_accuracy) == (30, equal.mean())


def test_of_weights_that_give_the_same_the_equal_ones_are_taken() -> None:
    logits = np.eye(3)
    assert choose_weight([{"appearance": row, "motion": row} for row in logits], [0, 1, 2]).weight == 0.5


def test_the_weight_is_chosen_on_the_held_out_videos_by_the_same_protocol(workspace: Workspace) -> None:
    result = evaluated(workspace, fusion_weight="held-out", views=("center", "full"))
    # The same videos as a test of their own.
    run = Run(Path(shutil.copytree(workspace.runs / "split1", workspace.runs / "asked")))
    split = json.loads(run.split_file.read_text())
    assert set(split["validation"]) == HELD_OUT
    run.split_file.write_text(json.dumps(split | {"test": sorted(HELD_OUT)}))
    for one, alone in zip(
        result.evaluations, evaluated(workspace, run="asked", views=("center", "full")).evaluations, strict=True
    ):
        own, scores = read_scores(alone.folder / "scores.h5"), read_scores(one.folder / "scores.h5")
        assert one.folder.name == f"{alone.folder.name}-fusion-held-out"
        assert set(own.videos) == HELD_OUT
        assert not HELD_OUT & set(scores.videos)
        fusion = one.results["fusion"]
        assert (fusion["weight"], fusion["accuracy"]) == naive(own.appearance, own.motion, own.labels.tolist())
        assert fusion["videos"] == 2
        weighted = fusion["weight"] * scores.appearance + (1 - fusion["weight"]) * scores.motion
        np.testing.assert_allclose(scores.fused, weighted, rtol=1e-5, atol=1e-6)
        assert load_evaluation(one.folder).fusion == (fusion["weight"], "logits")


def test_a_number_is_taken_as_it_is_and_every_stage_uses_it(
    workspace: Workspace, trained_on_videos: Any, tmp_path: Path
) -> None:
    result = evaluated(workspace, fusion_weight=0.2)
    assert result.folder.name.endswith("-fusion0.2")
    assert result.results["protocol"]["fusion_weight"] == 0.2
    scores = read_scores(result.folder / "scores.h5")
    np.testing.assert_allclose(scores.fused, 0.2 * scores.appearance + 0.8 * scores.motion, rtol=1e-5, atol=1e-6)
    reported = compute(load(workspace, [load_evaluation(result.folder)]), "split1", tmp_path)
    assert "fused with appearance at weight 0.2 · " in reported.citation
    assert reported.fusion[0].used_top1 == reported.streams["fused"].top1

    video = [str(trained_on_videos.video("jump/jump2"))]
    settings = {"workspace": trained_on_videos.workspace.root, "device": "cpu", "crops": 3}
    logits = predict.run(predict.Config(video, fusion_weight=0.2, step="late", **settings)).predictions[0].logits
    expected = 0.2 * np.array(logits["appearance"]) + 0.8 * np.array(logits["motion"])
    np.testing.assert_allclose(logits["fused"], expected, rtol=1e-12)


def test_the_command_says_what_was_chosen_and_how_it_is_reported_beside_the_paper_s_test(workspace: Workspace) -> None:
    (workspace.scores / "split1" / Protocol.of_paper("late").name).mkdir(parents=True)
    (workspace.scores / "split1" / Protocol.of_paper("late").name / "results.json").write_text("{}")
    arguments = [
        "evaluate",
        "-w",
        str(workspace.root),
        "--crops",
        "1",
        "--device",
        "cpu",
        "--fusion-weight",
        "held-out",
    ]
    shown = CliRunner().invoke(app, arguments, prog_name="stres")
    assert shown.exit_code == 0, shown.stderr
    assert ", chosen on 2 held-out videos: " in shown.stdout
    assert (
        "next: stres report --run split1 --protocol late-1frames-full-mirror-sequence-fusion-held-out" in shown.stdout
    )


@pytest.mark.parametrize("better", [True, False])
def test_the_command_advises_a_weight_only_where_a_stream_alone_is_better(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    tested = evaluated(workspace)
    results = tested.results
    results["fused"]["top1"], results["appearance"]["top1"], results["motion"]["top1"] = 0.6, 0.5, 0.6 + 0.1 * better
    monkeypatch.setattr(evaluate, "run", lambda config, on_progress: tested)
    shown = CliRunner().invoke(app, ["evaluate", "-w", str(workspace.root)], prog_name="stres")
    assert shown.exit_code == 0, shown.stderr
    advice = "motion alone is better than both fused with equal weights; --fusion-weight held-out weights the streams"
    assert (f"{advice} by the 2 videos held out of training" in " ".join(shown.stdout.split())) is better

    results["protocol"]["fusion_weight"] = 0.2
    shown = CliRunner().invoke(app, ["evaluate", "-w", str(workspace.root)], prog_name="stres")
    assert advice not in " ".join(shown.stdout.split())


def test_an_exported_file_weights_the_streams_and_its_card_says_so(trained: Workspace) -> None:
    run = Run(trained.runs / "split1")
    model = deployed(load_network(run, "late"), 0.2)
    found = {
        name: value.detach().double().numpy() for name, value in model(*random_inputs(model, (32, 32), 2, 3)).items()
    }
    fused = np.exp(0.2 * found["appearance"] + 0.8 * found["motion"])
    np.testing.assert_allclose(found["probabilities"], fused / fused.sum(axis=1, keepdims=True), rtol=1e-5)
    check = ExportCheck(None, "jump", 0.5, 0.0, [(1, 3)])
    card = write_card(Exported("x.pt2", "torch", "0", run, "late", run.config(), {}, check), model)
    assert "the softmax of the mean of both streams' logits, 0.2 of appearance and 0.8 of motion" in card


def test_predictions_take_the_weight_that_a_test_of_these_weights_chose(workspace: Workspace) -> None:
    chosen = choose_run(workspace, None, "late")
    with pytest.raises(MissingError, match=r"no weight has been chosen for late of run split1: do it by `stres evalua"):
        known_weight(chosen, "held-out", workspace)
    fusion = evaluated(workspace, fusion_weight="held-out").results["fusion"]
    weight, told = known_weight(chosen, "held-out", workspace)
    assert weight == fusion["weight"]
    assert "chosen on 2 held-out videos" in told
    assert known_weight(chosen, 0.3, workspace) == (0.3, "")
    (workspace.runs / "split1" / "motion" / "weights.pt").write_bytes(b"others")
    with pytest.raises(MissingError, match="no weight has been chosen"):
        known_weight(chosen, "held-out", workspace)


def test_a_weight_that_was_chosen_in_another_workspace_than_the_runs_is_found(
    workspace: Workspace, tmp_path: Path
) -> None:
    other = Workspace(tmp_path / "other")
    shutil.copytree(workspace.root, other.root)
    shutil.rmtree(other.runs)
    folder = str(workspace.runs / "split1")
    chosen = choose_run(other, folder, "late")
    with pytest.raises(MissingError, match=f"--run {folder} --network late --fusion-weight held-out"):
        known_weight(chosen, "held-out", other, folder)
    fusion = evaluated(other, run=folder, step="late", fusion_weight="held-out").results["fusion"]
    assert known_weight(chosen, "held-out", other, folder)[0] == fusion["weight"]


def test_one_stream_has_nothing_to_weight(workspace: Workspace) -> None:
    for weight in (0.2, "held-out"):
        with pytest.raises(UsageError, match=r"motion of run split1 has the motion stream alone, fused with nothing"):
            evaluated(workspace, step="motion", fusion_weight=weight)
        with pytest.raises(UsageError, match="has the motion stream alone"):
            known_weight(choose_run(workspace, None, "motion"), weight, workspace)
    with pytest.raises(UsageError, match=r"--fusion-weight 1\.5: give a number from 0 to 1, or held-out"):
        evaluated(workspace, fusion_weight=1.5)


def test_a_split_without_held_out_videos_does_not_stop_the_others(workspace: Workspace) -> None:
    for name in ("s1", "s2", "s3"):
        shutil.copytree(workspace.runs / "split1", workspace.runs / name)
    about = json.loads(Run(workspace.runs / "s1").split_file.read_text())
    write_json(Run(workspace.runs / "s3").split_file, about | {"validation": ["jump/gone"]})
    del about["validation"]
    write_json(Run(workspace.runs / "s1").split_file, about)
    settings = {"crops": 1, "device": "cpu", "fusion_weight": "held-out", "dry_run": True}
    result = evaluate.run_splits(evaluate.Config(workspace.root, "s{split}", **settings))
    assert [one.run for one in result.runs] == ["s2"]
    assert "does not tell which videos were held out" in result.unusable["s1"]
    assert "the workspace has none of the 1 video held out of the training of run s3" in result.unusable["s3"]


def test_results_that_are_no_object_are_as_if_absent(workspace: Workspace) -> None:
    file = evaluated(workspace, crops=1).folder / "results.json"
    run = Run(workspace.runs / "split1")
    exported = Exported("x.pt2", "torch", "0", run, "late", run.config(), {}, ExportCheck(None, "jump", 0.5, 0.0, []))
    assert len(_evaluations(exported)) == 1
    for content in ('{"step": "late"}', "[]"):
        file.write_text(content)
        assert _evaluations(exported) == []
    again = evaluate.run(evaluate.Config(workspace.root, crops=1, device="cpu"), keep=True)
    assert again.results["step"] == "late"


def test_a_run_without_held_out_videos_says_so(workspace: Workspace, trained_on_videos: Any) -> None:
    run = Run(workspace.runs / "split1")
    split = json.loads(run.split_file.read_text())
    run.split_file.write_text(json.dumps({name: of for name, of in split.items() if name != "validation"}))
    with pytest.raises(MissingError, match="run split1 does not tell which videos were held out"):
        evaluated(workspace, fusion_weight="held-out")
    train.run(training(workspace))  # continues the finished run
    assert json.loads(run.split_file.read_text()) == split
    run.split_file.write_text(json.dumps(split | {"validation": ["jump/gone"]}))
    with pytest.raises(MissingError, match="has none of the 1 video held out"):
        evaluated(workspace, fusion_weight="held-out")
    run.split_file.write_text(json.dumps(split))
    for kind in ("frames", "flow"):
        (workspace.root / kind / "wave").rename(workspace.root / kind / "Wave")
    assert evaluated(workspace, fusion_weight="held-out").results["fusion"]["videos"] == len(HELD_OUT)
    with pytest.raises(MissingError, match="no videos were held out of the training of run split1 to choose a weight"):
        evaluated(trained_on_videos.workspace, fusion_weight="held-out", crops=5)
