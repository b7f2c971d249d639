"""Which of a run's evaluations is its headline: the one that is reported where none is named."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.errors import MissingError
from pipelines.evaluation.protocols import Protocol
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import LATE_FUSION, Run, trained_with_mirrors


def headline(workspace: Workspace, folders: Sequence[Path], tell: Callable[[str], None] = lambda text: None) -> Path:
    """The paper's protocol on the last step that was tested so, else the newest.

    Args:
        folders: `scores/<run>/<protocol>` of one run, or of several with the same protocols, each with its
            `results.json`.
        tell: Is given a sentence where that is not the paper's protocol on the run's last step.
    """
    by_name = {folder.name: folder for folder in folders}
    order = ("joint2", "joint1", LATE_FUSION, "motion", "appearance", "student")
    run = Run(workspace.runs / folders[0].parent.name)
    of_paper = [by_name[name] for name in (_of_paper(run, step) for step in order) if name in by_name]
    chosen = of_paper[0] if of_paper else newest(folders)
    testable = Run(workspace.runs / chosen.parent.name).testable()
    if testable and _of_paper(run, testable[-1]) != chosen.name and len(by_name) > 1:
        tell(
            f"warning: run {chosen.parent.name} has no evaluation of its last step, {testable[-1]}, by the paper's "
            f"protocol: {chosen.name} is reported; --protocol names another of "
            f"{', '.join(sorted({folder.name for folder in folders}))}"
        )
    return chosen


def _of_paper(run: Run, step: str) -> str:
    """The name of the paper's protocol on `step`: without mirrors, if it was trained without."""
    try:
        mirrored = trained_with_mirrors(run.config(), step)
    except MissingError:
        mirrored = True
    return Protocol.of_paper(step, mirrored=mirrored).name


def newest(folders: Sequence[Path]) -> Path:
    """The folder whose `results.json` was written last."""
    return max(folders, key=lambda folder: (folder / "results.json").stat().st_mtime_ns)
