"""What `train` is asked for: the options that decide what a run becomes, and the recipe that they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import (
    Balance,
    CameraMotion,
    Depth,
    Direction,
    Fusion,
    Option,
    Precision,
    ResNetForm,
    TemporalInit,
)
from pipelines.runtime.devices import resolve_device
from pipelines.storage.provenance import made_by
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.compilation import compiles
from pipelines.training.recipes import PAPER, RECIPES, STEPS, Recipe, RecipeName, Step, StepName, override, pick
from pipelines.training.run_config import (
    RUN_SCHEMA,
    HeldOut,
    NetworkConfig,
    RunConfig,
    StepConfig,
    TrainVideos,
    digest,
)
from pipelines.training.runs import ALL_SPLITS, DEFAULT_RUNS, SPLIT_FIELD, Run, find_run, run_at

if TYPE_CHECKING:
    from pipelines.datasets.catalogue import Video
    from pipelines.training.data import TrainingData

STACK = 10  # L, flow fields of one motion input (paper.md 1.4)
RECIPE = "Recipe (VALUE for all steps, or STEP=VALUE,STEP=VALUE)"
_NETWORK = "Network (where no default is shown: the recipe's)"
_DATA = "Data"


def _share_or_file(text: str) -> float | Path:
    try:
        return float(text)
    except ValueError:
        return Path(text)


@dataclass(frozen=True)
class HeldOutBefore:
    """The videos that another training held out."""

    by: HeldOut
    """How they were chosen."""
    ids: tuple[str, ...]


@dataclass(frozen=True)
class TrainingSettings:
    """What `train` is asked for, as far as it decides what a run becomes, and the run's name. None stands for the value
    of the run to be continued, else the recipe's, unless an option says otherwise.

    An option that may differ by step is a field of `Step`, and nothing here.
    """

    workspace: options.WorkspaceFolder
    split: Annotated[
        int | Literal["all"] | None,
        Option(
            metavar="N|all",
            minimum=1,
            wanted="a number of at least 1, or all",
            default="that of the run to be continued, else 1",
        ),
    ] = None
    """Split to train on, or all of them, one after the other."""
    name: Annotated[
        str | None, Option(metavar="NAME", default="split<N>, of another set of splits than the first <set>-split<N>")
    ] = None
    """Name of the run; of several splits with {split} for the split's number."""
    splits: Annotated[
        Path | None, Option(metavar="DIR|NAME", group=_DATA, default="the first set, which is made if there is none")
    ] = None
    """Folder of split lists in the format of UCF101's or HMDB51's, or a set of splits of the workspace by name."""
    folds: Annotated[int | None, Option(metavar="N", minimum=2, group=_DATA, default="3")] = None
    """Number of random splits to make, of which each video tests one; fewer where a class has fewer groups."""
    groups: Annotated[Path | None, Option(metavar="FILE", group=_DATA)] = None
    """Keep videos of a group on the same side of a split: CSV with a video and its group a row."""
    group_regex: Annotated[str | None, Option(metavar="REGEX", group=_DATA)] = None
    """The same, where the group is what matches in class/video."""
    exclude_classes: Annotated[
        tuple[str, ...], Option(flag="--exclude-class", metavar="NAME", repeated=True, group=_DATA)
    ] = ()
    """Leave a class out of training and test; may be repeated."""
    validation: Annotated[
        Path | float | None,
        Option(
            metavar="SHARE|FILE|val",
            read=_share_or_file,
            group=_DATA,
            default="0.1 where every class has 10 groups, but 0 in the recipe paper",
        ),
    ] = None
    """Share of the training groups (without groups: videos) to hold out and measure loss and accuracy on while
    training, a list of the videos (class/video a line), or val: those in VIDEOS' val/ beside train/ and test/; never
    test videos."""
    recipe: Annotated[
        RecipeName | None,
        Option(group=RECIPE, default="that of the run to be continued, else by weights, GPU and number of clips"),
    ] = None
    """paper (for a GPU), finetune (pretrained weights, hundreds to thousands of clips), or small (from scratch on
    hundreds)."""
    balance: Annotated[Balance | None, Option(group=_DATA, default="none")] = None
    """Make classes of unequal size count alike: sampler (draw each class equally often), loss (weigh each video by the
    inverse of its class's size), or none."""
    unlabelled: Annotated[bool, Option(group=_DATA)] = False
    """Let the student match its teacher on the workspace's videos without a class too."""
    like: Annotated[str | None, Option(metavar="NAME|DIR", group=RECIPE)] = None
    """Take the settings of another run: recipe with every number of its steps, network, input, weights, precision,
    balance and share held out; not its split, classes, seed or name. What is given beside it wins."""
    steps: Annotated[
        tuple[StepName, ...] | None,
        Option(metavar="STEP,STEP", group=RECIPE, default="those of the run to be continued, else the recipe's"),
    ] = None
    """Steps to train."""
    depth: Annotated[Depth | None, Option(metavar="N", group=_NETWORK)] = None
    """Layers of each ResNet."""
    width: Annotated[int | None, Option(metavar="N", minimum=1, group=_NETWORK)] = None
    """Channels of the first stage; the paper's are 64."""
    stem_width: Annotated[int | None, Option(metavar="N", minimum=1, group=_NETWORK, default="that of the weights")] = (
        None
    )
    """Channels of the first layer."""
    resnet: Annotated[ResNetForm | None, Option(group=_NETWORK, default="that of the weights, else v1.5")] = None
    """Form of both ResNets: v1 (the paper's: stride in a block's first 1x1) or v1.5 (torchvision's: in the 3x3)."""
    size: Annotated[
        tuple[int, int] | None,
        Option(
            metavar="N|HxW",
            minimum=32,
            separator="x",
            broadcast=True,
            wanted="N or HxW of at least 32 pixels a side, such as 224 or 64x80",
            group=_NETWORK,
            default="the recipe's short side in the shape of the stored pictures; paper: 224x224",
        ),
    ] = None
    """Input size in pixels."""
    weights: Annotated[str | None, Option(metavar="NAME|FILE|run:NAME", group=_NETWORK)] = None
    """imagenet (torchvision's), a file (in torchvision's format, or from import-weights), run:NAME or run:NAME/STEP
    (another run), or none."""
    fusion: Annotated[Fusion | None, Option(group=_NETWORK, default="add")] = None
    """How the connections combine the streams."""
    direction: Annotated[Direction | None, Option(group=_NETWORK, default="motion-to-appearance")] = None
    """Direction of the connections."""
    temporal_kernels: Annotated[bool | None, Option(group=_NETWORK, default="on")] = None
    """Convolutions over time in the joint steps."""
    temporal_init: Annotated[TemporalInit | None, Option(group=_NETWORK, default="average; finetune: center")] = None
    """Initialisation of the convolutions over time."""
    camera_motion: Annotated[CameraMotion | None, Option(group=_NETWORK, default="that of the base run, else none")] = (
        None
    )
    """Subtract the camera's motion from the flow: from each field its mean or median displacement."""
    base_run: Annotated[str | None, Option(metavar="NAME|DIR", group=_NETWORK, default="this run")] = None
    """Run whose appearance and motion networks joint1 starts from, and whose joint network a student learns from."""
    overrides: Annotated[Mapping[str, Mapping[str, Any]], Option(of_step=Step, steps=STEPS, group=RECIPE)] = field(
        default_factory=dict
    )
    """Changes to the recipe's steps: by step, values by the names of `Step`'s fields."""
    seed: Annotated[int | None, Option(metavar="N", minimum=0, default="that of the run to be continued, else 0")] = (
        None
    )
    """Random seed."""
    device: options.DeviceName = "auto"
    precision: Annotated[Literal["auto", Precision], Option(metavar="NAME")] = "auto"
    """auto (bf16 on a GPU, and with finetune on CPUs quick at it; else fp32), fp32, bf16 or fp16 (GPU only)."""
    compile: Annotated[bool | None, Option(group=options.RARELY, default="on a GPU, for steps long enough to gain")] = (
        None
    )
    """Compile the network with torch.compile."""
    workers: options.LoaderWorkers = 0
    overwrite: bool = False
    """Archive an existing run of that name and start over; also make random splits again that lack videos."""
    resolved: Recipe | None = None  # of the run `like`, or to be continued, or for the data at hand
    all_alike: bool = False  # one of all splits: a run that is there lends the settings that it keeps to no other one
    kept: HeldOutBefore | None = None  # of the run to be continued or built on, where `validation` says nothing else

    def __post_init__(self) -> None:
        options.check(self)
        if isinstance(self.validation, int | float):
            options.require("--validation", options.Probability, self.validation)
        for step in self.overrides:
            if step not in STEPS:
                raise UsageError(f"there is no step {step!r} to override: the steps are {', '.join(STEPS)}")
        if self.groups is not None and self.group_regex is not None:
            raise UsageError("--groups and --group-regex both say what a group is: give one of them")
        if self.name is not None and not is_plain_name(self.name):
            raise UsageError(f"--name {self.name!r} is not a plain folder name")
        if self.name == ALL_SPLITS:
            raise UsageError("--name all: `evaluate --run all` means the runs of all splits; give another name")
        if self.split == ALL_SPLITS and self.name is not None and SPLIT_FIELD not in self.name:
            raise UsageError(
                f"--name {self.name!r} names one run, but --split all trains several: put {SPLIT_FIELD} in the place "
                f"of the split's number, as in --name {self.name}-{SPLIT_FIELD}"
            )
        if self.like is not None and self.recipe is not None and self.resolved is None:
            raise UsageError(f"--recipe {self.recipe} contradicts --like {self.like}, which takes that run's: give one")
        if self.steps or self.recipe or self.resolved:  # else the run to be continued or the data say which steps
            self._require_fitting_steps()
        # Refuses settings out of range before anything is read; the paper's joint2 only where it is to be trained.
        for name in self.selected() if self.steps or self.recipe else STEPS[:3]:
            freeze = self.step(name).freeze
            if freeze and name in ("appearance", "motion") and (self.weights or self.base.weights) == "none":
                raise UsageError(
                    f"--freeze {freeze} for {name} would keep random layers, since it is trained from no weights: give "
                    f"--weights, or --freeze {name}=0"
                )

    def _require_fitting_steps(self) -> None:
        """Raises `UsageError` for options that go with other steps only."""
        base_steps = {"appearance", "motion"} & set(self.selected())
        if self.base_run is not None and base_steps:
            raise UsageError(
                f"--base-run {self.base_run}: this command trains {' and '.join(sorted(base_steps))} itself; leave "
                "--base-run out, or train the joint steps alone with --steps joint1"
            )
        if self.unlabelled and "student" not in self.selected():
            raise UsageError("--unlabelled goes with the step student only: add it to --steps")

    @property
    def run_name(self) -> str:
        return (self.name or DEFAULT_RUNS).replace(SPLIT_FIELD, str(self.split or 1))

    def of_split(self, number: int) -> Self:
        """These settings for one of several splits, whose number stands for `{split}`."""
        named = {name: getattr(self, name) for name in ("name", "base_run", "weights", "like")}
        given = {name: value.replace(SPLIT_FIELD, str(number)) for name, value in named.items() if value is not None}
        return replace(self, split=number, **given)

    def named(self) -> Self:
        """These settings with the run's name, or of several splits their pattern, where the set of splits decides
        it."""
        from pipelines.datasets.splits import set_name_of

        if self.name is not None or self.splits is None:
            return self
        set_name = set_name_of(Workspace(self.workspace), self.splits, self.overwrite)
        return replace(self, name=f"{set_name}-{DEFAULT_RUNS}" if set_name else None)

    @property
    def base(self) -> Recipe:
        return self.resolved or (RECIPES[self.recipe] if self.recipe else PAPER)

    def selected(self) -> list[StepName]:
        """The steps to train, in order."""
        chosen = self.steps or self.base.default_steps
        return [step for step in STEPS if step in chosen]

    def step(self, name: StepName) -> Step:
        """The recipe's step with its overrides."""
        return override(self.base.steps[name], self.overrides.get(name, {}))

    def network(self, num_classes: int) -> NetworkConfig:
        """The network of the joint steps."""
        return NetworkConfig(**self._chosen(NetworkConfig), num_classes=num_classes, flow_channels=2 * STACK)

    def run_config(self, data: "TrainingData", precision: Precision) -> RunConfig:
        """Everything that decides what a run on `data` becomes, except the weights of other runs."""
        without_class = _listed(data.unlabelled) if data.unlabelled else None
        made: dict[str, Any] = made_by(RUN_SCHEMA, "opencv", "numpy", "torch") | {
            "recipe": self.base.name,
            "split": data.split.number,
            "seed": self.seed or 0,
            "precision": precision,
            "network": self.network(len(data.classes)),
            "classes": tuple(data.classes),
            "train_videos": _listed(data.videos),
            "flow": data.flow,
            "frames_short_side": data.short_side,
            "validation": data.held_out,
            "steps": {
                name: StepConfig(self.step(name), unlabelled=without_class if name == "student" else None)
                for name in self.selected()
            },
            "split_sha256": digest([data.split.train, data.split.test]),
            "split_set": data.split.set_name,
            "excluded_classes": tuple(sorted(set(self.exclude_classes))),
            "compile": compiles(self.compile, resolve_device(self.device)),
            "base_run": None,  # its weights are looked up where the run is prepared
        }
        return RunConfig(**self._chosen(RunConfig) | made)

    def _chosen(self, kind: type) -> dict[str, Any]:
        """The fields of `kind` that an option is called like: as asked for, else as in the recipe. What neither says is
        left to its default."""
        options_here = {one.name for one in fields(self)}
        names = [one.name for one in fields(kind) if one.name in options_here]
        found = {name: getattr(self, name) for name in names}
        found |= {name: getattr(self.base, name, None) for name in names if found[name] is None}
        return {name: value for name, value in found.items() if value is not None}


