"""Finding and loading what `evaluate` left: `scores/<run>/<protocol>/scores.h5` with its `results.json`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scores import SCORES_SCHEMA, Scores, read_scores
from pipelines.storage.atomic import read_json
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.training.recipes import STEPS
from pipelines.training.runs import LATE_FUSION, Run, outdated, run_at, scores_folder
from pipelines.wording import plural
from pipelines.workspace import Workspace, is_plain_name

SPLIT_FIELD = "{split}"
DEFAULT_RUNS = f"split{SPLIT_FIELD}"


@dataclass(frozen=True)
class Evaluation:
    """One run evaluated under one protocol: its scores, and where they come from.

    `unscored`: the split's test videos that were missing or failed; `excluded`: classes that the run left out.
    `test_set`: in words, what was tested where that is another data set than the run's split.
    """

    run: str
    protocol_name: str
    split: int
    protocol: dict[str, Any]
    scores: Scores
    attributes: dict[str, Any]
    unscored: list[str]
    excluded: list[str]
    folder: Path
    test_set: str = ""


def find_evaluations(
    workspace: Workspace,
    run: str | None,
    protocol: str | None,
    splits: Sequence[int],
    tell: Callable[[str], None] = lambda text: None,
) -> list[Evaluation]:
    """The one evaluation asked for, or with `splits` one of each split.

    Without `run` that of the newest finished run; without `protocol` the paper's on the run's last step, else the
    newest. With `splits`, `run` is a pattern that holds `{split}`, and the protocol is one that every run was evaluated
    under. `tell` is given a sentence where what is taken is not the headline of a finished run. Raises `MissingError`
    where something was not evaluated, `ArtifactError` where its files are damaged, `UsageError` where several splits
    cannot be averaged.
    """
    workspace.require()
    if not splits:
        elsewhere = run_at(workspace, run) if run and not is_plain_name(run) else None
        if elsewhere is not None:
            run = scores_folder(workspace, elsewhere).name
        of_run = _evaluated(workspace, run or "*", protocol)
        if run is None:
            of_run = _of_newest_run(workspace, of_run, tell)
        else:
            _tell_unfinished(workspace, run, tell)
        return [load_evaluation(_headline(workspace, of_run, tell))]
    runs = [(run or DEFAULT_RUNS).replace(SPLIT_FIELD, str(split)) for split in splits]
    folders = {name: _evaluated(workspace, name, protocol) for name in runs}
    common = set.intersection(*({folder.name for folder in found} for found in folders.values()))
    if not common:
        have = "; ".join(f"{name}: {_names(found)}" for name, found in folders.items())
        raise MissingError(f"the runs share no protocol ({have}): run `stres evaluate` with the same settings for each")
    for name in runs:
        _tell_unfinished(workspace, name, tell)
    chosen = _headline(workspace, [f for found in folders.values() for f in found if f.name in common], tell).name
    evaluations = [load_evaluation(workspace.scores / name / chosen) for name in runs]
    _check_comparable(evaluations, splits)
    return evaluations


def find_compared(workspace: Workspace, compare: str, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """For each of `evaluations` the one to compare it with: `RUN`, `RUN/STEP` or `RUN/PROTOCOL`.

    Of several splits RUN is a pattern that holds `{split}`. Without a protocol it is that of `evaluations`, else the
    newest; with a step that protocol of the step. Raises `MissingError` where something was not evaluated, `UsageError`
    where that would compare an evaluation with itself or protocols of different splits differ.
    """
    run, _, what = compare.partition("/")
    found = [load_evaluation(_compared_folder(workspace, run, what, evaluation)) for evaluation in evaluations]
    if found[0].folder == evaluations[0].folder:
        raise UsageError(
            f"--compare {compare} is the very evaluation that is reported: name another run, or a step or protocol of "
            f"this one behind a slash, as in --compare {run}/late"
        )
    _check_comparable(found, [evaluation.split for evaluation in evaluations], flag="--compare")
    return found


def _compared_folder(workspace: Workspace, run: str, what: str, evaluation: Evaluation) -> Path:
    folders = _evaluated(workspace, run.replace(SPLIT_FIELD, str(evaluation.split)), None)
    by_name = {folder.name: folder for folder in folders}
    if not what:
        return by_name.get(evaluation.protocol_name) or _newest(folders)
    same_settings = f"{what}-{evaluation.protocol_name.partition('-')[2]}"
    of_step = [folder for folder in folders if folder.name.startswith(f"{what}-")]
    chosen = by_name.get(what) or by_name.get(same_settings) or (_newest(of_step) if of_step else None)
    if chosen is None:
        raise MissingError(
            f"run {folders[0].parent.name} has not been evaluated under a step or protocol {what!r}, only under "
            f"{_names(folders)}: name one of these, or run `stres evaluate` with other settings"
        )
    return chosen


def _evaluated(workspace: Workspace, run: str, protocol: str | None) -> list[Path]:
    """Folders `scores/<run>/<protocol>` that hold a whole evaluation; at least one. Raises `MissingError`."""
    every = [folder for folder in sorted(workspace.scores.glob("*/*")) if (folder / "results.json").is_file()]
    of_run = [folder for folder in every if run in ("*", folder.parent.name)]
    if not of_run:
        which = "nothing" if run == "*" else f"run {run!r}"
        have = f", only {', '.join(sorted({folder.parent.name for folder in every}))}" if every else ""
        what = "nothing has been evaluated" if run == "*" else f"{which} has not been evaluated"
        raise MissingError(f"{what} in {workspace.scores}{have}: run `stres evaluate` first")
    found = [folder for folder in of_run if protocol in (None, folder.name)]
    if not found:
        raise MissingError(
            f"run {_names_of_runs(of_run)} has not been evaluated under the protocol {protocol!r}, only under "
            f"{_names(of_run)}: name one of these, or run `stres evaluate` with other settings"
        )
    return found


def _of_newest_run(workspace: Workspace, folders: Sequence[Path], tell: Callable[[str], None]) -> list[Path]:
    """Those of the newest run that is finished; scores without their run count as finished, as old as their files."""
    by_run: dict[str, list[Path]] = {}
    for folder in folders:
        by_run.setdefault(folder.parent.name, []).append(folder)
    names = sorted(by_run, key=lambda name: _age(workspace, name, by_run[name]), reverse=True)
    finished = [name for name in names if not Run(workspace.runs / name).unfinished()]
    if not finished:
        _tell_unfinished(workspace, names[0], tell)
        return by_run[names[0]]
    if finished[0] != names[0]:
        left = ", ".join(Run(workspace.runs / names[0]).unfinished())
        tell(
            f"warning: run {names[0]}, the newest evaluated, is unfinished ({left} still to be trained): "
            f"{finished[0]}, the newest finished one, is reported instead; --run {names[0]} takes the other"
        )
    return by_run[finished[0]]


def _age(workspace: Workspace, name: str, folders: Sequence[Path]) -> int:
    config = Run(workspace.runs / name).config_file
    files = [config] if config.is_file() else [folder / "results.json" for folder in folders]
    return max(file.stat().st_mtime_ns for file in files)


def _tell_unfinished(workspace: Workspace, name: str, tell: Callable[[str], None]) -> None:
    left = Run(workspace.runs / name).unfinished()
    if left:
        steps = ", ".join(left)
        tell(f"warning: run {name} is unfinished ({steps} still to be trained): its scores are of earlier steps")


def _headline(workspace: Workspace, folders: Sequence[Path], tell: Callable[[str], None]) -> Path:
    """The paper's protocol on the last step that was tested so, else the newest."""
    by_name = {folder.name: folder for folder in folders}
    order = (*reversed(STEPS[2:]), LATE_FUSION, *reversed(STEPS[:2]))
    of_paper = next((step for step in order if Protocol.of_paper(step).name in by_name), None)
    chosen = by_name[Protocol.of_paper(of_paper).name] if of_paper else _newest(folders)
    testable = Run(workspace.runs / chosen.parent.name).testable()
    if testable and Protocol.of_paper(testable[-1]).name != chosen.name and len(folders) > 1:
        tell(
            f"warning: run {chosen.parent.name} has no evaluation of its last step, {testable[-1]}, by the paper's "
            f"protocol: {chosen.name} is reported; --protocol names another of {_names(folders)}"
        )
    return chosen


