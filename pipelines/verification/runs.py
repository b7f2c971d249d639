"""Whether runs and scores can be read, and scores are of the weights that are there now; in a worker process."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import MissingError
from pipelines.storage.atomic import read_json
from pipelines.storage.workspace import Workspace
from pipelines.verification.faults import CheckLevel, Fault


@dataclass(frozen=True)
class RunTask:
    """A run to check: `runs/<name>/`."""

    folder: Path
    depth: CheckLevel

    @property
    def id(self) -> str:
        return f"runs/{self.folder.name}"

    def check(self) -> list[Fault]:
        from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA
        from pipelines.training.recipes import STEPS
        from pipelines.training.runs import Run

        run, best, faults = Run(self.folder), Run(self.folder, "best"), []
        for path in (run.config_file, run.split_file):
            try:
                if not isinstance(read_json(path), dict):
                    faults.append(self._fault(path, f"{path} does not hold a JSON object"))
            except MissingError as error:
                faults.append(self._fault(path, str(error)))
        for step in STEPS:
            of_weights = [(each.weights_file(step), WEIGHTS_SCHEMA) for each in (run, best)]
            for path, schema in ((run.checkpoint_file(step), CHECKPOINT_SCHEMA), *of_weights):
                if path.exists() and (fault := _checkpoint_fault(path, schema, self.depth)):
                    faults.append(self._fault(path, fault))
            for each in (run, best):
                if not faults and each.weights_file(step).exists():
                    try:
                        each.weights(step)
                    except MissingError as error:  # of another run
                        faults.append(self._fault(each.weights_file(step), str(error)))
        return faults

    def died(self, reason: str) -> list[Fault]:
        return [self._fault(self.folder, f"cannot be checked: {reason}")]

    def _fault(self, path: Path, detail: str) -> Fault:
        return Fault("run", self.id, str(path), detail)


def _checkpoint_fault(path: Path, schema: str, depth: CheckLevel) -> str:
    """Why a checkpoint cannot be trusted; empty if it can. Its zip archive has a checksum for each tensor, which torch
    does not check on loading."""
    from pipelines.training.checkpoints import load

    try:
        if depth != "quick":
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                return f"{path} is damaged ({damaged} does not match its checksum)"
        load(path, schema)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        return f"{path} is damaged ({error})"
    except MissingError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class ScoresTask:
    """Scores to check: `scores/<run>/<protocol>/`."""

    workspace: Workspace
    folder: Path
    depth: CheckLevel

    @property
    def id(self) -> str:
        return f"scores/{self.folder.parent.name}/{self.folder.name}"

    def check(self) -> list[Fault]:
        from pipelines.reporting.evaluations import load_evaluation
        from pipelines.training.runs import outdated

        try:
            attributes = load_evaluation(self.folder).attributes
        except (MissingError, ValueError) as error:
            return self._faults(str(error))
        return self._faults(outdated(self.workspace, self.folder, attributes)) if self.depth != "quick" else []

    def died(self, reason: str) -> list[Fault]:
        return self._faults(f"cannot be checked: {reason}")

    def _faults(self, detail: str) -> list[Fault]:
        return [Fault("scores", self.id, str(self.folder), detail)] if detail else []
