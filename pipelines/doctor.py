"""Stage `doctor`: whether this machine can do what the other stages need, measured rather than guessed.

A separate process runs the checks, so that a library that crashes it takes nothing else down: the subject under check
has failed, and another process continues with the rest.
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

from pipelines.diagnosis.check import Check, Place, failure, in_words
from pipelines.interface import options
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress
from pipelines.runtime.worker_pool import how_it_ended

STAGE = "doctor"
_FIX = "reinstall the packages named above"
SUBJECTS = {
    "packages": "Python and packages",
    "machine": "Machine",
    "gpu": "GPU",
    "storage": "Workspace",
    "decoders": "Video",
    "speed": "Flow",
}
"""The modules of `diagnosis`, in the order in which they run, and their headings."""
_PATIENCE = 600.0  # seconds for one of them; compiling TV-L1 takes half a minute


@dataclass(frozen=True)
class Config:
    """Settings of `doctor`."""

    workspace: options.WorkspaceFolder = options.DEFAULT_WORKSPACE
    """The workspace whose disk is checked; it need not exist."""
    device: options.DeviceName = "auto"
    """Device to measure flow on: auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class Result:
    """What was found."""

    checks: dict[str, list[Check]]
    """By heading."""
    seconds: float
    failures: int = field(init=False)
    warnings: int = field(init=False)

    def __post_init__(self) -> None:
        statuses = [check.status for checks in self.checks.values() for check in checks]
        object.__setattr__(self, "failures", statuses.count("failure"))
        object.__setattr__(self, "warnings", statuses.count("warning"))


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Checks everything; whatever is wrong is in the result."""
    started = time.monotonic()
    place = Place(config.workspace, config.device)
    checks: dict[str, list[Check]] = {}
    while remaining := [subject for subject in SUBJECTS if subject not in checks]:
        on_progress(Progress(STAGE, len(checks), len(SUBJECTS), "subjects", even=False))
        for subject, found in _check(remaining, place):
            checks[subject] = found
            on_progress(Progress(STAGE, len(checks), len(SUBJECTS), "subjects", even=False))
    return Result({SUBJECTS[subject]: checks[subject] for subject in SUBJECTS}, time.monotonic() - started)


def _check(subjects: Sequence[str], place: Place) -> Iterator[tuple[str, list[Check]]]:
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
                found = None
                with contextlib.suppress(EOFError, OSError):  # of a process that has died
                    if ours.poll(_PATIENCE):
                        found = ours.recv()
                if found is not None:
                    yield subject, found
                    continue
                process.join(1.0)
                code = process.exitcode
                how = (
                    f"takes longer than {_PATIENCE:.0f} s"
                    if code is None
                    else f"ends the process ({how_it_ended(code)})"
                )
                lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
                last = next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")
                yield subject, [failure(SUBJECTS[subject].lower(), f"checking it {how}{last}", _FIX)]
                return
        finally:
            process.kill()
            process.join()
            ours.close()


def _serve(connection: Connection, log: Path, subjects: list[str], place: Place) -> None:
    """Sends the checks of each subject, in the process. What libraries write to stderr goes to `log`."""
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    for subject in subjects:
        try:
            checks = importlib.import_module(f"pipelines.diagnosis.{subject}").check(place)
        except BaseException as error:  # of a broken library, whatever it raises
            checks = [failure(SUBJECTS[subject].lower(), f"cannot be checked: {in_words(error)}", _FIX)]
        connection.send(checks)
