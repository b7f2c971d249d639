"""Evaluations on disk, as `evaluate` leaves them, with scores that were made up."""

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipelines.evaluation.metrics import results_document
from pipelines.evaluation.scores import STREAMS, Scores, write_scores
from pipelines.storage.atomic import write_json
from pipelines.storage.workspace import Workspace
from pipelines.training.recipes import SMALL
from pipelines.training.run_config import RUN_SCHEMA, BaseRun, NetworkConfig, RunConfig, StepConfig, TrainVideos

Evaluate = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


@pytest.fixture
def evaluate(workspace: Workspace) -> Evaluate:
    """Writes one evaluation; each is newer than the one before it."""
    return _evaluator(workspace)


@pytest.fixture(scope="session")
def evaluator() -> Callable[[Workspace], Evaluate]:
    """`evaluate` of any workspace, for fixtures that outlive a test."""
    return _evaluator


def _evaluator(workspace: Workspace) -> Evaluate:
    clock = [1_700_000_000]

    def write(
        run: str = "split1",
        split: int = 1,
        protocol: str = "25-full",
        classes: Sequence[str] = ("bend", "jack", "jump"),
        videos: int | Sequence[int] = 10,
        streams: Sequence[str] = STREAMS,
        frames: int = 25,
        seed: int = 0,
        sources: Sequence[str] | None = None,
    ) -> Path:
        generator = np.random.default_rng((seed, split))
        labels = np.repeat(np.arange(len(classes)), videos)
        logits = {stream: generator.normal(size=(len(labels), len(classes))) for stream in streams}
        for stream in streams:
            logits[stream][np.arange(len(labels)), labels] += 1.5
        names = [f"{classes[label]}/v{index}" for index, label in enumerate(labels)]
        arrays = {stream: values.astype(np.float32) for stream, values in logits.items()}
        scores = Scores(names, labels, list(classes), sources=sources and list(sources), **arrays)
        folder = workspace.scores / run / protocol
        described = {"frames": frames, "views": "full", "mirror": True, "temporal": "sequence"}
        write_scores(folder / "scores.h5", scores, {"run": run, "checkpoint": "joint2"})
        write_json(folder / "results.json", results_document(described, split, run, scores))
        clock[0] += 10
        os.utime(folder / "results.json", (clock[0], clock[0]))
        return folder

    return write


@pytest.fixture
def log_training(workspace: Workspace) -> Callable[..., Path]:
    """Writes what the training of a run leaves, by default of split1."""
    return partial(_log_training, workspace)


@pytest.fixture(scope="session")
def training_logger() -> Callable[..., Path]:
    """`log_training` of any workspace."""
    return _log_training


def run_config(base: BaseRun | None = None) -> RunConfig:
    """The configuration of a run of the recipe "small", which trains the motion stream."""
    return RunConfig(
        schema=RUN_SCHEMA,
        stres_version="0.2.0",
        library_versions={},
        recipe="small",
        split=1,
        seed=0,
        size=(64, 64),
        weights="none",
        precision="fp32",
        network=NetworkConfig(1, 26, 16, 20, "multiply", "motion-to-appearance", True, "center"),
        classes=("x",),
        train_videos=TrainVideos(1, "0" * 64),
        flow=None,
        steps={"motion": StepConfig(SMALL.steps["motion"])},
        split_sha256="0" * 64,
        base_run=base,
    )


def _log_training(workspace: Workspace, updates: int = 40, run: str = "split1", base: str | None = None) -> Path:
    """A configuration and a log, which ends in half a line."""
    folder = workspace.runs / run
    folder.mkdir(parents=True)
    write_json(folder / "config.json", run_config(BaseRun(base, {}) if base else None).to_json())
    lines = [
        json.dumps(
            {
                **{"step": step, "iteration": at, "loss": 2 / at, "summed_loss": 4 / at},
                **{f"{stream}_accuracy": at / updates, "lr": 0.1},
            }
        )
        for step, stream in (("appearance", "appearance"), ("joint1", "fused"))
        for at in range(10, updates + 1, 10)
    ]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": "joint1", "itera']), encoding="utf-8")
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the second that drawing takes, where a test is not about pictures."""
    for name in ("confusion_matrix", "motion_effect", "per_class"):
        monkeypatch.setattr(f"pipelines.reporting.plots.{name}", lambda *arguments: None)
    monkeypatch.setattr("pipelines.reporting.plots.PanelGrid.figure", lambda grid: None)
    monkeypatch.setattr("pipelines.reporting.files.png", lambda figure, about: b"not drawn")
    monkeypatch.setattr(
        "pipelines.reporting.plots.drawing.Panel.svg", lambda panel: '<svg xmlns="http://www.w3.org/2000/svg"/>'
    )
