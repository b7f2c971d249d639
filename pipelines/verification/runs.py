"""Whether runs and scores can be read, and scores are of the weights that are there now; in a worker process."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.errors import MissingError
from pipelines.storage.atomic import read_json
from pipelines.storage.workspace import Workspace
from pipelines.training.recipes import STEPS
from pipelines.training.runs import Run, outdated
from pipelines.verification.faults import CheckLevel, Fault

Found = tuple[Path, str]
"""The file or folder at fault, and what is wrong with it."""


@dataclass(frozen=True)
class FolderTask:
    """A run to check, `runs/<name>/`, or scores, `scores/<run>/<protocol>/`."""

    kind: Literal["run", "scores"]
    workspace: Workspace
    folder: Path
    depth: CheckLevel

    @property
    def id(self) -> str:
        return "/".join(self.folder.parts[-2 if self.kind == "run" else -3 :])

    def check(self) -> list[Fault]:
        found = _check_run(self.folder, self.depth) if self.kind == "run" else self._check_scores()
        return [Fault(self.kind, self.id, str(path), detail) for path, detail in found]

    def died(self, reason: str) -> list[Fault]:
        return [Fault(self.kind, self.id, str(self.folder), f"cannot be checked: {reason}")]

    def _check_scores(self) -> list[Found]:
        from pipelines.reporting.evaluations import load_evaluation

        try:
            attributes = load_evaluation(self.folder).attributes
        except (MissingError, ValueError) as error:
            return [(self.folder, str(error))]
        reason = "" if self.depth == "quick" else outdated(self.workspace, self.folder, attributes)
        return [(self.folder, reason)] if reason else []


def _check_run(folder: Path, depth: CheckLevel) -> list[Found]:
    from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA

    run, best, found = Run(folder), Run(folder, "best"), list[Found]()
    for path in (run.config_file, run.split_file):
        try:
            if not isinstance(read_json(path), dict):
                found.append((path, f"{path} does not hold a JSON object"))
        except MissingError as error:
            found.append((path, str(error)))
    for step in STEPS:
        of_weights = [(each.weights_file(step), WEIGHTS_SCHEMA) for each in (run, best)]
        for path, schema in ((run.checkpoint_file(step), CHECKPOINT_SCHEMA), *of_weights):
            if path.exists() and (fault := _checkpoint_fault(path, schema, depth)):
                found.append((path, fault))
        for each in (run, best):
            if not found and each.weights_file(step).exists():
                try:
                    each.weights(step)
                except MissingError as error:  # of another run
                    found.append((each.weights_file(step), str(error)))
    return found


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
