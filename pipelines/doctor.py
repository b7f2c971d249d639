"""Stage `doctor`: whether this machine can do what the other stages need, measured rather than guessed.

A process of its own looks, so that a library that ends it takes nothing else with it: what it was looking at has
failed, and another process goes on with the rest.
"""

import contextlib
import importlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipelines import options
from pipelines.diagnosis.check import Check, Place, failure, in_words
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress

STAGE = "doctor"
SUBJECTS = {
    "packages": "Python and packages",
    "machine": "Machine",
    "gpu": "GPU",
    "storage": "Workspace",
    "decoders": "Video",
    "speed": "Flow",
}
"""The modules of `diagnosis`, in the order in which they look, and their headings."""
_PATIENCE = 600.0  # seconds for one of them; compiling TV-L1 takes half a minute


@dataclass(frozen=True)
class Config:
    """Settings of `doctor`."""

    workspace: options.WorkspaceFolder = options.DEFAULT_WORKSPACE
    """The workspace whose disk is looked at; it need not exist."""
    device: options.DeviceName = "auto"
    """What flow is measured on: auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class Result:
    """What was found. `checks` by heading; `failures` and `warnings` count them."""

    checks: dict[str, list[Check]]
    seconds: float
    failures: int = field(init=False)
    warnings: int = field(init=False)

    def __post_init__(self) -> None:
        found = [check.status for checks in self.checks.values() for check in checks]
        object.__setattr__(self, "failures", found.count("failure"))
        object.__setattr__(self, "warnings", found.count("warning"))


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Looks at everything; whatever is wrong is in the result."""
    started = time.monotonic()
    place = Place(config.workspace, config.device)
    checks: dict[str, list[Check]] = {}
    while remaining := [subject for subject in SUBJECTS if subject not in checks]:
        on_progress(Progress(STAGE, len(checks), len(SUBJECTS), "subjects", even=False))
        for subject, found in _look(remaining, place):
            checks[subject] = found
            on_progress(Progress(STAGE, len(checks), len(SUBJECTS), "subjects", even=False))
    return Result({SUBJECTS[subject]: checks[subject] for subject in SUBJECTS}, time.monotonic() - started)


def _look(subjects: Sequence[str], place: Place) -> Iterator[tuple[str, list[Check]]]:
    """What one process finds, by subject; the last one is what it died of, if it did."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = context.Process(target=_serve, args=(theirs, log, list(subjects), place))
        process.start()
        theirs.close()
        try:
            for subject in subjects:
                found = _receive(ours)
                if found is None:
                    yield subject, [_death(subject, process, log)]
                    return
                yield subject, found
        finally:
            process.kill()
            process.join()
            ours.close()


def _receive(connection: Connection) -> list[Check] | None:
    """The checks of one subject; None where they do not come."""
    with contextlib.suppress(EOFError, OSError):
        if connection.poll(_PATIENCE):
            return connection.recv()
    return None


def _death(subject: str, process: Any, log: Path) -> Check:
    process.join(1.0)
    code = process.exitcode
    how = f"takes longer than {_PATIENCE:.0f} s" if code is None else f"ends the process ({_exit(code)})"
    fix = "reinstall the packages named above"
    return failure(SUBJECTS[subject].lower(), f"looking at it {how}{_last_line(log)}", fix)


def _exit(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")


# ------------------------------------------------------------------ in the process


def _serve(connection: Connection, log: Path, subjects: list[str], place: Place) -> None:
    """Sends the checks of each subject. What libraries write to stderr goes to `log`."""
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    for subject in subjects:
        connection.send(_attempt(subject, place))


def _attempt(subject: str, place: Place) -> list[Check]:
    try:
        return importlib.import_module(f"pipelines.diagnosis.{subject}").check(place)
    except BaseException as error:  # of a broken library, whatever it raises
        fix = "reinstall the packages named above"
        return [failure(SUBJECTS[subject].lower(), f"cannot be looked at: {in_words(error)}", fix)]
