"""One fault of each kind at a random moment: nothing is lost, and the same command completes.

The quick form of `make faults`. A failure prints its seed; STRES_FAULTS_SEED=N draws the same moments again.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stres_cli.app import app
from tests.faults.fault_kinds import FAULTS, Case, NotPossibleHere
from tests.faults.fault_stages import (
    EVALUATE,
    EXTRACT_FLOW,
    EXTRACT_FRAMES,
    PREDICT,
    STAGES,
    TRAIN,
    References,
    Stage,
    write_clips,
)

SEED = int(os.environ.get("STRES_FAULTS_SEED", random.SystemRandom().randrange(10**6)))


def undisturbed(arguments: Sequence[str]) -> tuple[int, str]:
    """In this process, which spares its start."""
    result = CliRunner().invoke(app, list(arguments), prog_name="stres")
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> References:
    root = tmp_path_factory.mktemp("faults")
    write_clips(root / "videos")

    def run(arguments: list[str]) -> None:
        code, printed = undisturbed(arguments)
        assert code == 0, printed

    return References(root / "undisturbed", root / "videos", run)


QUICK = [
    (EXTRACT_FRAMES, "Ctrl-C"),
    (EXTRACT_FRAMES, "read-only workspace"),
    (EXTRACT_FRAMES, "changing source"),
    (EXTRACT_FLOW, "kill -9"),
    (EXTRACT_FLOW, "full disk"),
    (EXTRACT_FLOW, "dying worker"),
    (TRAIN, "kill -9"),
    (TRAIN, "second copy"),
    (EVALUATE, "SIGTERM"),
    (PREDICT, "SIGHUP"),
]


@pytest.mark.parametrize(("stage", "fault"), QUICK, ids=[f"{stage.name}, {fault}" for stage, fault in QUICK])
def test_a_fault_loses_nothing(references: References, tmp_path: Path, stage: Stage, fault: str) -> None:
    print(f"STRES_FAULTS_SEED={SEED}")  # noqa: T201  (pytest shows it where the test fails)
    workspace = references.workspace(stage, tmp_path / "work")
    rng = random.Random(f"{SEED} {stage.name} {fault}")
    case = Case(stage, workspace, references.videos, references, undisturbed, rng, files=4, seconds=0.5)
    try:
        FAULTS[fault](case)
    except NotPossibleHere as reason:
        pytest.skip(str(reason))
    if fault != "full disk":  # healed where its disk is
        case.heal()


def test_every_fault_and_every_command_has_its_quick_test() -> None:
    assert {stage for stage, _ in QUICK} == set(STAGES)
    assert {fault for _, fault in QUICK} >= FAULTS.keys() - {"vanishing source"}  # much like a changing one
