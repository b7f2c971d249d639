"""Stage `status`: where a workspace stands on the way from videos to a report, and the command to run next.

Reads names and small JSON files only, and of one stored video its size.
"""

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines import runs
from pipelines.datasets.catalogue import artifact_files
from pipelines.datasets.split_lists import read_lists
from pipelines.datasets.splits import sets_of_splits
from pipelines.errors import StresError
from pipelines.evaluation.protocols import IMPORTED
from pipelines.interface import options
from pipelines.interface.options import command_line
from pipelines.interface.wording import percent, plural, some
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.storage.atomic import is_locked
from pipelines.storage.failures import Failure, read_failures
from pipelines.storage.workspace import KINDS, Kind, Workspace

State = Literal["done", "begun", "to do"]


@dataclass(frozen=True)
class Config:
    """Settings of `status`."""

    workspace: options.WorkspaceFolder = options.DEFAULT_WORKSPACE


@dataclass(frozen=True)
class Step:
    """One of the five commands that lead from videos to a report."""

    command: str
    state: State
    found: str
    """What it left, in words."""
    running: bool = False
    """Whether a process extracts or trains right now, as far as the system tells."""


@dataclass(frozen=True)
class Result:
    """What lies in a workspace."""

    workspace: Path
    steps: tuple[Step, ...]
    videos: dict[Kind, int]
    """Whose frames and whose flow are stored."""
    classes: int
    failed: dict[str, int]
    """Rows of `failures.csv`, by stage."""
    splits: dict[str, int]
    """The number of splits of each set, by its name; "" is the first."""
    runs: tuple[runs.ListedRun, ...]
    reports: tuple[str, ...]
    """The page of each report, the newest first."""
    next: str
    """The command to run next; VIDEOS and VIDEO stand for what only the user knows."""
    faults: tuple[str, ...]
    """What cannot be read, a sentence each."""


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Looks at the workspace, which need not exist. Raises `MissingError` where it is a file."""
    if not config.workspace.exists():
        return of_runs(config.workspace, ())
    return of_runs(config.workspace, runs.run(runs.Config(config.workspace)).runs)


def of_runs(root: Path, listed: tuple[runs.ListedRun, ...]) -> Result:
    """Looks at the rest of a workspace, whose runs these are."""
    workspace = Workspace(root)
    faults: list[str] = []
    stored: dict[Kind, set[tuple[str, str]]] = {kind: set() for kind in KINDS}
    failures: list[Failure] = []
    splits: dict[str, int] = {}
    with _told(faults):
        for kind in KINDS:
            stored[kind] = {(file.class_name, file.video) for file in artifact_files(kind, workspace.root / kind)}
    with _told(faults):
        failures = read_failures(workspace)
    with _told(faults):
        splits = {name: len(read_lists(folder)) for name, folder in sets_of_splits(workspace).items()}
    current = [one for one in listed if not one.archived]  # the others are neither continued nor tested
    pages = sorted(workspace.reports.glob("[!.]*/report.html"), key=lambda page: page.stat().st_mtime, reverse=True)
    faults += [fault for one in listed for fault in one.faults]
    steps = (
        *(_stored(kind, stored, failures, current, workspace.unfinished_file(kind)) for kind in KINDS),
        _trained(current, splits),
        _evaluated(current),
        _reported(current, pages),
    )
    return Result(
        workspace=root,
        steps=steps,
        videos={kind: len(stored[kind]) for kind in KINDS},
        classes=len({class_name for videos in stored.values() for class_name, _ in videos}),
        failed=dict(Counter(failure.stage for failure in failures)),
        splits=splits,
        runs=listed,
        reports=tuple(map(str, pages)),
        next=_next(root, steps, current),
        faults=tuple(faults),
    )


@contextlib.contextmanager
def _told(faults: list[str]) -> Iterator[None]:
    """Keeps the sentence of an error of the block."""
    try:
        yield
    except (StresError, OSError) as error:
        faults.append(str(error))


def _stored(
    kind: Kind,
    stored: Mapping[Kind, set[tuple[str, str]]],
    failures: Sequence[Failure],
    listed: Sequence[runs.ListedRun],
    mark: Path,
) -> Step:
    """`mark`: what is there while the command that stores frames or flow is running, or once it was stopped."""
    command = f"extract-{kind}"
    videos, others = stored[kind], stored["flow" if kind == "frames" else "frames"]
    unfinished, running = mark.exists(), is_locked(mark)
    failed = {(failure.class_name, failure.video) for failure in failures if failure.stage == command}
    missing = others - videos
    found = plural(len(videos), "video") if videos else "none"
    if videos:
        found = f"{found} of {plural(len({class_name for class_name, _ in videos}), 'class')}"
    if missing and videos:
        found = f"{found}, {plural(len(missing), 'video')} missing"
    if failed:
        found = f"{found}, {len(failed)} failed (failures.csv)"
    # A run of one stream needs only one of the two; videos that failed would fail again.
    without = {"motion"} if kind == "frames" else {"appearance", "student"}
    finished = {step for one in listed for step in one.finished}
    complete = videos or (others and finished and finished <= without)
    if complete and not videos:
        found = "none, nor needed by the runs"
    if running:
        found = f"{found}, running"
    elif unfinished:
        found = f"{found}, not all that was asked for"
    begun = unfinished or (videos and missing - failed)
    return Step(command, "begun" if begun else "done" if complete else "to do", found, running)


def _trained(listed: Sequence[runs.ListedRun], splits: dict[str, int]) -> Step:
    trained = [one for one in listed if not one.origin]
    done = [one.name for one in trained if one.finished and not one.unfinished]
    now = [f"{one.name} ({one.training})" for one in trained if one.training]
    left = [
        f"{one.name} ({', '.join(one.unfinished)} to do{', diverged' if one.diverged else ''})"
        for one in trained
        if one.unfinished and not one.training
    ]
    found = [f"{some(done)}" if done else "", f"in training: {some(now)}" if now else ""]
    found.append(f"unfinished: {some(left)}" if left else "")
    made = plural(sum(splits.values()), "split")
    others = [f"{one.name} ({one.origin})" for one in listed if one.origin]
    none = f"none here, but scores of {some(others)}" if others else f"none, {made} to train on" if splits else "none"
    text = "; ".join(filter(None, found)) or none
    return Step("train", "begun" if now or left else "done" if done or others else "to do", text, bool(now))


def _evaluated(listed: Sequence[runs.ListedRun]) -> Step:
    scored = [one for one in listed if one.scores]
    shown = [f"{one.name} {percent(one.scores[0].accuracy)} %{' (best)' if one.best else ''}" for one in scored]
    to_do = [one.name for one in listed if needs_test(one)]
    found = [some(shown) if shown else "none", f"not tested: {some(to_do)}" if to_do and shown else ""]
    return Step(
        "evaluate", "begun" if to_do and shown else "done" if shown else "to do", "; ".join(filter(None, found))
    )


def needs_test(one: runs.ListedRun) -> bool:
    """Whether it is finished, and has not been tested since."""
    return bool(one.finished) and not one.unfinished and (not one.scores or one.scores_are_old)


def _reported(listed: Sequence[runs.ListedRun], pages: Sequence[Path]) -> Step:
    newest = max((_time(score) for one in listed for score in one.scores), default=0.0)
    if not pages:
        return Step("report", "to do", "none")
    more = f" and {len(pages) - 1} more" if len(pages) > 1 else ""
    return Step("report", "begun" if pages[0].stat().st_mtime < newest else "done", f"{pages[0]}{more}")


def _time(score: runs.Score) -> float:
    return (Path(score.folder) / "results.json").stat().st_mtime


def _next(workspace: Path, steps: Sequence[Step], listed: Sequence[runs.ListedRun]) -> str:
    state = {step.command: step.state for step in steps}
    for step in steps[:2]:
        if step.running:
            return f"wait for {step.command}, which is running"
        if step.state == "begun" or (step.state == "to do" and not listed):
            from pipelines.jobs.resume import stored_short_side  # what that loads only this answer needs

            short_side = None
            with contextlib.suppress(StresError, OSError):  # which that command will tell
                short_side = stored_short_side(Workspace(workspace))
            size = [] if short_side is None else ["--short-side", str(short_side)]
            return command_line(workspace, step.command, "VIDEOS", *size)
    if not listed:
        return command_line(workspace, "train", "--split", "1")
    unfinished = next((one for one in listed if one.unfinished), None)
    if unfinished is not None and unfinished == listed[0]:
        if unfinished.training:
            return f"wait for run {unfinished.name}, which is in training: {unfinished.training}"
        if unfinished.diverged:  # as it would again
            return f"run {unfinished.name}: {unfinished.diverged}"
        return command_line(workspace, "train", "--name", shlex.quote(unfinished.name))
    untested = next((one for one in listed if needs_test(one)), None)
    if untested is not None:
        return command_line(workspace, "evaluate", "--run", shlex.quote(untested.name))
    scored = [one for one in listed if one.scores]
    if scored and state["report"] != "done":
        newest = max(scored, key=lambda one: max(map(_time, one.scores)))
        return command_line(workspace, "report", "--run", shlex.quote(newest.name))
    if not scored:
        return command_line(workspace, "train", "--name", shlex.quote(listed[0].name))
    if all(one.origin == IMPORTED for one in listed):
        return command_line(workspace, "extract-frames", "VIDEOS")
    return command_line(workspace, "predict", "VIDEO")
