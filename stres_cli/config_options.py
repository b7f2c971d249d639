"""Commands made from the `Config` of their stage, which defines every option, default, choice and range.

    @command(example="stres export model.onnx --run split1")
    def export(ui: CommandUI, config: stage.Config) -> None:
        '''Write a run's network as one file.'''

is the command `export`: its options are those of `stage.Config` (`pipelines.interface.options`), `--json` and
`--debug`, and its body is given a `Config` that has been checked.
"""

import dataclasses
import inspect
import itertools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from pipelines.errors import UsageError
from pipelines.interface.options import ConfigField, fields_of
from stres_cli import INTERRUPTED, console

Body = Callable[..., None]

_JSON = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON document to stdout, everything else to stderr.")
]
_DEBUG = Annotated[
    bool, typer.Option("--debug", envvar="STRES_DEBUG", metavar="", help="Show the traceback of an error.")
]


def command(
    *, example: str, shared: bool = False, interrupted: str | Callable[[Any], str] = INTERRUPTED
) -> Callable[[Body], Body]:
    """Turns a body with the parameters `ui` and `config` into a function that Typer makes a command of.

    Further parameters of the body are options of the command that are not settings of its stage.

    Args:
        example: A typical call, shown at the end of the help.
        shared: Whether the processes of torchrun share its work (`console.command`).
        interrupted: What to tell a user who stopped it, or a function of the `Config` that returns that.
    """

    def made(body: Body) -> Body:
        config_type = typing.get_type_hints(body)["config"]
        further = list(inspect.signature(body, eval_str=True).parameters.values())[2:]

        def function(*, as_json: bool, debug: bool, **given: Any) -> None:
            with console.command(as_json, debug, shared=shared) as ui:
                config = config_type(**_values(config_type, given))
                ui.interrupted = interrupted(config) if callable(interrupted) else interrupted
                body(ui, config, **{one.name: given[one.name] for one in further})

        parameters = [one for field in fields_of(config_type) for one in _parameters(field)] + further
        parameters += [_parameter("as_json", _JSON, False), _parameter("debug", _DEBUG, False)]
        function.__name__, function.__doc__ = body.__name__, body.__doc__
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {one.name: one.annotation for one in parameters}
        function.example = example  # type: ignore[attr-defined]
        function.config_type = config_type  # type: ignore[attr-defined]
        return function

    return made


def spelled_out(config_type: type, args: Sequence[str]) -> list[str]:
    """The arguments of a command with `--mirror` and `--no-mirror`, where nothing follows that is a value, as `--mirror
    yes` and `--mirror no`; so for every option that takes yes or no. Older forms, which are still accepted."""
    fields = fields_of(config_type)
    flags = {field.flag for field in fields if field.kind is bool and (field.steps or field.option.metavar)}
    positional = any(field.option.argument for field in fields)
    given: list[str] = []
    for word, following in itertools.zip_longest(args, args[1:], fillvalue="-"):
        positive = f"--{word.removeprefix('--no-')}"
        if word in flags and (following not in ("yes", "no") if positional else following.startswith("-")):
            given += [word, "yes"]
        elif word.startswith("--no-") and positive in flags:
            given += [positive, "no"]
        else:
            given.append(word)
    return given


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameters(field: ConfigField) -> list[inspect.Parameter]:
    """The field's parameters for Typer, all of them None unless given: its text, which `_values` reads, its older flag
    and its switches."""
    option = field.option
    required = option.argument and field.default is dataclasses.MISSING
    default = inspect.Parameter.empty if required else None
    found = [] if option.only_switches else [_parameter(field.name, _annotation(field), default)]
    if option.old_flag:
        hidden = typer.Option(option.old_flag, hidden=True)
        found.append(_parameter(f"{field.name}_old", Annotated[str | None, hidden], None))
    if option.trailing:
        behind = typer.Argument(hidden=True, metavar="")
        found.append(_parameter(f"{field.name}_trailing", Annotated[list[str] | None, behind], None))
    for number, (flag, _, text) in enumerate(option.switches):
        switch = typer.Option(flag, metavar="", help=text, rich_help_panel=option.group or None)
        found.append(_parameter(f"{field.name}_switch{number}", Annotated[bool, switch], False))
    return found


