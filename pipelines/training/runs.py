"""A run's folder: `runs/<name>/` with its configuration, its split, and the weights that each step left.

`config.json`           network, input, recipe of each step begun, classes, provenance of the flow
`split.json`            ids of the training and test videos
`metrics.jsonl`         one line every few updates
`<step>/checkpoint.pt`  continues an interrupted step;  `<step>/weights.pt`  the finished step
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import MissingError, UsageError
from pipelines.training.recipes import STEPS
from pipelines.workspace import Workspace, locked, read_json, storage_errors

if TYPE_CHECKING:
    from pipelines.models import STResNet

LATE_FUSION = "late"  # both base streams side by side, their logits averaged


@dataclass(frozen=True)
class Run:
    """A run that has begun."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config_file(self) -> Path:
        return self.folder / "config.json"

    @property
    def split_file(self) -> Path:
        return self.folder / "split.json"

    def checkpoint_file(self, step: str) -> Path:
        return self.folder / step / "checkpoint.pt"

    def weights_file(self, step: str) -> Path:
        return self.folder / step / "weights.pt"

    def weights_sha256(self, step: str) -> str:
        """SHA-256 of the file that the finished `step` left; of both streams' files, end to end, for `late`."""
        digest = hashlib.sha256()
        for name in ("appearance", "motion") if step == LATE_FUSION else (step,):
            digest.update(self.weights_file(name).read_bytes())
        return digest.hexdigest()

    def config(self) -> dict[str, Any]:
        """The run's configuration. Raises `MissingError`."""
        return read_json(self.config_file)

    def finished(self) -> list[str]:
        """The steps that are done, in the order of training."""
        return [step for step in STEPS if self.weights_file(step).exists()]

    def testable(self) -> list[str]:
        """What can be evaluated: finished steps, and `late` where both base streams are there."""
        finished = self.finished()
        both = {"appearance", "motion"} <= set(finished)
        return [*finished[:2], LATE_FUSION, *finished[2:]] if both else finished

    def choose(self, step: str | None) -> str:
        """`step` if it can be evaluated; without one the last of `testable()`. Raises `MissingError`, `UsageError`."""
        testable = self.testable()
        if not testable:
            raise MissingError(f"run {self.name} has no finished step: continue it with `stres train`")
        if step is None:
            return testable[-1]
        if step not in (*STEPS, LATE_FUSION):
            raise UsageError(f"--step {step!r} is not known: give one of {', '.join((*STEPS, LATE_FUSION))}")
        if step not in testable:
            raise MissingError(f"run {self.name} has not finished {step!r}; it has {', '.join(testable)}")
        return step


@contextlib.contextmanager
def only_trainer(run: Run) -> Iterator[None]:
    """Keeps other processes from training into the run while the block runs; makes its folder where there is none.

    Raises `MissingError` where another one is training into it.
    """
    with storage_errors(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.folder, wait=False) as free:
        if not free:
            raise MissingError(
                f"another process is training the run {run.name} in {run.folder.parent}: wait for it, or give another "
                "--name"
            )
        yield


def find_run(workspace: Workspace, name: str | None) -> Run:
    """The run of that name, or the newest. Raises `MissingError` naming those there are."""
    workspace.require()
    runs = sorted(workspace.runs.glob("*/config.json"), key=lambda file: file.stat().st_mtime_ns)
    if not runs:
        raise MissingError(f"there is no run in {workspace.runs}: train one with `stres train --split 1`")
    if name is None:
        return Run(runs[-1].parent)
    if not (workspace.runs / name / "config.json").is_file() or Path(name).name != name:
        known = ", ".join(sorted(file.parent.name for file in runs))
        raise MissingError(f"there is no run {name!r} in {workspace.runs}: there are {known}")
    return Run(workspace.runs / name)


def find_run_or_folder(workspace: Workspace, name: str | None) -> Run:
    """`find_run`, where `name` may also be the folder of a run that lies elsewhere. Raises `MissingError`."""
    if name is not None and (Path(name) / "config.json").is_file():
        return Run(Path(os.path.abspath(name)))
    return find_run(workspace, name)


def recipe_of(settings: Mapping[str, Any], step: str) -> dict[str, Any]:
    """How `step` was trained, of the run whose `config.json` holds `settings`; of late fusion, the motion stream."""
    return settings["steps"]["motion" if step == LATE_FUSION else step]


def load_network(run: Run, step: str) -> "STResNet":
    """The network that `step` left (`late`: both base streams without connection), in evaluation mode, on the CPU."""
    from pipelines.models import STResNet, load_streams
    from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load

    if step == LATE_FUSION:
        parts = [load(run.weights_file(stream), WEIGHTS_SCHEMA) for stream in ("appearance", "motion")]
        settings = parts[0]["network"] | {"streams": ("appearance", "motion")}
        network = STResNet(**settings)
        for part in parts:
            load_streams(network, part["model"])
    else:
        content = load(run.weights_file(step), WEIGHTS_SCHEMA)
        network = STResNet(**content["network"])
        network.load_state_dict(content["model"])
    return network.eval()
