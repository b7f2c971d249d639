"""The fields of a stage's `Config` as options: each is stated once, where it is defined.

    crops: Annotated[int, Option(minimum=1, metavar="N")] = 25
    '''Frames of a video, spaced evenly; the paper's are 25.'''

The flag is the field's name, the help is the string below the field, closed choices are a `Literal`, the default is the
default; an `Option` holds what else there is to say. The command line is made from that
(`stres_cli.config_options`), and `check` applies the same ranges and choices to a `Config` made in Python. A field
without help is no option.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pipelines.errors import UsageError


@dataclass(frozen=True)
class Option:
    """What a field's type, default and help do not say of its option."""

    help: str = ""
    """For types that several commands share; the string below a field takes its place."""
    flag: str = ""
    """Where it is not the field's name; with `-w` behind it, where there is a short form."""
    metavar: str = ""
    """What stands for the value in the help: N, PIXELS, FILE."""
    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    read: Callable[[Any], Any] | None = None
    """From the text that is given; raises `ValueError`. None: by the type."""
    wanted: str = ""
    """What `read` accepts, in words."""
    group: str = ""
    """The heading it stands under in the help."""
    argument: bool = False
    """Given by its place, without a flag."""
    repeated: bool = False
    """May be given several times; `read` then takes the list."""
    default: str = ""
    """What None stands for, in words."""
    variable: str = ""
    """The environment variable that it is taken from."""
    fallback: str = ""
    """What the command line takes where it is not given, though a `Config` made in Python has to give it."""


@dataclass(frozen=True)
class ConfigField:
    """One field of a `Config` that is an option."""

    name: str
    kind: type
    """Of one value: int, float, str, Path or bool."""
    many: bool
    """Whether it takes several values, separated by commas."""
    choices: tuple[str, ...]
    """All that it may be; empty: anything of its kind."""
    default: Any
    """`dataclasses.MISSING` where it has to be given."""
    help: str
    option: Option

    @property
    def flag(self) -> str:
        """`--name`; an argument's metavar."""
        return self.option.metavar if self.option.argument else self.flags[0]

    @property
    def flags(self) -> list[str]:
        return self.option.flag.split() or [f"--{self.name.replace('_', '-')}"]

    @property
    def wanted(self) -> str:
        """What may be given, in words."""
        if self.choices:
            return f"{'some' if self.many else 'one'} of {', '.join(self.choices)}"
        if self.option.wanted:
            return self.option.wanted
        kind = {int: "a whole number", float: "a number", Path: "a path"}.get(self.kind, "text")
        option = self.option
        low = f" from {option.minimum:g} up" if option.minimum > -math.inf else ""
        low = f" above {option.above:g}" if option.above > -math.inf else low
        high = f" to {option.maximum:g}" if option.maximum < math.inf else ""
        high = f" to below {option.below:g}" if option.below < math.inf else high
        return kind + (low.removesuffix(" up") if high else low) + high

    def read(self, text: Any) -> Any:
        """The value that is meant by what was typed, or by the list of that. Raises `UsageError`."""
        try:
            if self.option.read is not None:
                return self.option.read(text)
            if self.many:
                return tuple(self.kind(part.strip()) for part in text.split(","))
            return self.kind(text)
        except (ValueError, OverflowError):
            raise UsageError(f"{self.flag} {text!r} cannot be read: give {self.wanted}") from None

    def check(self, value: Any) -> None:
        """Raises `UsageError` where a value is out of range, or not one of the choices."""
        if value is None:
            return
        for one in value if self.many and isinstance(value, tuple) else (value,):
            if self.choices and one not in self.choices:
                raise UsageError(f"{self.flag} {one!r} is not known: give {self.wanted}")
            if not self._in_range(one):
                raise UsageError(f"{self.flag} {one}: give {self.wanted}")
        if self.many and isinstance(value, tuple) and len(set(value)) < len(value):
            raise UsageError(f"{self.flag} {','.join(map(str, value))} names one of them twice: give each once")

    def _in_range(self, value: Any) -> bool:
        option = self.option
        if self.kind not in (int, float) or self.choices or option.read is not None:
            return True
        return option.minimum <= value <= option.maximum and option.above < value < option.below  # NaN is not