def _listed(videos: "Sequence[Video]") -> TrainVideos:
    return TrainVideos(len(videos), digest([video.id for video in videos]))


def settle(settings: TrainingSettings) -> tuple[TrainingSettings, str]:
    """`settings` with their recipe or that of the run they are to be like; with what they do not say as in the run that
    they continue, and the input size and the videos held out of the run that they build on; of several splits those of
    the first. And why that recipe where it was picked, in words.

    Numbers of updates are not yet those for the training videos. Raises as `like_another`.
    """
    from pipelines.datasets.catalogue import artifact_paths

    workspace = Workspace(settings.workspace)
    named = settings.of_split(settings.split if isinstance(settings.split, int) else 1).named()
    run = Run(workspace.runs / named.run_name)
    known = run.config_file.exists() and not settings.overwrite
    if known and not (settings.all_alike or settings.split == ALL_SPLITS):
        number = settings.split if isinstance(settings.split, int) else run.config().split
        settings = _continued(replace(settings, name=run.name).of_split(number), run)
    else:
        settings = like_another(named, held_out=not (known or settings.base_run))
        if known or settings.base_run:
            lender = run if known else find_run(workspace, str(settings.base_run))
            recipe = settings.recipe or next((name for name in RECIPES if name == lender.config().recipe), None)
            settings = replace(_with_input_of(settings, lender), recipe=recipe)
    if settings.recipe or settings.resolved:
        return settings, ""
    clips = max(sum(1 for _ in artifact_paths(folder)) for folder in (workspace.frames, workspace.flow))
    recipe, reason = pick(settings.weights, resolve_device(settings.device).type == "cuda", clips)
    return replace(settings, recipe=recipe), reason


