"""Finding and loading what `evaluate` left: `scores/<run>/<protocol>/scores.h5` with its `results.json`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.fusion_weight import ChosenWeight, chosen_in
from pipelines.evaluation.headline import headline, newest
from pipelines.evaluation.protocols import IMPORTED
from pipelines.evaluation.scores import SCORES_SCHEMA, Scores, read_scores
from pipelines.interface.options import EQUAL_WEIGHTS, HELD_OUT, Space
from pipelines.interface.wording import plural, some
from pipelines.storage.atomic import read_json
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.runs import (
    ALL_SPLITS,
    DEFAULT_RUNS,
    SPLIT_FIELD,
    Run,
    outdated,
    run_at,
    scores_folder,
    split_numbers,
)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class SavedEvaluation:
    """One run evaluated under one protocol: its scores, and where they come from."""

    run: str
    protocol_name: str
    split: int
    protocol: dict[str, Any]
    scores: Scores
    attributes: dict[str, Any]
    """Those of `scores.h5`."""
    unscored: list[str]
    """Test videos of the split that were missing or failed."""
    excluded: list[str]
    """Classes that the run left out."""
    folder: Path
    test_set: str = ""
    """In words, what was tested where that is another data set than the run's split."""
    split_set: str = ""
    """The set of splits that `split` is of; "" for the workspace's first."""
    grouped: bool = True
    """False where the split was made without knowing of groups."""
    chosen_weight: ChosenWeight | None = None
    """That of appearance in the fused stream, where it was chosen on held-out videos."""

    @property
    def fusion(self) -> tuple[float, Space] | None:
        """The weight of appearance in the fused stream, and what was averaged; None where another program fused."""
        if IMPORTED in self.protocol and "fusion_weight" not in self.protocol:
            return None
        space: Space = "softmax" if self.protocol.get("fusion_space") == "softmax" else "logits"
        chosen = self.chosen_weight
        return chosen.weight if chosen else float(self.protocol.get("fusion_weight", EQUAL_WEIGHTS)), space


def find_evaluations(
    workspace: Workspace,
    run: str | None,
    protocol: str | None,
    splits: Sequence[int],
    tell: Tell = lambda text: None,
) -> list[SavedEvaluation]:
    """Finds the evaluations that a report is asked for.

    Args:
        workspace: Where scores and runs lie.
        run: Name or folder of the run; None: the newest finished one. With `splits` a pattern that holds `{split}`.
        protocol: Folder name of the evaluation; None: the paper's on the run's last step, else the newest. With
            `splits` it is one under which every run was evaluated.
        splits: Numbers of the splits to average; none: a single run is reported.
        tell: Is given a sentence where what is taken is not the headline of a finished run.

    Returns:
        One evaluation, or one of each split.

    Raises:
        MissingError: Something was not evaluated.
        ArtifactError: Its files are damaged.
        UsageError: Several splits cannot be averaged.
    """
    workspace.require()
    if not splits:
        elsewhere = run_at(workspace, run) if run and not is_plain_name(run) else None
        if elsewhere is not None:
            run = scores_folder(workspace, elsewhere).name
        folders = _evaluated(workspace, run or "*", protocol)
        if run is None:
            folders = _of_newest_run(workspace, folders, tell)
        else:
            _tell_unfinished(workspace, run, tell)
        return [load_evaluation(headline(workspace, folders, tell))]
    runs = [(run or DEFAULT_RUNS).replace(SPLIT_FIELD, str(split)) for split in splits]
    by_run = {name: _evaluated(workspace, name, protocol) for name in runs}
    common = set.intersection(*({folder.name for folder in folders} for folders in by_run.values()))
    if not common:
        have = "; ".join(f"{name}: {_listed(folders)}" for name, folders in by_run.items())
        raise MissingError(f"the runs share no protocol ({have}): run `stres evaluate` with the same settings for each")
    for name in runs:
        _tell_unfinished(workspace, name, tell)
    shared = [folder for folders in by_run.values() for folder in folders if folder.name in common]
    chosen = headline(workspace, shared, tell).name
    evaluations = [load_evaluation(workspace.scores / name / chosen) for name in runs]
    _check_comparable(evaluations, splits)
    return evaluations


def tested_splits(workspace: Workspace, run: str | None) -> tuple[int, ...]:
    """The splits whose runs were evaluated: of `run`, a name that holds `{split}`. Raises `MissingError` for none."""
    workspace.require()
    names = {folder.parent.name for folder in workspace.scores.glob("*/*") if (folder / "results.json").is_file()}
    numbers = split_numbers(names, run or DEFAULT_RUNS)
    if not numbers:
        have = f", only {', '.join(sorted(names))}" if names else ""
        raise MissingError(
            f"no run {run or DEFAULT_RUNS} has been evaluated in {workspace.scores}{have}: run `stres evaluate --run "
            f"{repr(run) if run else ALL_SPLITS}` first, or name others by --run with {SPLIT_FIELD} for the number"
        )
    return tuple(numbers)


