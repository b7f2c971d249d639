"""Before a run's steps are trained: its data, what its steps start from, and its configuration, written or compared."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from pipelines.datasets.catalogue import Video
from pipelines.datasets.samples import NO_CLASS
from pipelines.errors import UsageError
from pipelines.evaluation.protocols import IMPORTED
from pipelines.interface.options import Precision
from pipelines.models.weights import read_pretrained
from pipelines.runtime.progress import OnProgress, note
from pipelines.storage.atomic import remove_left_over_temporary_files, require_writable
from pipelines.storage.workspace import Workspace
from pipelines.training.data import TrainingData, find_training_data
from pipelines.training.fine_tuning import (
    SourceStep,
    find_source,
    find_source_steps,
    find_teacher,
    flow_difference,
    network_of_weights,
    require_predecessors,
    tested_before,
)
from pipelines.training.pictures import input_size, median_picture, sentences
from pipelines.training.recipes import Step, StepName
from pipelines.training.run_config import InitialWeights, RunConfig, weights_digest
from pipelines.training.runs import (
    Run,
    archive,
    describe_base,
    find_run,
    only_trainer,
    with_known_weights,
    write_or_compare,
)
from pipelines.training.settings import TrainingSettings


@dataclass(frozen=True)
class PreparedRun:
    """A run that may be trained: nothing that its steps need is missing."""

    run: Run
    base_run: Run
    """The run whose streams joint1 starts from: another one with `--base-run`."""
    data: TrainingData
    config: RunConfig
    """With the steps of this call, in the order of training, and no others."""
    source_steps: Mapping[StepName, SourceStep]
    """Of the steps that begin with another run's weights: which."""

    @property
    def teacher(self) -> tuple[Run, StepName]:
        """The joint network that the student learns from."""
        teacher = self.config.steps["student"].teacher
        assert teacher is not None
        return self.base_run if teacher.sha256 else self.run, teacher.step

    def videos(self, step: Step) -> list[Video]:
        """What a step is trained on."""
        return [*self.data.videos, *(self.data.unlabelled if step.name == "student" else ())]

    def labels(self, step: Step) -> list[int]:
        """The class of each of its videos, `NO_CLASS` of those without."""
        return [*self.data.labels, *[NO_CLASS] * (len(self.videos(step)) - len(self.data.labels))]

    @property
    def steps(self) -> list[Step]:
        """The steps to train, in order."""
        return [step.step for step in self.config.steps.values()]


def prepare_run(
    settings: TrainingSettings,
    reason: str,
    device: torch.device,
    held: contextlib.ExitStack,
    on_progress: OnProgress,
    *,
    write: bool,
) -> PreparedRun:
    """Finds the training data and what the steps start from, and writes the run's configuration or compares it.

    Until `held` is closed, no other process trains into the run.

    Args:
        settings: Those of one split, settled (`settings.settle`).
        reason: Why their recipe was picked; "" where it was asked for.
        held: Takes the lock on the run.
        on_progress: Is told what is trained on, and what the steps start from.
        write: False compares only, and loads no pretrained weights from the network.

    Raises:
        UsageError: The run was begun with another configuration, its name is that of imported scores, or a source of
            weights does not fit it.
        MissingError: Frames, flow, weights or another run are missing, or another process trains into the run.
    """
    assert isinstance(settings.split, int)
    workspace = Workspace(settings.workspace)
    data = find_training_data(settings, on_progress, write=write)
    if reason:
        on_progress(note(f"recipe {settings.base.name}, since {reason}; --recipe takes another"))
    elif (
        not (settings.all_alike or settings.overwrite) and Run(workspace.runs / settings.run_name).config_file.exists()
    ):
        on_progress(note(f"run {settings.run_name} was begun before: settings that no option gives are its own"))
    if settings.like:
        difference = flow_difference(find_run(workspace, settings.like), data.flow)
        on_progress(note(f"settings of run {settings.like}" + (f"; {difference}" if difference else "")))
    pictured = [*data.videos, *data.validation]
    size = settings.size or input_size(settings.base, median_picture(pictured))
    settings = replace(settings, resolved=settings.base.for_videos(len(data.videos)), size=size)
    for text in sentences(pictured, size, [settings.step(name) for name in settings.selected()], data.classes):
        on_progress(note(text))
    config = settings.run_config(data, resolve_precision(settings.precision, device, settings.base.name))
    return _begin(settings, config, data, held, on_progress, write=write)