def _continued(settings: TrainingSettings, run: Run) -> TrainingSettings:
    """`settings` with those of `run`, which they continue, wherever they have none of their own. Raises as
    `like_another`."""
    before = run.config()
    steps = settings.steps or tuple(before.steps)
    student = before.steps["student"] if "student" in before.steps and "student" in steps else None
    settings = replace(
        settings,
        # By its folder: a name may be that of a folder here, with other lists or none.
        splits=settings.splits
        or (Workspace(settings.workspace).split_sets / before.split_set if before.split_set else None),
        steps=steps,
        base_run=settings.base_run or _base_run_of(run, before, steps),
        unlabelled=settings.unlabelled
        or ("student" in steps and student is not None and student.unlabelled is not None),
        exclude_classes=settings.exclude_classes or before.excluded_classes,
        seed=before.seed if settings.seed is None else settings.seed,
        compile=_compile_as(before, settings),
    )
    if settings.like is None and settings.recipe in (None, before.recipe):
        settings = _with_settings_of(settings, before)
    return _with_input_of(like_another(settings, held_out=False), run)


def _base_run_of(run: Run, before: RunConfig, steps: Sequence[StepName]) -> str | None:
    """The run in the same workspace that these steps of `run` build on, if any. Raises `MissingError` where that run
    lies elsewhere, since only its name is kept."""
    if before.base_run is None or {"appearance", "motion"} & set(steps):
        return None
    name = before.base_run.name
    base = run_at(Workspace(run.folder.parent.parent), name)
    if base is None or base.folder.resolve() == run.folder.resolve():
        raise MissingError(
            f"run {run.name} builds on another run, {name}, which is not in {run.folder.parent}: give it again, "
            "--base-run DIR"
        )
    return name


