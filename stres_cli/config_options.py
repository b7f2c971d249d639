"""Commands made from the `Config` of their stage: every option, default, choice and range is stated there.

    @command(example="stres export model.onnx --run split1")
    def export(ui: CommandUI, config: stage.Config) -> None:
        '''Write a run's network as one file.'''

is the command `export`: its options are the fields of `stage.Config` that have a help (`pipelines.options`), beside
`--json` and `--debug`, and its body gets a `Config` that has been checked.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from pipelines.errors import UsageError
from pipelines.options import ConfigField, fields_of
from stres_cli import INTERRUPTED, console

Body = Callable[..., None]

_JSON = Annotated[bool, typer.Option("--json", metavar="", help="One JSON document on stdout, all else on stderr.")]
_DEBUG = Annotated[
    bool, typer.Option("--debug", envvar="STRES_DEBUG", metavar="", help="Show the traceback of an error.")
]


def command(
    *, example: str, shared: bool = False, interrupted: str | Callable[[Any], str] = INTERRUPTED
) -> Callable[[Body], Body]:
    """Makes a command, as Typer takes it, of a body with the parameters `ui` and `config`.

    example: a call that shows what the command is for; it ends the help.
    shared: whether the processes of torchrun share its work (`console.command`).
    interrupted: what a user who stopped it has to know; a function of the `Config` where that depends.
    """

    def made(body: Body) -> Body:
        config_type = typing.get_type_hints(body)["config"]
        fields = fields_of(config_type)

        def function(*, as_json: bool, debug: bool, **given: Any) -> None:
            with console.command(as_json, debug, shared=shared, interrupted=INTERRUPTED) as ui:
                config = config_type(**_values(fields, given))
                ui.interrupted = interrupted(config) if callable(interrupted) else interrupted
                body(ui, config)

        parameters = [_parameter(field.name, _annotation(field), None) for field in fields]
        parameters += [_parameter("as_json", _JSON, False), _parameter("debug", _DEBUG, False)]
        function.__name__, function.__doc__ = body.__name__, body.__doc__
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {one.name: one.annotation for one in parameters}
        function.example = example  # type: ignore[attr-defined]
        function.config_type = config_type  # type: ignore[attr-defined]
        return function

    return made


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotation(field: ConfigField) -> Any:
    """The field as Typer takes it: text, which `_values` reads, or a switch; None where it is not given."""
    option = field.option
    if option.argument:
        return Annotated[str | None, typer.Argument(metavar=option.metavar, help=_help(field))]
    shown: dict[str, Any] = {
        "help": _help(field),
        "envvar": option.variable or None,
        "rich_help_panel": option.group or None,
    }
    if field.kind is bool:
        name = field.flags[0]
        switch = name if field.default is False else f"{name}/--no-{name.removeprefix('--')}"
        return Annotated[bool | None, typer.Option(switch, metavar="", **shown)]
    metavar = option.metavar or ("NAME" if field.choices else "VALUE")
    kind: Any = list[str] if option.repeated else str
    return Annotated[kind | None, typer.Option(*field.flags, metavar=metavar, **shown)]


def _help(field: ConfigField) -> str:
    """The help with the choices, and the default as it would be typed."""
    text = field.help
    if not all(choice in text for choice in field.choices):
        text += f" {', '.join(field.choices[:-1])} or {field.choices[-1]}."
    default = field.option.default or _typed(field.default) or field.option.fallback
    return f"{text} Default: {default}." if default else text


def _typed(value: Any) -> str:
    """A default as it would be typed; nothing for what need not be told."""
    if value is None or value is dataclasses.MISSING or isinstance(value, bool | Mapping):
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(fields: tuple[ConfigField, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, read. Raises `UsageError`, also for what has to be given and is not."""
    values = {}
    for field in fields:
        value = given[field.name]
        if value in (None, []):
            value = field.option.fallback or None
        if value is None:
            if field.default is dataclasses.MISSING:
                raise UsageError(f"{field.flag} is missing: give {field.wanted} (--help tells more)")
        else:
            values[field.name] = value if isinstance(value, bool) else field.read(value)
    return values
