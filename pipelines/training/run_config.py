"""The content of a run's `config.json`, typed all the way down. It may come from anywhere, so reading it checks every
field.

A field of `RunConfig`, `NetworkConfig` or `StepConfig` that has a default came later than the others, and so did what
stands behind `KW_ONLY` in `Step`: where such a field has its default it is not written, so that the files, and the
settings that weights and checkpoints are compared by, stay those of the versions before it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pipelines.datasets.split_lists import Split
from pipelines.errors import MissingError
from pipelines.interface.options import (
    Balance,
    CameraMotion,
    Depth,
    Direction,
    Fusion,
    Precision,
    ResNetForm,
    TemporalInit,
)
from pipelines.storage.atomic import json_text
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.provenance import sha256_of
from pipelines.storage.typed_json import (
    NOT_COMPARED,
    UnknownField,
    Within,
    WrongField,
    first_difference,
    from_json,
    not_compared,
    read_fields,
    to_json,
)
from pipelines.training.recipes import MATCHING, Step, StepName

RUN_SCHEMA = "stres/run/1"
_NEEDED_OF_A_STEP = ("frames", "augmentation")  # what the test of a run relies on, so no default stands for it
_MOST = 1 << 20  # of what a run counts

Whole = Annotated[int, Within(0, _MOST)]
Side = Annotated[int, Within(32, 8192)]
Mean = Annotated[float, Within(-1000, 1000)]
Deviation = Annotated[float, Within(1e-6, 1000)]


HeldOut = Annotated[float, Within(0, 1)] | Literal["list"]
"""A share of the training groups, or the videos of a list."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network of the joint steps; a base step trains one of its streams without the connections."""

    num_classes: Whole
    depth: Depth
    width: Whole
    flow_channels: Whole
    fusion: Fusion
    direction: Direction
    temporal_kernels: bool
    temporal_init: TemporalInit
    resnet: ResNetForm = "v1.5"
    stem_width: Whole | None = None
    """Channels of the first layer; None: as many as `width`."""
    rgb_mean: tuple[Mean, Mean, Mean] | None = None
    """Of red, green and blue on a scale of 0..1, as the initial weights came with them; None: torchvision's."""
    rgb_deviation: tuple[Deviation, Deviation, Deviation] | None = None
    camera_motion: CameraMotion = "none"


@dataclass(frozen=True)
class TrainVideos:
    """The number of training videos, and the SHA-256 of the list of their ids."""

    count: Annotated[int, Within(0, 1 << 40)]
    sha256: str


@dataclass(frozen=True)
class InitialWeights:
    """The step of another run that a step starts from, and the SHA-256 of its weights file."""

    run: str
    step: StepName
    sha256: str


@dataclass(frozen=True)
class BaseRun:
    """The run whose streams joint1 starts from, and the SHA-256 of each stream's weights file."""

    name: str
    weights_sha256: Mapping[StepName, str]


@dataclass(frozen=True)
class StepConfig:
    """How a step is trained, and the weights of another run that it starts from, if any."""

    step: Step
    weights: InitialWeights | None = None
    teacher: InitialWeights | None = None
    """Of the student: the joint network that it learns from; without hash where that is of the same run."""
    unlabelled: TrainVideos | None = None
    """Of the student: the videos without a class that it matches its teacher on too."""

    @classmethod
    def from_json(cls, document: Any, name: str) -> Self:
        """Reads what `to_json` wrote. Raises `WrongField`."""
        of_step = dict(from_json(Mapping[str, Any], document, name))
        for needed in _NEEDED_OF_A_STEP:
            if needed not in of_step:
                raise WrongField(f"{name}.{needed}")
        weights, teacher = (
            from_json(InitialWeights | None, of_step.pop(each, None), f"{name}.{each}")
            for each in ("weights", "teacher")
        )
        unlabelled = from_json(TrainVideos | None, of_step.pop("unlabelled", None), f"{name}.unlabelled")
        step = read_fields(Step, of_step, name)
        if step.frames > _MOST:
            raise WrongField(f"{name}.frames", step.frames)
        if step.name != name.rpartition(".")[2]:
            raise WrongField(f"{name}.name", step.name)
        return cls(step, weights, teacher, unlabelled)

    def to_json(self, *, defaults: bool = False) -> dict[str, Any]:
        """The step's fields, those of matching only of the student, and among them those of `self`; with `defaults`
        also those that are left out because they have their default."""
        document = to_json(self, defaults=defaults)
        step = document.pop("step")
        usual = set() if defaults else step.keys() - to_json(self.step, defaults=False).keys()
        left_out = (usual | set(MATCHING)) - _always_written(self.step.name)
        return {name: value for name, value in step.items() if name not in left_out} | document


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run becomes, and what is only kept: the versions of the programs that began it.

    A field called like one of `TrainingSettings` is filled with what was asked for there.
    """

    schema: str
    stres_version: Annotated[str, NOT_COMPARED]
    library_versions: Annotated[Mapping[str, str], NOT_COMPARED]
    recipe: str
    split: Whole
    seed: Annotated[int, Within(0, 1 << 63)]
    size: tuple[Side, Side]
    """Height and width of the input in pixels."""
    weights: str
    """What the base steps start from: `imagenet`, `none`, a file, or a step of another run."""
    precision: Precision
    network: NetworkConfig
    classes: tuple[str, ...]
    train_videos: TrainVideos
    flow: FlowSettings | None
    """How the flow was made; None for a data set without flow files."""
    steps: Mapping[StepName, StepConfig]
    """The steps begun so far."""
    split_sha256: str
    excluded_classes: tuple[str, ...] = ()
    compile: bool = False
    """Part of the configuration because compiling changes the rounding."""
    base_run: BaseRun | None = None
    weights_sha256: str = ""
    """Of the file that `weights` names; empty if it names none."""
    frames_short_side: Whole | None = None
    """Of the stored frames of a run without flow, whose settings say it otherwise; None where they differ."""
    validation: HeldOut = 0.0
    """What is held out of the training videos, and so not among `train_videos`."""
    balance: Balance = "none"
    """How classes of unequal size are made to count alike."""
    split_set: str = ""
    """The set of splits that `split` is of; "" for the workspace's first."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Fields that another version of stres wrote, which are kept and compared."""

    @classmethod
    def from_json(cls, document: Any, path: Path) -> Self:
        """Reads the content of a `config.json`.

        Args:
            path: The file, for messages.

        Raises:
            MissingError: A field is missing, of the wrong type or out of range; the message names it.
        """
        known, others = _divided(cls, with_current_names(document), path)
        known |= {"flow": None} if known.get("flow") == {} else {}
        config = _checked(cls, known | {"others": others}, path)
        if len(set(config.classes)) != len(config.classes) or not config.classes:
            raise _unusable(path, WrongField("classes", list(config.classes)))
        return config

    def to_json(self, *, defaults: bool = False) -> dict[str, Any]:
        """The content of `config.json`; with `defaults` also the fields that are left out there because they have their
        default."""
        document = to_json(replace(self, flow=None, steps={}, others={}), defaults=defaults)
        del document["others"]
        document["network"] = to_json(self.network, defaults=defaults)
        document["flow"] = self.flow.to_json() if self.flow else {}
        document["steps"] = {name: step.to_json(defaults=defaults) for name, step in self.steps.items()}
        document["split_sha256"] = document.pop("split_sha256")  # stays the last field
        return document | dict(self.others)

    def first_difference(self, other: "RunConfig") -> str:
        """The first difference to `other` in words; empty if there is none."""
        return config_difference(self.to_json(), other.to_json())

    def of_step(self, name: StepName) -> dict[str, Any]:
        """The part of the configuration that a checkpoint of the step has to match."""
        document = compared(replace(self, steps={name: self.steps[name]}).to_json())
        return {key: value for key, value in document.items() if key not in ("schema", "split_sha256")}