def find_compared(
    workspace: Workspace, compare: str, evaluations: Sequence[SavedEvaluation], flag: str = "--compare"
) -> list[SavedEvaluation]:
    """Finds the evaluations that a report is compared or fused with.

    Args:
        workspace: Where scores lie.
        compare: `RUN`, `RUN/STEP` or `RUN/PROTOCOL`; of several splits RUN is a pattern that holds `{split}`. Without
            a protocol it is that of `evaluations`, else the newest; with a step that protocol of the step.
        evaluations: What is reported.
        flag: The option that named it, for messages.

    Returns:
        One for each of `evaluations`.

    Raises:
        MissingError: Something was not evaluated.
        UsageError: That would compare an evaluation with itself, or protocols of different splits differ.
    """
    run, _, what = compare.partition("/")
    compared = []
    for evaluation in evaluations:
        folders = _evaluated(workspace, run.replace(SPLIT_FIELD, str(evaluation.split)), None)
        by_name = {folder.name: folder for folder in folders}
        chosen: Path | None
        if what:
            same_settings = f"{what}-{evaluation.protocol_name.partition('-')[2]}"
            of_step = [folder for folder in folders if folder.name.startswith(f"{what}-")]
            chosen = by_name.get(what) or by_name.get(same_settings) or (newest(of_step) if of_step else None)
        else:
            chosen = by_name.get(evaluation.protocol_name) or newest(folders)
        if chosen is None:
            raise MissingError(
                f"run {folders[0].parent.name} has not been evaluated under a step or protocol {what!r}, only under "
                f"{_listed(folders)}: name one of these, or run `stres evaluate` with other settings"
            )
        compared.append(load_evaluation(chosen))
    if compared[0].folder == evaluations[0].folder:
        raise UsageError(
            f"{flag} {compare} is the very evaluation that is reported: name another run, or a step or protocol of "
            f"this one behind a slash, as in {flag} {run}/late"
        )
    _check_comparable(compared, [evaluation.split for evaluation in evaluations], flag)
    return compared


def _evaluated(workspace: Workspace, run: str, protocol: str | None) -> list[Path]:
    """Folders `scores/<run>/<protocol>` that hold a whole evaluation; at least one. Raises `MissingError`."""
    every = [folder for folder in sorted(workspace.scores.glob("*/*")) if (folder / "results.json").is_file()]
    of_run = [folder for folder in every if run in ("*", folder.parent.name)]
    if not of_run:
        have = f", only {_listed(folder.parent for folder in every)}" if every else ""
        what = "nothing has been evaluated" if run == "*" else f"run {run!r} has not been evaluated"
        raise MissingError(f"{what} in {workspace.scores}{have}: run `stres evaluate` first")
    folders = [folder for folder in of_run if protocol in (None, folder.name)]
    if not folders:
        runs = _listed(folder.parent for folder in of_run)
        raise MissingError(
            f"run {runs} has not been evaluated under the protocol {protocol!r}, only under {_listed(of_run)}: "
            "name one of these, or run `stres evaluate` with other settings"
        )
    return folders


def _of_newest_run(workspace: Workspace, folders: Sequence[Path], tell: Tell) -> list[Path]:
    """Those of the newest run that is finished; scores without their run count as finished, as old as their files."""
    by_run: dict[str, list[Path]] = {}
    for folder in folders:
        by_run.setdefault(folder.parent.name, []).append(folder)

    def made(name: str) -> int:
        config = Run(workspace.runs / name).config_file
        files = [config] if config.is_file() else [folder / "results.json" for folder in by_run[name]]
        return max(file.stat().st_mtime_ns for file in files)

    newest, *older = sorted(by_run, key=made, reverse=True)
    unfinished = Run(workspace.runs / newest).unfinished()
    if not unfinished:
        return by_run[newest]
    finished = next((name for name in older if not Run(workspace.runs / name).unfinished()), None)
    if finished is None:
        _tell_unfinished(workspace, newest, tell)
        return by_run[newest]
    tell(
        f"warning: run {newest}, the newest evaluated, is unfinished ({', '.join(unfinished)} still to be trained): "
        f"{finished}, the newest finished one, is reported instead; --run {newest} takes the other"
    )
    return by_run[finished]