def _newest(folders: Sequence[Path]) -> Path:
    return max(folders, key=lambda folder: (folder / "results.json").stat().st_mtime_ns)


def _names(folders: Sequence[Path]) -> str:
    return ", ".join(sorted({folder.name for folder in folders}))


def _names_of_runs(folders: Sequence[Path]) -> str:
    return ", ".join(sorted({folder.parent.name for folder in folders}))


def load_evaluation(folder: Path) -> Evaluation:
    """What `evaluate` left in `scores/<run>/<protocol>/`. Raises `MissingError` where it is damaged or incomplete."""
    scores = read_scores(folder / "scores.h5")
    document = read_json(folder / "results.json")
    try:
        protocol, split, videos = dict(document["protocol"]), int(document["split"]), document["videos"]
        unscored = [*document.get("missing", []), *document.get("failed", [])]
        excluded = [str(name) for name in document.get("excluded_classes", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder / 'results.json'} lacks a usable field {error}: run `stres evaluate` again"
        ) from error
    if videos != len(scores.videos):
        raise ArtifactError(
            f"{folder} holds scores of {plural(len(scores.videos), 'video')}, but its results.json tells of {videos}: "
            "run `stres evaluate` again"
        )
    attributes = peek(folder / "scores.h5", SCORES_SCHEMA)
    test_set = _test_set(document)
    names = folder.parent.name, folder.name
    return Evaluation(*names, split, protocol, scores, attributes, unscored, excluded, folder, test_set)


