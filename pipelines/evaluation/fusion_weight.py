"""The weight of both streams in the fused scores, chosen on the videos held out of training (`--fusion-weight`).

Letters: V videos, C classes.
"""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.special import log_softmax

from pipelines.errors import MissingError, StresError, UsageError
from pipelines.evaluation.scores import SCORES_SCHEMA
from pipelines.interface.options import EQUAL_WEIGHTS, HELD_OUT, HeldOut
from pipelines.interface.wording import percent, plural
from pipelines.storage.atomic import read_json
from pipelines.storage.hdf5 import peek
from pipelines.storage.typed_json import Within, from_json
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Chosen, scores_folder, streams_of

WEIGHTS = tuple(step / 20 for step in range(21))

_Share = Annotated[float, Within(0, 1)]


@dataclass(frozen=True)
class ChosenWeight:
    """A weight that was chosen on held-out videos."""

    weight: _Share
    """Of appearance."""
    videos: Annotated[int, Within(1, 1 << 40)]
    """How many it rests on."""
    accuracy: _Share
    """With this weight, of these videos."""
    equal_weights_accuracy: _Share
    """With the same weight for both streams."""

    @property
    def sentence(self) -> str:
        """What a reader is told of it."""
        return (
            f"fusion weight {self.weight:g} of appearance, {1 - self.weight:g} of motion, chosen on "
            f"{plural(self.videos, 'held-out video')}: {percent(self.accuracy)} % of them right, with equal weights "
            f"{percent(self.equal_weights_accuracy)} %"
        )


def choose_weight(logits: Sequence[Mapping[str, Any]], labels: Sequence[int]) -> ChosenWeight:
    """The weight of `WEIGHTS` with the highest accuracy; of equals the one with the lowest cross-entropy, then the one
    nearest to equal weights.

    Args:
        logits: Of each of V videos, `appearance` and `motion`: [C] each.
        labels: The index of each video's class: V.
    """
    from pipelines.evaluation.scoring import with_fused

    streams = {name: np.stack([np.asarray(of[name], np.float64) for of in logits]) for name in ("appearance", "motion")}
    true = np.asarray(labels)

    def measured(weight: float) -> tuple[float, float]:
        fused = with_fused(streams, weight)["fused"]
        loss = -log_softmax(fused, axis=1)[np.arange(len(true)), true].mean()
        return float((fused.argmax(axis=1) == true).mean()), float(loss)

    found = {weight: measured(weight) for weight in WEIGHTS}
    best = min(found, key=lambda weight: (-found[weight][0], found[weight][1], abs(weight - EQUAL_WEIGHTS)))
    return ChosenWeight(best, len(true), found[best][0], found[EQUAL_WEIGHTS][0])


def require_both_streams(chosen: Chosen, weight: float | HeldOut) -> None:
    """Raises `UsageError` for a weight of a network that has nothing to fuse."""
    streams = streams_of(chosen.run.config(), chosen.step)
    if weight != EQUAL_WEIGHTS and len(streams) == 1:
        raise UsageError(
            f"--fusion-weight {weight}: {chosen.step} of run {chosen.run.name} has the {streams[0]} stream alone, "
            "fused with nothing: leave the option out, or name another network by --network"
        )


def known_weight(
    chosen: Chosen, weight: float | HeldOut, workspace: Workspace, name: str | None = None
) -> tuple[float, str]:
    """The weight of appearance as a number, and what is to be told of it: for "held-out" what the newest test of these
    very weights chose.

    Args:
        workspace: Of the command, in which tests are looked for, as in that of the run.
        name: The run as the command was given it; None where it was not.

    Raises:
        UsageError: The network has nothing to fuse.
        MissingError: No test chose a weight.
    """
    require_both_streams(chosen, weight)
    if not isinstance(weight, str):
        return weight, ""
    run, step = chosen.run, chosen.step
    places, digest = (workspace, Workspace(run.folder.parent.parent)), run.weights_sha256(step)
    folders = {scores_folder(place, run).resolve() for place in places}
    found: list[tuple[int, ChosenWeight]] = []
    for file in (file for folder in folders for file in folder.glob(f"{step}-*/results.json")):
        with contextlib.suppress(StresError, KeyError, TypeError, ValueError):
            attributes = peek(file.with_name("scores.h5"), SCORES_SCHEMA)
            if attributes.get("weights_sha256") == digest and "recalibrate_bn" not in attributes:
                found.append((file.stat().st_mtime_ns, chosen_in(read_json(file))))
    if found:
        newest = max(found, key=lambda each: each[0])[1]
        return newest.weight, newest.sentence
    best = " --checkpoint best" if run.checkpoint == "best" else ""
    raise MissingError(
        f"--fusion-weight {HELD_OUT}: no weight has been chosen for {step} of run {run.name}: do it by `stres evaluate "
        f"--run {shlex.quote(name or run.name)} --network {step}{best} --fusion-weight {HELD_OUT}`, or give a number"
    )


def chosen_in(results: Any) -> ChosenWeight:
    """What `results.json` says of a weight that was chosen. Raises `KeyError`, `TypeError` or `ValueError`."""
    return from_json(ChosenWeight, results["fusion"], "fusion")
