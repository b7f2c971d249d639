"""The files of one step of a run: `checkpoint.pt`, which continues it, and `weights.pt`, which ends it, with `best.pt`
beside it where videos were held out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.errors import MissingError, UsageError
from pipelines.interface.wording import first_line
from pipelines.storage.atomic import storage_errors
from pipelines.training import checkpoints
from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA
from pipelines.training.loop import StepTrainer
from pipelines.training.metrics_log import of_today
from pipelines.training.recipes import Step
from pipelines.training.run_config import config_difference, without_flow
from pipelines.training.runs import Run, StepResult


@dataclass(frozen=True)
class StepFiles:
    """The files of one step. Methods that write raise `StorageError`, those that read `MissingError` for what is
    damaged."""

    run: Run
    step: Step
    configuration: dict[str, Any]
    """What a checkpoint has to fit (`RunConfig.of_step`)."""

    @property
    def checkpoint(self) -> Path:
        return self.run.checkpoint_file(self.step.name)

    @property
    def weights(self) -> Path:
        return self.run.weights_file(self.step.name)

    def finished(self) -> tuple[StepResult, dict[str, str]] | None:
        """What the step came to, and the unreadable videos, if it was finished before."""
        if not self.weights.exists():
            return None
        done = self.run.weights(self.step.name)
        self._remove_checkpoint()  # of a process that was killed before it could
        metrics = of_today(done["metrics"], self.step.terms)
        best = done.get("best", {})
        return StepResult(self.step.name, done["iterations"], done["seconds"], metrics, True, best), done["bad"]

    def finish(self, trainer: StepTrainer, network: dict[str, Any]) -> tuple[StepResult, dict[str, str]]:
        """Writes `best.pt`, if there is one, and `weights.pt`, with the settings that build the `network` again.

        Until the last of them is there, the checkpoint holds the best weights, too.
        """
        state = trainer.state
        weights = self._weights(trainer, network)
        if state.best:
            best_file = replace(self.run, checkpoint="best").weights_file(self.step.name)
            checkpoints.save(best_file, WEIGHTS_SCHEMA, weights | state.best)
        checkpoints.save(self.weights, WEIGHTS_SCHEMA, weights)
        self._remove_checkpoint()
        return StepResult(
            self.step.name, state.iteration, state.seconds, weights["metrics"], False, weights["best"]
        ), state.unreadable

    def content(self, trainer: StepTrainer) -> dict[str, Any]:
        """That of the checkpoint: all ranks ask for it, and rank 0 writes it."""
        return {"configuration": self.configuration, **trainer.state_dict()}

    def save(self, content: dict[str, Any]) -> None:
        """Writes `checkpoint.pt`."""
        checkpoints.save(self.checkpoint, CHECKPOINT_SCHEMA, content)

    def saved(self) -> dict[str, Any] | None:
        """What an interrupted step left. Raises `UsageError` where that is of another configuration."""
        if not self.checkpoint.exists():
            return None
        content = checkpoints.load(self.checkpoint, CHECKPOINT_SCHEMA)
        begun, now = content.get("configuration"), self.configuration
        if isinstance(begun, dict) and "motion" not in self.step.inputs:
            begun, now = without_flow(begun), without_flow(now)
        difference = config_difference(begun, now)
        if difference:
            raise UsageError(
                f"{self.checkpoint} is of another configuration: {difference}; put the right file in its place, or "
                "delete it and the step starts over"
            )
        return content

    def restore(self, trainer: StepTrainer, content: dict[str, Any]) -> None:
        """Continues from a checkpoint. Raises `MissingError` where that holds something else than the step needs."""
        try:
            trainer.load_state_dict(content)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise MissingError(
                f"{self.checkpoint} does not fit ({type(error).__name__}: {first_line(error)}): delete it, and the "
                "step starts over"
            ) from error

    def sizes(self, trainer: StepTrainer, network: dict[str, Any]) -> tuple[int, int]:
        """The bytes of weights that the step would leave, and of `checkpoint.pt`, which holds the best weights, too."""
        weights = checkpoints.size(WEIGHTS_SCHEMA, self._weights(trainer, network))
        best = weights if self.configuration.get("validation") else 0
        return weights + best, checkpoints.size(CHECKPOINT_SCHEMA, self.content(trainer)) + best

    def _remove_checkpoint(self) -> None:
        """Of a finished step, which does not need it."""
        if self.checkpoint.exists():  # a read-only disk refuses to remove even what is not there
            with storage_errors(self.checkpoint):
                self.checkpoint.unlink()

    def _weights(self, trainer: StepTrainer, network: dict[str, Any]) -> dict[str, Any]:
        state = trainer.state
        summary = {
            "iterations": state.iteration,
            "seconds": state.seconds,
            "metrics": state.last | state.validation,
            "bad": state.unreadable,
            "best": {"iterations": state.best["iterations"], **state.best["metrics"]} if state.best else {},
        }
        model = {name: value.cpu() for name, value in trainer.model.state_dict().items()}
        return {"configuration": self.configuration, "network": network, "model": model, **summary}
