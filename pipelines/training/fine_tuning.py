"""Starting from another run (`--weights run:NAME[/STEP]`): which of its steps a step begins with, and if that fits.

A base step takes the same stream of the other run; a joint step whose predecessors this run lacks takes the other's
joint step. Everything is kept but the classifiers, and these too where both runs have the same classes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.datasets.video_names import spelled_as
from pipelines.errors import MissingError, UsageError
from pipelines.interface.wording import plural
from pipelines.models import STResNet, load_streams
from pipelines.models.backbones import FORM_UNKNOWN
from pipelines.models.weights import read_backbone
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.provenance import same_origin
from pipelines.storage.workspace import Workspace
from pipelines.training.data import TrainingData
from pipelines.training.recipes import STEPS, StepName
from pipelines.training.run_config import InitialWeights, NetworkConfig, RunConfig
from pipelines.training.runs import Run, names_of_runs, run_at

PREFIX = "run:"
JOINT: tuple[StepName, ...] = ("joint1", "joint2")
# The steps of this run that a step builds on: where it has one of them, it starts from there.
_PREDECESSORS: Mapping[StepName, tuple[StepName, ...]] = {
    "appearance": (),
    "motion": (),
    "joint1": ("appearance", "motion"),
    "joint2": ("joint1",),
    "student": JOINT,
}


@dataclass(frozen=True)
class SourceRun:
    """The run that `--weights` names, and the step where it names one."""

    run: Run
    label: str
    """The run's name, or its path where it lies in another workspace."""
    step: StepName | None = None

    @property
    def text(self) -> str:
        """The option's value, the same for every way to write it."""
        return f"{PREFIX}{self.label}" + (f"/{self.step}" if self.step else "")


@dataclass(frozen=True)
class SourceStep:
    """The step of another run whose weights a step begins with."""

    source: SourceRun
    step: StepName
    sha256: str
    """Of that step's weights file."""
    new_classes: tuple[int, int] | None
    """Number of classes there and here, where they are not the same: the classifiers are new then."""

    def record(self) -> InitialWeights:
        """What the configuration keeps of it, for later calls to compare."""
        return InitialWeights(self.source.label, self.step, self.sha256)

    def described(self, name: StepName) -> str:
        """In words, what the step `name` starts from."""
        text = f"{name} starts from {self.step} of run {self.source.label}"
        if self.new_classes is None:
            return f"{text}, classifiers included: the classes are the same"
        there, here = self.new_classes
        return f"{text}, with new classifiers: the {here} classes here are not the {there} there"

    def fill(self, network: STResNet) -> None:
        """Loads the weights into `network`. Raises `MissingError` where they do not fit."""
        load_streams(network, self.source.run.weights(self.step)["model"], classifiers=self.new_classes is None)


def find_source(weights: str | None, workspace: Workspace) -> SourceRun | None:
    """The run that `weights` names, by its name in `workspace` or by its folder; None where it names none.

    Raises `MissingError` where there is no such run, `UsageError` for an unknown step.
    """
    if weights is None or not weights.startswith(PREFIX):
        return None
    text = weights.removeprefix(PREFIX).rstrip("/")
    run = run_at(workspace, text)
    if run is not None:
        return SourceRun(run, _label(run, workspace))
    head, _, step = text.rpartition("/")
    run = run_at(workspace, head)
    if run is None:
        raise MissingError(
            f"--weights {weights} is neither a run in {workspace.runs} nor a run's folder: in the workspace there are "
            f"{names_of_runs(workspace) or 'no runs at all'}"
        )
    if step not in STEPS:
        raise UsageError(f"--weights {weights}: {step!r} is not a step, give one of {', '.join(STEPS)}")
    return SourceRun(run, _label(run, workspace), step)