def _tell_unfinished(workspace: Workspace, name: str, tell: Tell) -> None:
    if left := ", ".join(Run(workspace.runs / name).unfinished()):
        tell(f"warning: run {name} is unfinished ({left} still to be trained): its scores are of earlier steps")


def _listed(folders: Iterable[Path]) -> str:
    return ", ".join(sorted({folder.name for folder in folders}))


def load_evaluation(folder: Path) -> SavedEvaluation:
    """Loads what `evaluate` left in `scores/<run>/<protocol>/`. Raises `ArtifactError` where it is damaged."""
    scores = read_scores(folder / "scores.h5")
    document = read_json(folder / "results.json")
    test_set = ""
    try:
        protocol, split, videos = dict(document["protocol"]), int(document["split"]), document["videos"]
        unscored = [*document.get("missing", []), *document.get("failed", [])]
        excluded = [str(name) for name in document.get("excluded_classes", [])]
        chosen_weight = chosen_in(document) if protocol.get("fusion_weight") == HELD_OUT else None
        if document.get("dataset") == "other":
            test_set = "tested on another data set than the run's split: all labelled videos of the workspace"
            if left_out := [str(name) for name in document.get("left_out", {})]:
                classes = f"{plural(len(left_out), 'class')} that the run does not know ({', '.join(left_out)})"
                test_set = f"{test_set} but those of {classes}"
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder / 'results.json'} lacks a usable field {error}: run `stres evaluate` again"
        ) from error
    if videos != len(scores.videos):
        raise ArtifactError(
            f"{folder} holds scores of {plural(len(scores.videos), 'video')}, but its results.json tells of {videos}: "
            "run `stres evaluate` again"
        )
    return SavedEvaluation(
        run=folder.parent.name,
        protocol_name=folder.name,
        split=split,
        protocol=protocol,
        scores=scores,
        attributes=peek(folder / "scores.h5", SCORES_SCHEMA),
        unscored=unscored,
        excluded=excluded,
        folder=folder,
        test_set=test_set,
        split_set=str(document.get("split_set", "")),
        grouped=document.get("groups") != "none",
        chosen_weight=chosen_weight,
    )


def require_current(workspace: Workspace, evaluations: Sequence[SavedEvaluation]) -> None:
    """Raises `MissingError` where scores are not of the run that has their name now."""
    for evaluation in evaluations:
        if reason := outdated(workspace, evaluation.folder, evaluation.attributes):
            again = f"run `stres evaluate --run {evaluation.run}`"
            then = f"{again} with the same settings, or delete that folder"
            if "run_folder" in evaluation.attributes:
                then = f"{again}, which keeps them, under another name"
            raise MissingError(
                f"the scores in {evaluation.folder} are not of the present run {evaluation.run}: {reason}; {then}"
            )


def _check_comparable(evaluations: Sequence[SavedEvaluation], splits: Sequence[int], flag: str = "--splits") -> None:
    first = evaluations[0]
    for evaluation, split in zip(evaluations, splits, strict=True):
        if evaluation.split != split:
            asks = f"{flag} asks for split {split}, but run {evaluation.run!r} is of split {evaluation.split}"
            if flag != "--splits" and len(splits) == 1:
                raise UsageError(f"{asks}: name a run of the split that is reported")
            raise UsageError(
                f"{asks}: name the runs with {SPLIT_FIELD} in the place of the split, as in split{SPLIT_FIELD}"
            )
        again = "evaluate both with the same settings"
        for what, one, other, instead in (
            ("classes", first.scores.classes, evaluation.scores.classes, _how_to_share_classes(first, evaluation)),
            ("sets of splits", first.split_set, evaluation.split_set, "name runs of one set by --run and --splits"),
            ("protocols", first.protocol, evaluation.protocol, again),
            ("streams", list(first.scores.streams), list(evaluation.scores.streams), again),
        ):
            if one != other:
                raise UsageError(
                    f"runs {first.run!r} and {evaluation.run!r} differ in their {what} and cannot be averaged: "
                    f"{instead}, or report them one by one with --run"
                )


def _how_to_share_classes(one: SavedEvaluation, other: SavedEvaluation) -> str:
    """What to do where two runs that are to be averaged know different classes."""
    more = [
        (each.run, sorted({*each.scores.classes} - {*less.scores.classes}))
        for each, less in ((one, other), (other, one))
    ]
    told = " and ".join(f"{run!r} alone knows {some(names)}" for run, names in more if names)
    return (
        f"{told}; train the runs on the same classes, as by `stres train --exclude-class NAME`, name splits that share "
        "theirs by --splits"
    )
