"""Weights as stres 0.1.0 left them: they do not tell how they were trained, so they fit any `config.json`."""

from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load, save
from pipelines.training.runs import Run


def forget_configuration(run: Run, step: str) -> None:
    content = load(run.weights_file(step), WEIGHTS_SCHEMA)
    kept = {name: value for name, value in content.items() if name not in ("configuration", "schema")}
    save(run.weights_file(step), WEIGHTS_SCHEMA, kept)
