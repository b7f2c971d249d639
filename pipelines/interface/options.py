"""Command-line options that are defined once, as the fields of a stage's `Config`.

    crops: Annotated[int, Option(minimum=1, metavar="N")] = 25
    '''Frames per video, spaced evenly (25 in the paper).'''

The field's name is the flag, the docstring below it the help, its default the default, and a `Literal` the choices;
`Option` holds the rest. `stres_cli.config_options` makes the command line from these fields, and `check` applies the
same ranges and choices to a `Config` made in Python. A field without a docstring is not an option.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import math
import os
import re
import shlex
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pipelines.errors import UsageError
from pipelines.video.resize import DEFAULT_SHORT_SIDE, LARGEST_SHORT_SIDE, SMALLEST_SHORT_SIDE


@dataclass(frozen=True)
class Option:
    """What a field's type, default and docstring do not say about its option."""

    help: str = ""
    """The help of a type that several commands share; a docstring below the field replaces it."""
    flag: str = ""
    """The flag if it is not the field's name, with the short form after it: `--workspace -w`."""
    metavar: str = ""
    """The value's placeholder in the help: N, PIXELS, FILE."""
    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    read: Callable[[Any], Any] | None = None
    """Parses the text, or raises `ValueError`; None parses it by the field's type."""
    wanted: str = ""
    """What is accepted, in words; empty derives them from type and range."""
    group: str = ""
    """The option's heading in the help."""
    argument: bool = False
    """Whether it is a positional argument."""
    repeated: bool = False
    """Whether it may be given several times; `read` then takes the list."""
    default: str = ""
    """What a default of None means, in words."""
    envvar: str = ""
    """The environment variable that also sets it."""
    fallback: str = ""
    """The command line's default for a field that a `Config` made in Python has to be given."""
    old_flag: str = ""
    """An older flag that is still accepted, but hidden."""
    switches: tuple[tuple[str, Any, str], ...] = ()
    """Flags without a value, each of which sets one value: flag, value, help."""
    only_switches: bool = False
    """Whether it can be set by its switches only."""
    trailing: str = ""
    """For an option that takes several values after one flag: the hint when the flag itself is missing."""
    separator: str = ","
    """What separates the parts of a value with several."""
    distinct: bool = False
    """Whether a part may not be repeated; parts with choices never may."""
    broadcast: bool = False
    """For a tuple of fixed length: whether a single number stands for all parts."""
    of_step: type | None = None
    """For a mapping from training steps to changes: the dataclass whose fields are its options."""
    steps: tuple[str, ...] = ()
    """The keys of that mapping."""

    def refined(self, by: "Option") -> "Option":
        """This option with everything that `by` sets."""
        default = Option()
        given = {one.name: getattr(by, one.name) for one in dataclasses.fields(by)}
        changes = {name: value for name, value in given.items() if value != getattr(default, name)}
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class ConfigField:
    """One field of a `Config` that is an option."""

    name: str
    kind: type
    """The type of one value: int, float, str, Path or bool."""
    many: bool
    """Whether it takes several values."""
    choices: tuple[Any, ...]
    """The accepted values; empty if there is no closed list."""
    default: Any
    """`dataclasses.MISSING` for a required field."""
    help: str
    option: Option
    length: int = 0
    """The number of values, if it is fixed; otherwise 0."""
    words: tuple[str, ...] = ()
    """Words that are accepted in place of numbers."""
    within: str = ""
    """The field of the `Config` that holds this one, if it is nested."""
    steps: tuple[str, ...] = ()
    """The training steps for which the value may differ."""

    @property
    def flag(self) -> str:
        """`--name`, or the metavar of an argument."""
        return self.option.metavar if self.option.argument else self.flags[0]

    @property
    def flags(self) -> list[str]:
        return self.option.flag.split() or [f"--{self.name.replace('_', '-')}"]

    @property
    def wanted(self) -> str:
        """What is accepted, in words."""
        if self.choices:
            return f"{'some' if self.many else 'one'} of {', '.join(map(str, self.choices))}"
        if self.option.wanted:
            return self.option.wanted
        if self.kind is bool:
            return "yes or no"
        kind = {int: "an integer", float: "a number", Path: "a path"}.get(self.kind, "text")
        option = self.option
        if option.minimum > -math.inf and option.maximum < math.inf:
            return f"{kind} from {option.minimum:g} to {option.maximum:g}"
        limits = (
            ("of at least", option.minimum),
            ("above", option.above),
            ("of at most", option.maximum),
            ("below", option.below),
        )
        said = [f"{words} {limit:g}" for words, limit in limits if math.isfinite(limit)]
        return " ".join([kind, " and ".join(said)]).strip()

    def read(self, text: Any) -> Any:
        """Parses what was typed.

        Args:
            text: The text, or the list of texts of a repeated option. Where the value may differ between training
                steps, `VALUE` or `STEP=VALUE,STEP=VALUE`.

        Returns:
            The value; a dict by step where it may differ between steps.

        Raises:
            UsageError: It cannot be parsed.
        """
        if not self.steps:
            return self._read_value(text)
        if "=" not in text:
            return dict.fromkeys(self.steps, self._read_value(text))
        values = {}
        for part in text.split(","):
            step, _, value = (piece.strip() for piece in part.partition("="))
            if step not in self.steps:
                raise UsageError(f"{self.flag} {text!r}: {step!r} is not a step; the steps are {', '.join(self.steps)}")
            values[step] = self._read_value(value)
        return values

    def _read_value(self, text: Any) -> Any:
        try:
            if self.option.read is not None:
                return self.option.read(text)
            if self.many and self.option.repeated:
                return tuple(map(self.kind, text))
            if text in self.words:
                return text
            if not self.many:
                return self._read_part(text)
            parts = tuple(map(self._read_part, re.split(re.escape(self.option.separator), text, flags=re.IGNORECASE)))
            if self.option.broadcast and len(parts) == 1:
                parts *= self.length
            if self.length not in (0, len(parts)):
                raise ValueError
            return parts
        except (KeyError, ValueError, OverflowError):
            given = text if isinstance(text, str) else " ".join(text)
            raise UsageError(f"{self.flag} {given!r} cannot be read: give {self.wanted}") from None

    def _read_part(self, text: str) -> Any:
        text = text.strip() if self.many else text
        if self.kind is bool:
            return {"yes": True, "no": False}[text]
        if self.choices and text not in self.choices:
            text = _OLD_SPELLINGS.get(text, text)
        if self.kind is Path and not text:  # an unset variable of a shell: as a path it is the current folder
            raise ValueError
        return self.kind(text)

    def typed(self, value: Any) -> str:
        """A value as it would be typed."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple | list):
            return self.option.separator.join(map(self.typed, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    def check(self, value: Any, where: str = "") -> None:
        """Raises `UsageError` if a value is out of range or not one of the choices."""
        if value is None:
            return
        option, several = self.option, self.many and isinstance(value, tuple | list)
        if self.words and isinstance(value, str) and value in self.words:
            return
        if several and not value and value != self.default and (self.choices or self.words):
            raise UsageError(f"{self.flag} ''{where} is not known: give {self.wanted}")
        if self.words and isinstance(value, str):
            raise UsageError(f"{self.flag} {value!r}{where} is not known: give {self.wanted}")
        for one in value if several else (value,):
            if self.choices and one not in self.choices:
                raise UsageError(f"{self.flag} {one!r}{where} is not known: give {self.wanted}")
            is_number = self.kind in (int, float) and not self.choices
            within = is_number and option.minimum <= one <= option.maximum and option.above < one < option.below
            if is_number and not within:  # NaN is not within either
                raise UsageError(f"{self.flag} {self.typed(value) if several else value}{where}: give {self.wanted}")
        if several and (self.choices or option.distinct) and len(set(value)) < len(value):
            raise UsageError(f"{self.flag} {self.typed(value)}{where} names one of them twice: give each once")


def check(config: Any, where: str = "") -> None:
    """Checks every field of a `Config` except nested dataclasses, which check themselves.

    Args:
        where: What the values belong to, to be read after them (" for joint1").

    Raises:
        UsageError: A field is out of range or not one of its choices.
    """
    kind: Any = type(config)  # for mypy, which does not know that classes can be hashed
    for field in fields_of(kind):
        if not field.within:
            field.check(getattr(config, field.name), where)


def require(name: str, kind: Any, value: Any) -> None:
    """Checks one argument of a function as `check` does a field.

    Args:
        kind: Its annotation, with the range or the choices.

    Raises:
        UsageError: It is out of range or not one of the choices.
    """
    hint, option = _split_annotation(kind)
    field = ConfigField(
        name=name, default=value, help="", option=option.refined(Option(flag=name)), **_describe_type(hint)
    )
    field.check(value)


@functools.cache
def fields_of(config: type) -> tuple[ConfigField, ...]:
    """The options of a `Config` in the order in which it takes its fields, including those of nested dataclasses."""
    helps = _field_docstrings(config)
    hints = typing.get_type_hints(config, include_extras=True)
    found: list[ConfigField] = []
    for field in sorted(dataclasses.fields(config), key=lambda one: one.kw_only is True):
        hint, option = _split_annotation(hints[field.name])
        if option.of_step is not None:
            found += [
                dataclasses.replace(
                    one,
                    within=field.name,
                    steps=option.steps,
                    default=None,
                    option=dataclasses.replace(one.option, group=option.group),
                )
                for one in fields_of(option.of_step)
            ]
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            found += [dataclasses.replace(one, within=field.name) for one in fields_of(hint)]
        elif text := helps.get(field.name, option.help):
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            of_type = _describe_type(hint)
            found.append(ConfigField(name=field.name, default=default, help=text, option=option, **of_type))
    return tuple(found)


def _split_annotation(hint: Any) -> tuple[Any, Option]:
    """The type of an annotation, and its `Option`."""
    if typing.get_origin(hint) is not Annotated:
        return hint, Option()
    kind, *said = typing.get_args(hint)
    return kind, functools.reduce(Option.refined, said)


def _describe_type(hint: Any) -> dict[str, Any]:
    """The `kind`, `many`, `choices`, `length` and `words` of a `ConfigField`, from its type."""
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return {"kind": type(parts[0]), "many": False, "choices": tuple(parts)}
    if origin in (typing.Union, types.UnionType):
        first, *others = (_describe_type(part) for part in parts if part is not types.NoneType)
        if any(other["many"] for other in others):
            first["many"] = True
        elif others and first["kind"] in (int, float):
            first["words"] = others[0]["choices"]
        return first
    if origin in (tuple, list, Sequence):
        length = len(parts) if origin is tuple and Ellipsis not in parts else 0
        return _describe_type(parts[0]) | {"many": True, "length": length}
    return {"kind": hint if isinstance(hint, type) else str, "many": False, "choices": ()}


def _field_docstrings(config: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of its base classes, read from their source."""
    found: dict[str, str] = {}
    for one in reversed(config.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        body = typing.cast(ast.ClassDef, definition).body
        for field, below in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[field.target.id] = " ".join(below.value.value.split())
    return found


# ------------------------------------------------------------------ choices

StreamName = Literal["appearance", "motion"]
BOTH_STREAMS: tuple[StreamName, ...] = typing.get_args(StreamName)
Depth = Literal[26, 50, 101, 152]
ResNetForm = Literal["v1", "v1.5"]
Fusion = Literal["add", "multiply", "none"]
Direction = Literal["motion-to-appearance", "appearance-to-motion", "both", "none"]
TemporalInit = Literal["average", "center", "random"]
CameraMotion = Literal["none", "mean", "median"]
Augmentation = Literal["corner-jittered", "multi-scale-corner", "mild", "center"]
Precision = Literal["fp32", "bf16", "fp16"]
ViewName = Literal["full", "center", "3", "5", "10"]
TemporalName = Literal["sequence", "windows", "clips"]
Balance = Literal["none", "sampler", "loss"]
CheckpointName = Literal["last", "best"]
HeldOut = Literal["held-out"]
HELD_OUT: HeldOut = "held-out"
Space = Literal["logits", "softmax", "l2"]
Compression = Literal["zstd", "gzip"]
PictureFormat = Literal["jpg", "png"]
_OLD_SPELLINGS = {"centre": "center"}  # choices of stres 0.1, which are still accepted

# ------------------------------------------------------------------ options that several commands share

Positive = Annotated[int, Option(metavar="N", minimum=1)]
Probability = Annotated[float, Option(minimum=0, below=1)]


def method_options(pairs: Sequence[str]) -> dict[str, str]:
    """`("warps=3",)` as a dict. Raises `ValueError`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(pair)
        found[name.strip()] = value.strip()
    return found


DAMAGED = "Damaged videos"
RARELY = "Rarely needed"

VIDEOS = "A folder of class folders, a list file (path label, or path,start,end,label), a single video, or a glob."
Videos = Annotated[str, Option(VIDEOS, metavar="VIDEOS", argument=True)]
DEFAULT_WORKSPACE = Path("stres-work")
WorkspaceFolder = Annotated[
    Path,
    Option(
        "Folder that holds every stage's artifacts.",
        "--workspace -w",
        "DIR",
        envvar="STRES_WORKSPACE",
        fallback="stres-work",
    ),
]


def command_line(workspace: Path, *words: str) -> str:
    """`stres WORDS`, to be typed: with --workspace where neither the default nor STRES_WORKSPACE is that workspace."""
    usual = os.environ.get("STRES_WORKSPACE") or DEFAULT_WORKSPACE
    return " ".join(
        ["stres", *words, *([] if workspace == Path(usual) else ["--workspace", shlex.quote(str(workspace))])]
    )


def python_literal(path: Path) -> str:
    """A path in a line of Python, in double quotes, so that the line can stand in a shell's single ones."""
    return json.dumps(str(path), ensure_ascii=False)


def python_command(lines: Sequence[str]) -> str:
    """These lines of Python as a command, to be typed."""
    return f"python -c {shlex.quote('; '.join(lines))}"


DeviceName = Annotated[str, Option("auto (a GPU if there is one), cpu, cuda or cuda:N.", "--device", "NAME")]
Workers = Annotated[int, Option("Worker processes (0: one per CPU core).", metavar="N", minimum=0, maximum=4096)]
Seed = Annotated[int, Option("Random seed.", metavar="N", minimum=0)]
Patience = Annotated[
    float,
    Option(
        "Fail a video after this many seconds without progress, and replace its process.",
        metavar="SECONDS",
        minimum=1,
        group=DAMAGED,
    ),
]
AllowTruncated = Annotated[
    bool, Option("Store what decodes of a truncated video, marked as truncated, instead of failing it.", group=DAMAGED)
]
AllowDamaged = Annotated[
    bool, Option("Store videos with damaged frames, marked as damaged, instead of failing them.", group=DAMAGED)
]
ShortSide = Annotated[
    int | None,
    Option(
        "Resize to exactly this short side.",
        metavar="PIXELS",
        minimum=SMALLEST_SHORT_SIDE,
        maximum=LARGEST_SHORT_SIDE,
        default=f"{DEFAULT_SHORT_SIDE}, but small videos are enlarged at most 1.25 times (240 becomes 256; smaller "
        "ones keep their size)",
    ),
]
Overwrite = Annotated[bool, Option("Redo what is already done.")]
DryRun = Annotated[bool, Option("Estimate time and disk space; write nothing.")]
RunOrFolder = Annotated[
    str | None,
    Option(
        "A run of the workspace, by name, or the folder of any run.",
        metavar="NAME|DIR",
        default="the newest finished run",
    ),
]
UsedNetwork = Annotated[
    str | None,
    Option(
        "Which network of the run: that of a training step, or late (both base streams, logits averaged).",
        "--network",
        "STEP",
        old_flag="--step",
        default="that of the last step",
    ),
]
Mirror = Annotated[
    bool | None,
    Option(
        "Also score the mirror images.",
        metavar="yes|no",
        default="yes with full and 10, if the run was trained with mirrors",
    ),
]
Temporal = Annotated[
    TemporalName | None,
    Option(
        "sequence (all frames of a video or window at once), windows (as long as in training), or clips (frames as "
        "close together as in training).",
        default="sequence; student: clips",
    ),
]
UsedCheckpoint = Annotated[
    CheckpointName,
    Option("last, or best: the weights of the highest accuracy on the videos held out of training.", "--checkpoint"),
]
FusionWeight = Annotated[
    float | HeldOut,
    Option(
        "Weight of the appearance stream in the fused scores; held-out: the best on the videos held out of training.",
        metavar="SHARE|held-out",
        minimum=0,
        maximum=1,
        wanted="a number from 0 to 1, or held-out",
    ),
]
TestedFusionWeight = Annotated[
    FusionWeight,
    Option("Weight of the appearance stream in the fused scores; held-out: the one that `stres evaluate` chose."),
]
EQUAL_WEIGHTS = 0.5
TestPrecision = Annotated[Precision, Option("fp32, bf16, or fp16 (GPU only).", "--precision")]
LoaderWorkers = Annotated[
    int,
    Option(
        "Data-loading processes (0: one per core with a GPU, none on the CPU).",
        "--workers",
        "N",
        minimum=0,
        maximum=4096,
    ),
]
FlowCompression = Annotated[
    Compression, Option("Lossless compression: zstd, or gzip for files that must open anywhere.")
]
BOUND = Option("Clip the flow to -BOUND..BOUND before storing it.", "--bound", "PIXELS", above=0)
FLOW_STEP = Option("Flow from frame t to frame t+N.", "--step", "N", minimum=1)
MethodOptions = Annotated[
    dict[str, str],
    Option(
        "Set a parameter of the method, named as in its library; may be repeated.",
        "--method-option",
        "NAME=VALUE",
        repeated=True,
        read=method_options,
        wanted="NAME=VALUE, such as warps=3",
    ),
]
PictureFolders = Annotated[
    Path,
    Option(
        "Folder that holds the videos' folders: [CLASS/]VIDEO/, u/VIDEO/ and v/VIDEO/, or VIDEO/u/ and VIDEO/v/.",
        metavar="DIR",
        argument=True,
    ),
]
ClassList = Annotated[
    Path | None,
    Option(
        "Classes of the videos, if the folders do not give them: a folder of split lists, or a list file (path label).",
        "--list",
        "PATH",
    ),
]
PictureClassesAt = Annotated[
    int | None,
    Option(
        "Take the Nth folder below DIR as the class (u and v do not count), whatever the layout looks like.",
        "--classes-at",
        "N",
        minimum=1,
    ),
]
AssumedFps = Annotated[
    float | None,
    Option(
        "Frames per second, which pictures do not record.",
        "--fps",
        "N",
        above=0,
        maximum=1000,
        default="25, marked as assumed",
    ),
]
FirstPicture = Annotated[
    int | None,
    Option("Number of the first picture to import.", "--first", "N", minimum=0, default="all, from 0 or 1 on"),
]
