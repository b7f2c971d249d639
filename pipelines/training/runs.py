"""A run's folder: `runs/<name>/` with its configuration, its split, and the weights that each step left.

`config.json`           network, input, recipe of each step begun, classes, provenance of the flow
`split.json`            ids of the training and test videos
`metrics.jsonl`         one line every few updates
`<step>/checkpoint.pt`  continues an interrupted step;  `<step>/weights.pt`  the finished step
`<step>/best.pt`        its best weights, where videos were held out of training
"""

import contextlib
import hashlib
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.datasets.split_lists import Split, read_lists
from pipelines.datasets.video_names import spelled_as
from pipelines.errors import MissingError, UsageError
from pipelines.interface.options import BOTH_STREAMS, CheckpointName, StreamName, command_line
from pipelines.interface.wording import first_line, plural
from pipelines.storage.atomic import locked, read_json, storage_errors, write_json
from pipelines.storage.provenance import same_origin
from pipelines.storage.typed_json import first_difference
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.metrics_log import divergence
from pipelines.training.recipes import STEPS, Step
from pipelines.training.run_config import BaseRun, RunConfig, checked_split, config_difference, without_flow

if TYPE_CHECKING:
    from pipelines.models import STResNet
    from pipelines.training.data import TrainingData

LATE_FUSION = "late"  # both base streams side by side, their logits averaged
SPLIT_FIELD = "{split}"  # stands for the split's number where runs of several splits are named
DEFAULT_RUNS = f"split{SPLIT_FIELD}"
ALL_SPLITS = "all"