def _compile_as(before: RunConfig, settings: TrainingSettings) -> bool | None:
    """Whether to compile as the run `before` does; None where that is the default here, which leaves out short
    steps."""
    if settings.compile is not None or compiles(None, resolve_device(settings.device)) == before.compile:
        return settings.compile
    return before.compile


def like_another(settings: TrainingSettings, *, held_out: bool = True) -> TrainingSettings:
    """`settings` with the settings of the run that its `like` names, wherever it has none of its own.

    Args:
        held_out: Also its share of videos held out; False where the run to be continued or built on tells them.

    Raises:
        MissingError: There is no such run.
        UsageError: Its held-out videos were those of a list, which is of its split.
    """
    if settings.like is None or settings.resolved is not None:
        return settings
    other = find_run(Workspace(settings.workspace), settings.like).config()
    lent = settings.base_run is not None or (settings.weights or "").startswith("run:")  # and so is the camera's motion
    return replace(
        _with_settings_of(settings, other),
        camera_motion=settings.camera_motion or (None if lent else other.network.camera_motion),
        size=settings.size or other.size,
        validation=_share_held_out(settings, settings.like, other) if held_out else settings.validation,
    )


def _with_settings_of(settings: TrainingSettings, other: RunConfig) -> TrainingSettings:
    """`settings` with the recipe, the precision and the balance of another run, or of theirs as it was begun."""
    usual = next((recipe for name, recipe in RECIPES.items() if name == other.recipe), PAPER)
    usual = usual.for_videos(other.train_videos.count)
    of_network = {one.name for one in fields(Recipe)} & {one.name for one in fields(NetworkConfig)}
    recipe = replace(
        usual,
        **{name: getattr(other.network, name) for name in of_network},
        steps={**usual.steps, **{step: of.step for step, of in other.steps.items()}},
        default_steps=tuple(other.steps),
        size=other.size,
        weights=other.weights,
        fixed_size=True,
        videos=None,
    )
    return replace(
        settings,
        resolved=recipe,
        precision=other.precision if settings.precision == "auto" else settings.precision,
        balance=settings.balance or other.balance,
    )


def _with_input_of(settings: TrainingSettings, run: Run) -> TrainingSettings:
    """`settings` with the size, the camera motion and the videos held out of `run`, unless they ask for others; of a
    run that does not tell which videos, with their share. Raises `UsageError` where these were listed, not told."""
    before = run.config()
    camera_motion = settings.camera_motion or before.network.camera_motion
    settings = replace(settings, size=settings.size or before.size, camera_motion=camera_motion)
    if settings.validation not in (None, before.validation):
        return settings
    ids = run.held_out()
    if ids is None:
        return replace(settings, validation=_share_held_out(settings, run.name, before))
    return replace(settings, kept=HeldOutBefore(before.validation, tuple(ids)))


def _share_held_out(settings: TrainingSettings, run: str, before: RunConfig) -> float | Path:
    """The videos to hold out: those asked for, else the share of the other run. Raises `UsageError` if those were
    listed."""
    validation = before.validation if settings.validation is None else settings.validation
    if validation == "list":
        raise UsageError(
            f"run {run} was begun with held-out videos of a list or of val/: give them again, --validation FILE or val"
        )
    return validation