def find_source_steps(
    source: SourceRun,
    run: Run,
    finished: Collection[str],
    selected: Sequence[StepName],
    config: RunConfig,
    known: RunConfig | None,
) -> dict[StepName, SourceStep]:
    """Finds which of the steps to train begin with another run's weights, and with which.

    Args:
        finished: The steps that `run` has already, or has from its base run.
        config: What `run` is to become.
        known: The run's configuration, where it was begun: a step that began so stays so, whatever was trained since.

    Raises:
        UsageError: A step cannot begin with what `source` names.
        MissingError: The other run has not finished that step.
    """
    if source.run.folder.resolve() == run.folder.resolve():
        raise UsageError(f"--weights {source.text} is the run to be trained: give the new one another --name")
    own = {*finished, *selected}
    found = {}
    for name in selected:
        begun = known.steps.get(name) if known else None
        if own.isdisjoint(_PREDECESSORS[name]) or (begun and begun.weights):
            step = _source_step(source, name)
            _require_fit(source, step, name, config.network)
            there, here = source.run.config().classes, config.classes
            new_classes = None if there == here else (len(there), len(here))
            found[name] = SourceStep(source, step, source.run.weights_sha256(step), new_classes)
    return found


def require_predecessors(
    run: Run, base: Run, finished: Collection[str], selected: Sequence[StepName], sources: Collection[StepName]
) -> None:
    """Raises `MissingError` where a joint step would start from one that is neither there nor trained before it.

    Args:
        base: The run whose streams joint1 starts from, or `run` itself.
        finished: The steps that `run` has already.
        sources: The steps that begin with the weights of `--weights run:...`.
    """
    for name in JOINT:
        if name not in selected or name in (*finished, *sources):
            continue
        own = base == run or name != "joint1"
        of, there = (run, {*finished, *selected}) if own else (base, {*base.finished()})
        for before in _PREDECESSORS[name]:
            if before not in there:
                instead = "add it to --steps" if own else "continue that run"
                raise MissingError(f"{name} starts from {before}, which run {of.name} has not finished: {instead}")


def find_teacher(run: Run, base: Run, own: Collection[str], known: RunConfig | None) -> InitialWeights:
    """The joint network that a run's student learns from: the run's last, else that of its base run.

    Args:
        base: Its base run, or itself.
        own: The steps that the run has finished, or trains now.
        known: The run's configuration, where it was begun: a student that was begun keeps its teacher.

    Raises:
        MissingError: There is no such network.
    """
    begun = known.steps.get("student") if known else None
    before = begun.teacher if begun else None
    if before is not None and not before.sha256:
        return before
    wanted = JOINT if before is None else (before.step,)
    if before is None and (joint := [step for step in wanted if step in own]):
        return InitialWeights(run.name, joint[-1], "")
    if joint := [step for step in wanted if base != run and step in base.finished()]:
        return InitialWeights(base.name, joint[-1], base.weights_sha256(joint[-1]))
    raise MissingError(
        f"the student learns from a joint network, and run {base.name} has finished none: add joint1 to --steps, or "
        "name a run that has one by --base-run"
    )


def _source_step(source: SourceRun, name: StepName) -> StepName:
    """The step of the other run that `name` begins with."""
    finished = source.run.finished()
    if source.step is None:
        # joint1 and joint2 have the same weights: the temporal pooling has none.
        wanted = [name, *(step for step in JOINT if step != name)] if name in JOINT else [name]
        step = next((step for step in wanted if step in finished), name)
    else:
        step = source.step
    if step != name and not {step, name} <= set(JOINT):
        others = ",".join(JOINT if step in JOINT else (step,))
        raise UsageError(
            f"{name} cannot start from {step} of run {source.label}: give --weights {PREFIX}{source.label} without a "
            f"step, or --steps {others}"
        )
    if step not in finished:
        raise MissingError(
            f"{name} starts from {step} of run {source.label}, which has not finished it; it has "
            f"{', '.join(finished) or 'finished nothing'}: continue that run, or give --steps with what it has"
        )
    return step