@dataclass(frozen=True)
class Run:
    """A run that has begun."""

    folder: Path
    checkpoint: CheckpointName = "last"
    """Which weights of a finished step its methods are about."""

    @property
    def name(self) -> str:
        return self.folder.name

    def lies_in(self, workspace: Workspace) -> bool:
        """Whether it is one of the workspace's, and so known there by its name."""
        return self.folder.resolve().parent == workspace.runs.resolve()

    @property
    def config_file(self) -> Path:
        return self.folder / "config.json"

    @property
    def split_file(self) -> Path:
        return self.folder / "split.json"

    def checkpoint_file(self, step: str) -> Path:
        return self.folder / step / "checkpoint.pt"

    def weights_file(self, step: str) -> Path:
        return self.folder / step / ("weights.pt" if self.checkpoint == "last" else "best.pt")

    def weights_sha256(self, step: str) -> str:
        """SHA-256 of the file that the finished `step` left; of both streams' files, end to end, for `late`."""
        digest = hashlib.sha256()
        for name in ("appearance", "motion") if step == LATE_FUSION else (step,):
            digest.update(self.weights_file(name).read_bytes())
        return digest.hexdigest()

    def weights(self, step: str) -> dict[str, Any]:
        """What the finished `step` left. Raises `MissingError` where it is absent, damaged, or was trained with another
        configuration than the run's: a file of another run. Weights of stres 0.1 do not tell theirs."""
        from pipelines.training.checkpoints import WEIGHTS_SCHEMA, load

        content = load(self.weights_file(step), WEIGHTS_SCHEMA)
        trained = content.get("configuration")
        if isinstance(trained, dict):
            config = self.config()
            here = replace(config, steps={name: of for name, of in config.steps.items() if name == step}).to_json()
            if not trained.get("flow"):  # of the appearance stream; the run may have got its flow since
                trained = without_flow(trained)
            difference = config_difference(trained, {name: here.get(name) for name in trained})
            if difference:
                raise MissingError(
                    f"{self.weights_file(step)} is of another run: {difference}; put the right file in its place, or "
                    "delete it and train the step again"
                )
        return content

    def config(self) -> RunConfig:
        """The run's configuration. Raises `MissingError` where it is absent, damaged or lacks what a run needs."""
        return RunConfig.from_json(read_json(self.config_file), self.config_file)

    def split(self) -> Split:
        """The split that the run was trained on. Raises `MissingError`."""
        return checked_split(read_json(self.split_file), self.split_file)

    def sources(self) -> dict[str, str]:
        """The origin (`origin_of`) of each video when the run was begun, by the video's id; none of those that were
        not stored then, and of runs of stres 0.1. Raises `MissingError`."""
        document = read_json(self.split_file)
        sources = document.get("sources", {}) if isinstance(document, dict) else {}
        return {str(id_): str(sha256) for id_, sha256 in sources.items()} if isinstance(sources, dict) else {}

    def sources_of(self, ids: Iterable[str]) -> dict[str, str]:
        """`sources`, of those of these videos that it has, by the ids given: upper and lower case alike where that is
        unambiguous. Raises `MissingError`."""
        sources = self.sources()
        spelled = spelled_as(sources)
        return {id_: sources[name] for id_ in ids if (name := spelled(id_)) is not None}

    def held_out(self) -> list[str] | None:
        """The ids of the videos held out of training; None of runs that do not tell. Raises `MissingError`."""
        document = read_json(self.split_file)
        ids = document.get("validation") if isinstance(document, dict) else None
        return [str(id_) for id_ in ids] if isinstance(ids, list) else None

    def trained_on(self) -> set[str]:
        """The ids of the videos that it learns from. Raises `MissingError`."""
        return {*self.split().train} - {*(self.held_out() or ())}

    def finished(self) -> list[str]:
        """The steps that are done, in the order of training."""
        return [step for step in STEPS if self.weights_file(step).exists()]

    def unfinished(self) -> list[str]:
        """The steps that it was asked for and has not finished, in the order of training."""
        try:
            asked = self.config().steps
        except MissingError:  # whoever reads more of the run says so
            return []
        return [step for step in STEPS if step in asked and not self.weights_file(step).exists()]

    def testable(self) -> list[str]:
        """What can be evaluated: finished steps, and `late` where both base streams are there. The last of them is what
        is used where none is asked for, so the student is the first."""
        finished = self.finished()
        student = ["student"] if "student" in finished else []
        finished = [step for step in finished if step != "student"]
        both = {"appearance", "motion"} <= set(finished)
        return [*student, *finished[:2], LATE_FUSION, *finished[2:]] if both else [*student, *finished]

    def choose(self, step: str | None) -> str:
        """`step` if it can be evaluated; without one the last of `testable()`. Raises `MissingError`, `UsageError`."""
        testable = self.testable()
        if not testable:
            told = divergence(self.folder, self.unfinished())  # as it would again
            command = command_line(self.folder.parent.parent, "train", "--name", shlex.quote(self.name))
            raise MissingError(f"run {self.name} has no finished step: {told or f'continue it with `{command}`'}")
        if step is None:
            return testable[-1]
        if step not in (*STEPS, LATE_FUSION):
            raise UsageError(f"--network {step!r} is not known: give one of {', '.join((*STEPS, LATE_FUSION))}")
        if step not in testable:
            raise MissingError(f"run {self.name} has not finished {step!r}; it has {', '.join(testable)}")
        return step


@dataclass(frozen=True)
class StepResult:
    """What one step came to."""

    step: str
    iterations: int
    """Updates."""
    seconds: float
    metrics: dict[str, float]
    """The means over its last `updates`, of so many `videos`, and as `validation_...` what was last measured on videos
    held out; of a step that stres 0.1 trained, its last log line."""
    already_done: bool
    """By an earlier call."""
    best: dict[str, float] = field(default_factory=dict)
    """Of the best weights: the number of their `iterations`, and what was measured on the videos held out."""
    finding: str = ""
    """That it did not learn, or overfits, and what to change; empty if neither, or if it was already done."""


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


@dataclass(frozen=True)
class Chosen:
    """A run and which of its networks to use."""

    run: Run
    step: str
    warning: str = ""
    """What to tell where it is not what one would expect without looking: an unfinished run."""