def _begin(
    settings: TrainingSettings,
    config: RunConfig,
    data: TrainingData,
    held: contextlib.ExitStack,
    on_progress: OnProgress,
    *,
    write: bool,
) -> PreparedRun:
    """Adds to `config` what other runs and weights contribute, and writes or compares it."""
    workspace, overwrite = Workspace(settings.workspace), settings.overwrite
    run = Run(workspace.runs / settings.run_name)
    given = {name: getattr(settings, name) for name in ("depth", "width", "resnet", "stem_width", "camera_motion")}
    if not (settings.weights or settings.resnet):
        given["resnet"] = settings.base.resnet
    imported = workspace.scores / run.name / IMPORTED
    if imported.exists() and not run.config_file.exists() and not overwrite:
        raise UsageError(
            f"there is no run {run.name}, but scores of another program were imported under that name ({imported}): "
            "give another --name, or --overwrite to move them aside"
        )
    base = run if settings.base_run is None else find_run(workspace, settings.base_run)
    finished = [] if overwrite else run.finished()
    selected = list(config.steps)
    source_steps: dict[StepName, SourceStep] = {}
    known = run.config() if run.config_file.exists() and not overwrite else None
    if "student" in selected:
        config = _with_teacher(config, find_teacher(run, base, [*finished, *selected], known), base, known)
    source = find_source(config.weights, workspace)
    lender = source.run if source is not None else base if base != run else None
    config = replace(config, network=network_of_weights(config, given, lender, known))
    if source is not None:
        lent = [] if settings.base_run is None else ["appearance", "motion"]
        source_steps = find_source_steps(source, run, [*finished, *lent], selected, config, known)
        begun = [step.described(name) for name, step in source_steps.items() if name not in finished]
        differences = [flow_difference(source.run, config.flow), tested_before(source, data)] if begun else []
        for text in (*begun, *differences):
            if text:
                on_progress(note(text))
        steps = {name: replace(config.steps[name], weights=step.record()) for name, step in source_steps.items()}
        config = replace(config, weights=source.text, steps={**config.steps, **steps})
    config = replace(config, weights_sha256=weights_digest(config.weights))
    if known is not None:
        config = with_known_weights(run, known, config)
    if base != run:
        config = replace(config, base_run=describe_base(base, config, data.sources))
    require_predecessors(run, base, finished, selected, source_steps)
    read = config.weights != "imagenet" and not (known and known.weights == config.weights)  # by `network_of_weights`
    if not read and {"appearance", "motion"} & set(selected) - {*source_steps, *finished}:  # before hours of work
        read_pretrained(config.network.depth, config.network.width, config.weights, download=write)
    prepared = PreparedRun(run, base, data, config, source_steps)
    if not write:
        if not overwrite:
            write_or_compare(run, config, data, write=False)
        return prepared
    _write(prepared, workspace, held, overwrite=overwrite)
    return prepared


def _with_teacher(config: RunConfig, teacher: InitialWeights, base: Run, known: RunConfig | None) -> RunConfig:
    """`config` with what its student learns from, a step of `base` or of this run, `known` if it was begun before."""
    own = {**(known.steps if known else {}), **config.steps}
    pool = (base.config().steps if teacher.sha256 else own)[teacher.step].step.temporal_pool
    student = replace(config.steps["student"], teacher=teacher)
    if pool is not None and student.step.frames < pool[0]:
        raise UsageError(
            f"--frames {student.step.frames} for student: its teacher {teacher.step} pools over {pool[0]} frames, "
            "give at least as many"
        )
    return replace(config, steps={**config.steps, "student": student})


def _write(prepared: PreparedRun, workspace: Workspace, held: contextlib.ExitStack, *, overwrite: bool) -> None:
    """Writes the run's folder, or compares the one that is there, and keeps other trainers out while `held` is."""
    run, config = prepared.run, prepared.config
    if overwrite:
        archive(workspace, run)
    if to_do := [run.weights_file(name).parent for name in config.steps if not run.weights_file(name).exists()]:
        require_writable(workspace.root, run.folder, run.folder / "tensorboard", *to_do)
    held.enter_context(only_trainer(run))
    remove_left_over_temporary_files(workspace.root, below=False)
    remove_left_over_temporary_files(run.folder)
    write_or_compare(run, config, prepared.data)


def resolve_precision(asked: str, device: torch.device, recipe: str = "") -> Precision:
    """The precision to compute in.

    Args:
        asked: `auto` stands for bf16 on a GPU, fp16 on one that cannot compute bf16, fp32 on a CPU.
        recipe: With `finetune`, `auto` is bf16 on a CPU that is quick at it, too.
    """
    if asked != "auto":
        return cast(Precision, asked)
    if device.type != "cuda":
        about = Path("/proc/cpuinfo")  # on Linux
        is_quick = device.type == "cpu" and about.is_file() and "avx512_bf16" in about.read_text(errors="replace")
        return "bf16" if recipe == "finetune" and is_quick else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