def _test_set(document: dict[str, Any]) -> str:
    if document.get("dataset") != "other":
        return ""
    text = "tested on another data set than the run's split: all labelled videos of the workspace"
    left_out = document.get("left_out")
    if not isinstance(left_out, dict) or not left_out:
        return text
    unknown = plural(len(left_out), "class", "classes")
    return f"{text} but those of {unknown} that the run does not know ({', '.join(map(str, left_out))})"


def require_current(workspace: Workspace, evaluations: Sequence[Evaluation]) -> None:
    """Raises `MissingError` where scores are not of the run that has their name now."""
    for evaluation in evaluations:
        if reason := outdated(workspace, evaluation.folder, evaluation.attributes):
            raise MissingError(
                f"the scores in {evaluation.folder} are of an earlier run {evaluation.run}: {reason}; run `stres "
                f"evaluate --run {evaluation.run}` with the same settings, or delete that folder"
            )


def _check_comparable(evaluations: Sequence[Evaluation], splits: Sequence[int], flag: str = "--splits") -> None:
    first = evaluations[0]
    for evaluation, split in zip(evaluations, splits, strict=True):
        if evaluation.split != split:
            raise UsageError(
                f"{flag} asks for split {split}, but run {evaluation.run!r} is of split {evaluation.split}: "
                f"name the runs with {SPLIT_FIELD} in the place of the split, as in split{SPLIT_FIELD}"
            )
        for what, one, other in (
            ("classes", first.scores.classes, evaluation.scores.classes),
            ("protocols", first.protocol, evaluation.protocol),
            ("streams", list(first.scores.streams), list(evaluation.scores.streams)),
        ):
            if one != other:
                raise UsageError(
                    f"runs {first.run!r} and {evaluation.run!r} differ in their {what} and have no common mean: "
                    "evaluate both with the same settings, or report them one by one with --run"
                )