def _require_fit(source: SourceRun, step: StepName, name: StepName, network: NetworkConfig) -> None:
    there = source.run.weights(step)["network"]
    keys = ["depth", "width"]
    keys += ["flow_channels"] if name != "appearance" else []
    keys += ["fusion", "direction", "temporal_kernels"] if name in JOINT else []
    here = asdict(network)
    differences = [f"{key} is {there[key]} there and {here[key]} here" for key in keys if there[key] != here[key]]
    if differences:
        raise UsageError(
            f"{name} cannot start from {step} of run {source.label}: {', '.join(differences)}: "
            f"give the network options that run was trained with, or --like {source.label}"
        )


def network_of_weights(
    config: RunConfig, given: Mapping[str, Any], lender: Run | None, known: RunConfig | None
) -> NetworkConfig:
    """The network of `config` in the form, and with the normalisation, of the weights that it begins with.

    Depth and widths are the weights' too.

    Args:
        config: Of the run to be trained.
        given: What was asked for of the network; None where it was not.
        lender: The run whose weights it begins with.
        known: The run's configuration where it was begun before; its weights file may be gone since.

    Raises:
        UsageError: Something else was asked for than the weights are, or nothing tells their form.
        MissingError: The weights file cannot be read.
    """
    network = config.network
    told: dict[str, Any]
    if lender is not None:
        told = _told_by_network(lent := lender.config().network) | {"camera_motion": lent.camera_motion}
    elif config.weights == "imagenet":
        told = {"resnet": "v1.5"}
    elif config.weights == "none":
        told = {}
    elif known is not None and known.weights == config.weights:
        told = _told_by_network(known.network)
    else:
        told = _told_by_file(Path(config.weights), given)
    weights = f"the weights {config.weights}" if lender is None else f"the weights of run {lender.name}"
    for name, value in given.items():
        if value is not None and told.get(name, value) != value:
            raise UsageError(
                f"--{name.replace('_', '-')} {value} does not fit {weights}, which are of {told[name]}: leave it out"
            )
    network = replace(network, **told)
    return replace(network, stem_width=None) if network.stem_width == network.width else network


def _told_by_network(network: NetworkConfig) -> dict[str, Any]:
    told = {name: getattr(network, name) for name in ("depth", "width", "resnet", "rgb_mean", "rgb_deviation")}
    return told | {"stem_width": network.stem_width or network.width}


def _told_by_file(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    backbone = read_backbone(path)
    if backbone.form is None and given["resnet"] is None:
        raise UsageError(f"--weights {path} {FORM_UNKNOWN}; of the wrong form they would be worth little")
    told: dict[str, Any] = {name: getattr(backbone, name) for name in ("depth", "width", "stem_width")}
    if backbone.form is not None:
        told["resnet"] = backbone.form
    if not backbone.has_default_normalisation:
        told |= {"rgb_mean": backbone.rgb_mean, "rgb_deviation": backbone.rgb_deviation}
    return told


def flow_difference(run: Run, flow: FlowSettings | None) -> str:
    """In words, the first way in which the other run's flow was another; empty where it was not."""
    difference = flow.difference(run.config().flow, "flow") if flow else ""
    return f"run {run.name} was trained on other flow: {difference}" if difference else ""


def tested_before(source: SourceRun, data: TrainingData) -> str:
    """In words, which of the videos tested or held out here the other run was trained on; empty where it was on none.

    Videos are the same where their ids (upper and lower case alike where that is unambiguous) and, as far as they are
    known, their origins are.
    """
    trained = spelled_as(source.run.trained_on())
    now = data.sources
    told = []
    for ids, where, what in (
        (data.split.test, "of this split's test", "accuracy"),
        ([video.id for video in data.validation], "held out here", "held-out accuracy"),
    ):
        both = [one for one in ids if trained(one) is not None]
        before = source.run.sources_of(both)
        seen = [one for one in both if one not in before or one not in now or same_origin(before[one], now[one])]
        if seen:
            told.append(f"{plural(len(seen), 'video')} {where}, for example {seen[0]}: {what} will be too high")
    return f"warning: run {source.label} was trained on {'; and on '.join(told)}" if told else ""


def _label(run: Run, workspace: Workspace) -> str:
    return run.name if run.lies_in(workspace) else str(run.folder.resolve())
