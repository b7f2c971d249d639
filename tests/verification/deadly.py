"""What the tests make worker processes do: importable by name, as `run_tasks` needs it."""

import os
import signal
from pathlib import Path

from pipelines import verify
from pipelines.runtime.worker_pool import Report
from pipelines.verification import one_flow
from pipelines.verification.tasks import Recomputed, RecomputeTask


def check_or_die(task: verify.Task, report: Report) -> object:
    """Checks, but dies of the video called `deadly`."""
    if task.id.endswith("/deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return verify.check_one(task, report)


def recompute_or_die(task: RecomputeTask, report: Report) -> Recomputed:
    """Computes flow again, but dies of the video called `deadly`."""
    if task.id.endswith("/deadly"):
        os.kill(os.getpid(), signal.SIGABRT)
    return one_flow.recompute(task, report)


def note_width(task: RecomputeTask, report: Report) -> Recomputed:
    """Leaves a file named by the process and the width, beside the flow's class folder."""
    (Path(task.origin.path).parent.parent / f"{os.getpid()} {task.origin.width}").touch()
    return Recomputed(1)