def _annotation(field: ConfigField) -> Any:
    option = field.option
    kind: Any = list[str] if option.repeated else str
    if option.argument:
        if field.default is not dataclasses.MISSING:
            kind = kind | None
        return Annotated[kind, typer.Argument(metavar=option.metavar, help=_help(field))]
    shown: dict[str, Any] = {
        "help": _help(field),
        "envvar": option.envvar or None,
        "rich_help_panel": option.group or None,
    }
    if field.kind is bool and not field.steps and not option.metavar:
        name = field.flags[0]
        switch = name if field.default is False else f"{name}/--no-{name.removeprefix('--')}"
        return Annotated[bool | None, typer.Option(switch, metavar="", **shown)]
    if field.choices and not field.steps:
        choices = [*map(str, field.choices)]
        shown["autocompletion"] = lambda incomplete: [one for one in choices if one.startswith(incomplete)]
    metavar = option.metavar or ("NAME" if field.choices and not field.steps else "VALUE")
    return Annotated[kind | None, typer.Option(*field.flags, metavar=metavar, **shown)]


def _help(field: ConfigField) -> str:
    """The help text, with the choices and the default."""
    text = field.help
    *others, last = map(str, field.choices or [""])
    if not all(choice in text for choice in (*others, last)):
        text = f"{text.removesuffix('.')}: {', '.join(others)} or {last}."
    value, default = field.default, field.option.default or field.option.fallback
    if value is True:
        default = default or "on"
    elif not isinstance(value, bool | Mapping | None) and value is not dataclasses.MISSING:
        default = default or field.typed(value)
    if value is dataclasses.MISSING and not default and not field.option.argument:  # which Typer marks itself
        text += " Required."
    return f"{text} Default: {default}." if default else text


def _values(config_type: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given. Raises `UsageError` for one that cannot be read, and for a required one that is
    missing."""
    values: dict[str, Any] = {}
    inside: dict[str, dict[str, Any]] = {}
    for field in fields_of(config_type):
        value = _given(field, given)
        if value is None:
            if field.default is dataclasses.MISSING:
                raise UsageError(f"{field.flag} is missing: give {field.wanted} (see --help)")
        elif field.steps:
            for step, number in value.items():
                inside.setdefault(field.within, {}).setdefault(step, {})[field.name] = number
        elif field.within:
            inside.setdefault(field.within, {})[field.name] = value
        else:
            values[field.name] = value
    for name, held in inside.items():
        default = getattr(config_type, name, None)  # of a nested dataclass; a mapping has none
        values[name] = held if default is None else dataclasses.replace(default, **held)
    return values


def _given(field: ConfigField, given: Mapping[str, Any]) -> Any:
    """The field's value, or None if it was not given. Raises `UsageError`."""
    option = field.option
    found: dict[str, Any] = {}
    behind = given.get(f"{field.name}_trailing") or []
    if behind and not given[field.name]:
        raise UsageError(f"{' '.join(behind)!r} does not belong to an option: {option.trailing}")
    for number, (flag, value, _) in enumerate(option.switches):
        if given[f"{field.name}_switch{number}"]:
            found[flag] = value
    for flag, name in ((field.flag, field.name), (option.old_flag, f"{field.name}_old")):
        if (text := given.get(name)) not in (None, []):
            found[flag] = text if isinstance(text, bool) else field.read([*text, *behind] if behind else text)
    first, *others = found.values() or [None]
    if any(value != first for value in others):  # a NaN differs from itself
        raise UsageError(f"{' and '.join(found)} contradict each other: give only one")
    if found:
        return first
    return field.read(option.fallback) if option.fallback else None