def choose_run(workspace: Workspace, name: str | None, step: str | None, checkpoint: CheckpointName = "last") -> Chosen:
    """The run that `name` names (`find_run`), without a name the newest whose steps are all trained; and its network
    `step`, without a step the last, with the weights of that `checkpoint`. Raises `MissingError`, `UsageError`.

    Where no run is finished, the newest with a step to use.
    """
    chosen = _choose_run(workspace, name, step)
    run = replace(chosen.run, checkpoint=checkpoint)
    if chosen.step not in run.testable():
        raise MissingError(
            f"--checkpoint {checkpoint}: run {run.name} has no best weights of {chosen.step}, since no videos were "
            "held out of its training (--validation); leave --checkpoint out"
        )
    return replace(chosen, run=run)


def _choose_run(workspace: Workspace, name: str | None, step: str | None) -> Chosen:
    if name is not None:
        run = find_run(workspace, name)
        chosen, steps = run.choose(step), run.unfinished()
        told = f"run {run.name} is unfinished ({', '.join(steps)} still to be trained): its step {chosen} is used"
        return Chosen(run, chosen, f"warning: {told}" if steps else "")
    runs = _require_runs(workspace)
    newest = runs[0]
    finished = next((run for run in runs if run.finished() and not run.unfinished()), None)
    run = finished or next((run for run in runs if run.testable()), newest)
    chosen = run.choose(step)
    if finished is None:
        told = f"no run is finished: step {chosen} of run {run.name} is used"
        return Chosen(run, chosen, f"warning: {told}, of which {', '.join(run.unfinished())} is still to be trained")
    if run == newest:
        return Chosen(run, chosen)
    left = ", ".join(newest.unfinished())
    told = f"run {newest.name}, the newest, is unfinished ({left or 'no step'} still to be trained)"
    instead = f"{run.name}, the newest finished run, is used instead; --run {newest.name} takes the other"
    return Chosen(run, chosen, f"warning: {told}: {instead}")


def find_run(workspace: Workspace, name: str) -> Run:
    """The run of that name in the workspace, else the one whose folder `name` is, wherever it lies. Raises
    `MissingError` naming those there are."""
    run = run_at(workspace, name)
    if run is None:
        place = Path(os.path.abspath(name))
        above = next((folder for folder in place.parents if (folder / "config.json").is_file()), None)
        there = f"there are {names_of_runs(workspace) or 'none'}"
        raise MissingError(
            f"there is no run {name!r} in {workspace.runs}, and no folder of a run at {place}: "
            + (f"did you mean {above}, the folder that it is in?" if above else there)
        )
    return run


def names_of_runs(workspace: Workspace) -> str:
    """The names of all runs of the workspace, for messages."""
    return ", ".join(sorted(file.parent.name for file in workspace.runs.glob("*/config.json")))


def names_splits(workspace: Workspace, name: str | None) -> bool:
    """Whether `--run NAME` means the runs of all splits: `all`, unless a run is called so, or a name with `{split}`."""
    return name is not None and (SPLIT_FIELD in name or (name == ALL_SPLITS and run_at(workspace, name) is None))


def runs_of_splits(workspace: Workspace, name: str) -> dict[int, Run]:
    """The runs that such a name means, by the number of their split. Raises `MissingError` where there are none."""
    pattern = DEFAULT_RUNS if name == ALL_SPLITS else name
    runs = {run.name: run for run in _require_runs(workspace)}
    found = {number: runs[pattern.replace(SPLIT_FIELD, str(number))] for number in split_numbers(runs, pattern)}
    if not found:
        raise MissingError(
            f"there is no run {pattern} in {workspace.runs}: there are {', '.join(sorted(runs))}; train those of all "
            f"splits by `stres train --split all`, or put {SPLIT_FIELD} in the place of the split's number in --run"
        )
    return found


def split_numbers(names: Iterable[str], pattern: str) -> list[int]:
    """The numbers that stand for `{split}` in those of the names that follow the pattern, sorted."""
    before, _, after = pattern.partition(SPLIT_FIELD)
    parts = {name: name.removeprefix(before).removesuffix(after.replace(SPLIT_FIELD, "")) for name in names}
    return sorted(
        int(part) for name, part in parts.items() if part.isdecimal() and pattern.replace(SPLIT_FIELD, part) == name
    )