def compared(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says that makes a difference between runs."""
    kept = not_compared(RunConfig)
    return {name: value for name, value in document.items() if name not in kept}


def config_difference(old: Any, new: Any) -> str:
    """The first difference between two configurations, or parts of them, as JSON, in words; empty for none."""
    old, new = (compared(document) if isinstance(document, dict) else document for document in (old, new))
    return first_difference(old, new)


def without_flow(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of a step that reads no flow: the run may have got, or lost, its flow since."""
    return {name: value for name, value in document.items() if name not in ("flow", "frames_short_side")}


def with_current_names(document: Any) -> Any:
    """Translates the configuration or the weights of a run of stres 0.1: a step's `augmentation` was called `crops`
    then, and `center`, there or as a network's `temporal_init`, was spelled `centre`. A step's settings that are newer
    than the file have their defaults, so that a new one breaks no run."""
    if not isinstance(document, dict):
        return document
    renamed = dict(document)
    if "network" in document:
        renamed["network"] = _rename_fields(document["network"])
    if isinstance(steps := document.get("steps"), dict):
        renamed["steps"] = {name: _with_defaults(_rename_fields(step)) for name, step in steps.items()}
    if "configuration" in document:
        renamed["configuration"] = with_current_names(document["configuration"])
    return renamed


def _with_defaults(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    written = _always_written(step.get("name")) - set(_NEEDED_OF_A_STEP)
    defaults = {one.name: json.loads(json_text(one.default)) for one in fields(Step) if one.default is not MISSING}
    return {name: value for name, value in defaults.items() if name in written} | step


def _always_written(step: Any) -> set[str]:
    """The fields of the step of that name that are written whatever their value."""
    return {each.name for each in fields(Step) if not each.kw_only or (step == "student" and each.name in MATCHING)}


def _rename_fields(fields: Any) -> Any:
    if not isinstance(fields, dict):
        return fields
    fields = {"augmentation" if name == "crops" else name: value for name, value in fields.items()}
    renamed = [name for name in ("augmentation", "temporal_init") if fields.get(name) == "centre"]
    return fields | dict.fromkeys(renamed, "center")


def checked_split(document: Any, path: Path) -> Split:
    """Reads `split.json`. Raises `MissingError`.

    Its groups are left out: leaks are reported when a run is trained, and a regular expression from elsewhere
    may take forever to match.
    """
    return _checked(Split, _divided(Split, document, path)[0] | {"groups": None}, path)


def _divided(kind: type, document: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a file, divided into the fields of `kind` and others."""
    if not isinstance(document, dict):
        raise MissingError(f"{path} is not a JSON object: restore it, or train the run again")
    names = {each.name for each in fields(kind)} - {"others"}
    known = {name: value for name, value in document.items() if name in names}
    return known, {name: value for name, value in document.items() if name not in names}


def _checked(kind: Any, document: dict[str, Any], path: Path) -> Any:
    try:
        return read_fields(kind, document, "")
    except WrongField as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: WrongField) -> MissingError:
    if isinstance(error, UnknownField):
        return MissingError(
            f"{path} was made by a newer version of stres, which has the setting {error.name!r}: use that version"
        )
    return MissingError(f"{path} has {error}: restore it, or train the run again")


def weights_digest(weights: str) -> str:
    """SHA-256 of the file that `--weights` names; empty where it names none, or one that is not there."""
    if weights in ("imagenet", "none") or weights.startswith("run:") or not Path(weights).is_file():
        return ""
    return sha256_of(Path(weights))


def digest(content: Any) -> str:
    """SHA-256 of a JSON document."""
    return hashlib.sha256(json_text(content).encode()).hexdigest()