def check(config: Any) -> None:
    """Raises `UsageError` for the first field of a `Config` that is out of range or not one of its choices."""
    kind: Any = type(config)  # for mypy, which does not know that classes can be hashed
    for field in fields_of(kind):
        field.check(getattr(config, field.name))


@functools.cache
def fields_of(config: type) -> tuple[ConfigField, ...]:
    """The options of a `Config`, in its order."""
    helps = _strings_below_fields(config)
    hints = typing.get_type_hints(config, include_extras=True)
    found = []
    for field in dataclasses.fields(config):
        hint, option = hints[field.name], Option()
        if typing.get_origin(hint) is Annotated:
            hint, option = typing.get_args(hint)
        if text := helps.get(field.name, option.help):
            kind, many, choices = _resolved(hint)
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            found.append(ConfigField(field.name, kind, many, choices, default, text, option))
    return tuple(found)


def _resolved(hint: Any) -> tuple[type, bool, tuple[str, ...]]:
    """The type of one value, whether there may be several, and the choices, of a field's annotation."""
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return type(parts[0]), False, tuple(parts)
    if origin in (typing.Union, types.UnionType):
        kinds = [_resolved(part) for part in parts if part is not types.NoneType]
        return kinds[0][0], any(many for _, many, _ in kinds), kinds[0][2]
    if origin in (tuple, list):
        kind, _, choices = _resolved(parts[0])
        return kind, True, choices
    return (hint if isinstance(hint, type) else str), False, ()


def _strings_below_fields(config: type) -> dict[str, str]:
    """The string that stands below each field in the source of a dataclass and of those it is derived from."""
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


# ------------------------------------------------------------------ options that mean the same in every command


def method_options(pairs: Sequence[str]) -> dict[str, str]:
    """`("warps=3",)` as a dict. Raises `ValueError`."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(pair)
        found[name.strip()] = value.strip()
    return found


DEFAULT_WORKSPACE = Path("stres-work")
WorkspaceFolder = Annotated[
    Path,
    Option(
        "Folder that holds every stage's artifacts.",
        "--workspace -w",
        "DIR",
        variable="STRES_WORKSPACE",
        fallback="stres-work",
    ),
]
DeviceName = Annotated[str, Option("auto (a GPU if there is one), cpu, cuda or cuda:N.", "--device", "NAME")]
Workers = Annotated[int, Option("Worker processes; 0: one for each CPU core.", metavar="N", minimum=0, maximum=4096)]
Seed = Annotated[int, Option("Seed of every random draw.", metavar="N", minimum=0)]
Overwrite = Annotated[bool, Option("Make again what is already there.")]
DryRun = Annotated[bool, Option("Say how much work and disk this would take; write nothing.")]
RunOrFolder = Annotated[
    str | None,
    Option("A run of the workspace, or the folder of another.", metavar="NAME|DIR", default="the newest finished"),
]
UsedStep = Annotated[
    str | None, Option("The run's network: a training step, or late.", metavar="STEP", default="the last")
]
Compression = Annotated[
    Literal["zstd", "gzip"], Option("Both lose nothing: zstd, or gzip for files that must open anywhere.")
]
MethodOptions = Annotated[
    dict[str, str],
    Option(
        "A parameter of the method by its library's name; may be given again.",
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
        "Folder of the videos' folders: [CLASS/]VIDEO/, u/VIDEO/ and v/VIDEO/, or VIDEO/u/ and VIDEO/v/.",
        metavar="DIR",
        argument=True,
    ),
]
ClassList = Annotated[
    Path | None,
    Option(
        "Classes by video, where folders do not tell: a folder of split lists, or a file of lines path label.",
        "--list",
        "PATH",
    ),
]
AssumedFps = Annotated[
    float | None,
    Option(
        "Frames a second, which pictures do not tell.",
        "--fps",
        "N",
        above=0,
        maximum=1000,
        default="25, marked as assumed",
    ),
]
FirstPicture = Annotated[
    int | None,
    Option("Number of the first picture to take.", "--first", "N", minimum=0, default="all of them, from 0 or 1 on"),
]