def splits_left_out(workspace: Workspace, set_name: str, numbers: Collection[int]) -> list[int]:
    """The splits of a set that are not among these numbers."""
    from pipelines.datasets.splits import sets_of_splits

    folder = sets_of_splits(workspace).get(set_name)
    return [split.number for split in read_lists(folder) if split.number not in numbers] if folder else []


def run_at(workspace: Workspace, name: str) -> Run | None:
    """The one rule by which every option names a run: by its name in the workspace, or by its folder."""
    if not name:
        return None
    named = [workspace.runs / name] if is_plain_name(name) else []
    for folder in (*named, Path(os.path.abspath(name))):
        if (folder / "config.json").is_file():
            return Run(folder)
    return None


def _require_runs(workspace: Workspace) -> list[Run]:
    """The workspace's, the newest first. Raises `MissingError` where there is none."""
    workspace.require()
    files = sorted(workspace.runs.glob("*/config.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    if not files:
        raise MissingError(f"there is no run in {workspace.runs}: train one with `stres train --split 1`")
    return [Run(file.parent) for file in files]


def scores_folder(workspace: Workspace, run: Run) -> Path:
    """Where the scores of `run` lie, a folder for each protocol: under its name. For a run that lies elsewhere, where
    the name is that of a run here or of scores of yet another, the hash of its folder's path is added."""
    folder, own = run.folder.resolve(), workspace.scores / run.name
    if run.lies_in(workspace):
        return own
    origins = {_run_folder(file) for file in own.glob("*/results.json")}
    if not (workspace.runs / run.name).exists() and origins <= {str(folder)}:
        return own
    return _apart(own, str(folder))


def make_way(workspace: Workspace, run: Run) -> None:
    """Moves the scores of runs elsewhere that lie under the name of a run of the workspace to where `scores_folder` now
    has them: they were made before the workspace had a run of that name. Raises `StorageError`."""
    own = workspace.scores / run.name
    if not run.lies_in(workspace):
        return
    for file in sorted(own.glob("*/results.json")):
        if folder := _run_folder(file):
            place = _apart(own, folder) / file.parent.name
            with storage_errors(place):
                place.parent.mkdir(exist_ok=True)
                if not place.exists():
                    file.parent.rename(place)


def _apart(scores: Path, run_folder: str) -> Path:
    return scores.with_name(f"{scores.name}-{hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:8]}")


def _run_folder(results: Path) -> str | None:
    """The folder of the run that was tested, of a run that lay elsewhere."""
    try:
        document = read_json(results)
    except MissingError:
        return None
    return document.get("run_folder") if isinstance(document, dict) else None


def outdated(workspace: Workspace, scores: Path, attributes: Mapping[str, Any]) -> str:
    """Why the scores in `scores/<run>/<protocol>/`, with these attributes, are not of the run that has their name now;
    empty where they are, or where that cannot be known."""
    checkpoint: CheckpointName = "best" if attributes.get("checkpoint") == "best" else "last"
    run, step = Run(workspace.runs / scores.parent.name, checkpoint), attributes.get("step")
    if not run.config_file.exists() or "weights_sha256" not in attributes:
        return ""
    if step in run.testable():
        same = run.weights_sha256(str(step)) == attributes["weights_sha256"]
    else:  # its weights are gone, or are still to come
        same = run.config_file.stat().st_mtime_ns <= (scores / "scores.h5").stat().st_mtime_ns
    if not same and "run_folder" in attributes:
        return f"they are of the run in {attributes['run_folder']}, which had its name before"
    return "" if same else f"they were made with other weights than run {run.name} has now"


def recipe_of(config: RunConfig, step: str) -> Step:
    """How `step` was trained; of late fusion, the motion stream. Raises `MissingError` where `config` does not say."""
    name = "motion" if step == LATE_FUSION else step
    trained = {str(key): value.step for key, value in config.steps.items()}
    if name not in trained:
        raise MissingError(f"the run's config.json does not tell how {name} was trained: restore it, or train it again")
    return trained[name]


def streams_of(config: RunConfig, step: str) -> tuple[StreamName, ...]:
    """The streams of the network that `step` left. Raises `MissingError` as `recipe_of`."""
    return BOTH_STREAMS if step == LATE_FUSION else recipe_of(config, step).streams


def trained_with_mirrors(config: RunConfig, step: str) -> bool:
    """Whether `step` saw mirrored samples; of late fusion, both streams. Raises `MissingError` as `recipe_of`."""
    if step == LATE_FUSION:
        return all(recipe_of(config, stream).mirrors for stream in ("appearance", "motion"))
    return recipe_of(config, step).mirrors


def load_network(run: Run, step: str) -> "STResNet":
    """The network that `step` left (`late`: both base streams without connection), in evaluation mode, on the CPU.

    Raises `MissingError` where the weights are absent or damaged, or are of another network than they say.
    """
    from pipelines.models import load_streams
    from pipelines.storage.tensor_file import TensorFileError

    names = ("appearance", "motion") if step == LATE_FUSION else (step,)
    parts = [run.weights(name) for name in names]
    try:
        settings = parts[0]["network"] | ({"streams": names} if step == LATE_FUSION else {})
        network = _built(settings, [part["model"] for part in parts])
        classes = len(run.config().classes)
        if network.num_classes != classes:
            raise ValueError(f"it knows {plural(network.num_classes, 'class')}, config.json {classes}")
        for part in parts:
            if step == LATE_FUSION:
                load_streams(network, part["model"])
            else:
                network.load_state_dict(part["model"])
    except (UsageError, TensorFileError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        why = f"holds no network that it describes ({first_line(error)}): train the step again"
        raise MissingError(f"{run.weights_file(names[0])} {why}") from error
    return network.eval()


def _built(settings: dict[str, Any], states: Sequence[Any]) -> "STResNet":
    """The network of these settings, if it is no larger than the tensors that are to fill it: what a file only claims
    takes no memory."""
    import torch

    from pipelines.models import STResNet
    from pipelines.storage.tensor_file import require_tensors

    given = sum(value.numel() for state in states for value in require_tensors(state, "the model").values())
    with torch.device("meta"):
        claimed = sum(parameter.numel() for parameter in STResNet(**settings).parameters())
    if claimed > given:
        raise ValueError(f"its network has {claimed} weights, the file {given} numbers")
    return STResNet(**settings)


def write_or_compare(run: Run, config: RunConfig, data: "TrainingData", *, write: bool = True) -> None:
    """Writes `config.json` and `split.json` of a new run; of an old one checks that this continues it.

    `config` has only the steps of this call, which a run collects. Without `write` it only checks. Raises `UsageError`
    naming the first difference.
    """
    held_out = [video.id for video in data.validation]
    if not run.config_file.exists():
        if write:
            write_json(run.split_file, asdict(data.split) | {"sources": data.sources, "validation": held_out})
            write_json(run.config_file, config.to_json())
        return
    old = known = run.config()
    # The appearance stream needs no flow, so a run of it may have been begun before there was any, or go on without.
    if config.flow is None and old.flow is not None and not _need_flow(config):
        config = replace(config, flow=old.flow, frames_short_side=None)
    elif old.flow is None and config.flow is not None and not _need_flow(old):
        old = replace(old, flow=config.flow, frames_short_side=None)
    steps = {**old.steps, **config.steps}
    difference = replace(old, steps={**steps, **old.steps}).first_difference(replace(config, steps=steps))
    if difference:
        if old.recipe != config.recipe:  # which decides much else
            difference = f"recipe was {old.recipe} and is now {config.recipe}"
        if old.validation != config.validation:  # which changes the videos trained on, too
            difference = f"validation was {old.validation} and is now {config.validation}"
        of_split = [(one.split, one.split_set, one.excluded_classes, one.validation) for one in (old, config)]
        if of_split[0] == of_split[1] and old.split_sha256 != config.split_sha256:
            raise UsageError(
                f"run {run.name} was begun with other lists of split {config.split} than there are now, as where "
                f"--overwrite made them again ({difference}): give another --name, or --overwrite to start over"
            )
        other_videos = difference.startswith("train_videos")
        alone = command_line(run.folder.parent.parent, "train", "--name", shlex.quote(run.name))
        same = "extract again what is missing of its videos"
        same = same if other_videos else f"give the same options, or none as in `{alone}`,"
        raise UsageError(
            f"run {run.name} was begun with another configuration: {difference}; {same} to continue it, "
            "another --name, or --overwrite to start over"
        )
    if replaced := other_sources(run, data.sources):
        raise UsageError(
            f"run {run.name} was begun with other videos: {replaced}; restore them and extract them again to continue "
            "it, another --name, or --overwrite to start over"
        )
    new = replace(old, steps=steps)
    if write and (steps.keys() != old.steps.keys() or new.flow != known.flow):
        write_json(run.config_file, new.to_json())
    if write and held_out and run.held_out() is None:  # begun by a version that did not note them
        write_json(run.split_file, read_json(run.split_file) | {"validation": held_out})


def _need_flow(config: RunConfig) -> bool:
    return any("motion" in each.step.inputs for each in config.steps.values())


def with_known_weights(run: Run, old: RunConfig, config: RunConfig) -> RunConfig:
    """`config` with the hash of the weights file that `run` was begun with, by its configuration `old`.

    Raises `UsageError` where that file has other content now. Runs of stres 0.1 do not tell it, and a file that is gone
    is asked for only where a step needs it.
    """
    known, found = old.weights_sha256, config.weights_sha256
    if old.weights == config.weights and known and found not in ("", known):
        raise UsageError(
            f"run {run.name} was begun with other content of --weights {config.weights} (its SHA-256 differs): put the "
            "file back as it was to continue the run, or give another --name, or --overwrite to start over"
        )
    return replace(config, weights_sha256=known)


def other_sources(run: Run, sources: Mapping[str, str]) -> str:
    """In words, which of these videos are no longer what they were when the run was begun; empty where none is."""
    before = run.sources_of(sources)
    replaced = [id_ for id_, origin in before.items() if not same_origin(origin, sources[id_])]
    if not replaced:
        return ""
    count = f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
    if before[replaced[0]].partition("+")[0] == sources[replaced[0]].partition("+")[0]:
        return f"the flow stored as {replaced[0]}{count} was imported from other pictures than it is now"
    return f"what is stored as {replaced[0]}{count} comes from another video now (its SHA-256 differs)"


_ARCHIVED = ".old"


def is_archived(name: str) -> bool:
    """Whether a run's name is one that `archive` gives."""
    _, mark, number = name.rpartition(_ARCHIVED)
    return bool(mark) and number.isdecimal()


def archive(workspace: Workspace, run: Run) -> None:
    """Moves the run aside, and with it its scores: they must not pass for those of a new run of that name."""
    folders = [run.folder, workspace.scores / run.name]
    if not any(folder.exists() for folder in folders):
        return
    with only_trainer(run), storage_errors(run.folder):
        names = (f"{run.name}{_ARCHIVED}{number}" for number in range(1, 10_000))
        free = next(name for name in names if not any(folder.with_name(name).exists() for folder in folders))
        for folder in folders:
            if folder.exists():
                folder.rename(folder.with_name(free))


def describe_base(base: Run, config: RunConfig, sources: Mapping[str, str]) -> BaseRun:
    """Name and weights of the run whose streams another run's joint1 starts from.

    Raises `UsageError` where it was trained on other videos, classes, flow or input: its streams may have seen what
    this run is tested on, or mean something else by their inputs and outputs.
    """
    old, new = base.config().to_json(), config.to_json()
    for name in ("classes", "split_sha256", "train_videos", "flow", "size"):
        difference = first_difference(old[name], new[name], name)
        if difference:
            raise UsageError(f"--base-run {base.name} does not fit this run: {difference}; give one of the same split")
    if replaced := other_sources(base, sources):
        raise UsageError(f"--base-run {base.name} was trained on other videos: {replaced}; train its streams again")
    streams = [step for step in STEPS[:2] if base.weights_file(step).exists()]
    return BaseRun(base.name, {step: base.weights_sha256(step) for step in streams})
