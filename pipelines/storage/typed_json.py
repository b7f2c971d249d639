"""Dataclasses to and from JSON. Every value must have the type, and lie in the range, that its field states:

bound: Annotated[float, Within(above=0)]
"""

import contextlib
import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from pipelines.errors import UsageError
from pipelines.interface.wording import setting
from pipelines.storage.atomic import json_text

_hints = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))


@dataclass(frozen=True)
class Within:
    """The range of a number, in its annotation."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf


NOT_COMPARED = object()
"""In the annotation of a field that is kept, but makes no difference between two documents."""


class WrongField(ValueError):
    """A field that is missing, unknown, of another type or out of range: `'twenty' for 'flow.bound'`."""

    def __init__(self, name: str, *found: Any) -> None:
        self.name = name
        text = f"{found[0]!r}"[:60] if found else "nothing"
        super().__init__(f"{text} for {name!r}")


class UnknownField(WrongField):
    """A field that is not known: the document is of a newer version of stres."""


def from_json(kind: Any, value: Any, name: str = "") -> Any:
    """Converts a JSON value to a type.

    Args:
        kind: A dataclass (from an object), tuple or list, mapping, text, number, `Literal`, union, or one of these
            `Annotated` with its range. A dataclass with a `from_json(value, name)` of its own is read by that;
            fields of another may be absent if they have a default.
        value: What `json.loads` gave.
        name: Where the value stands, for messages.

    Raises:
        WrongField: A value is of another type or out of range, a field missing or unknown.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        found = from_json(arguments[0], value, name)
        ranges = [argument for argument in arguments[1:] if isinstance(argument, Within)]
        if not all(each.low <= found <= each.high and found > each.above for each in ranges):
            raise WrongField(name, value)
        return found
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        *others, last = (argument for argument in arguments if argument is not type(None))
        for other in others:
            with contextlib.suppress(WrongField):
                return from_json(other, value, name)
        return from_json(last, value, name)
    if origin is Literal and isinstance(value, str | int) and value in arguments:
        return value
    if origin in (tuple, list) and isinstance(value, list):
        kinds = list(arguments) if origin is tuple and arguments[-1] is not Ellipsis else [arguments[0]] * len(value)
        if len(kinds) == len(value):
            return origin(from_json(each, item, name) for each, item in zip(kinds, value, strict=True))
    if origin is Mapping and isinstance(value, dict):
        of_key, of_value = arguments
        return {from_json(of_key, key, name): from_json(of_value, item, f"{name}.{key}") for key, item in value.items()}
    if hasattr(kind, "from_json"):  # it knows itself
        return kind.from_json(value, name)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return read_fields(kind, value, name)
    if kind is Any or (kind is str and isinstance(value, str)) or (kind is bool and isinstance(value, bool)):
        return value
    is_number = kind in (int, float) and isinstance(value, int | kind) and not isinstance(value, bool)
    if is_number and -math.inf < value < math.inf:
        return value
    raise WrongField(name, value)


def read_fields(kind: Any, document: Mapping[str, Any], name: str) -> Any:
    """The dataclass `kind` with the fields that an object at `name` has. Raises `WrongField`."""
    prefix = f"{name}." if name else ""
    hints, fields = _hints(kind), dataclasses.fields(kind)
    values = {}
    for field in fields:
        if field.name in document:
            values[field.name] = from_json(hints[field.name], document[field.name], prefix + field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise WrongField(prefix + field.name)
    for unknown in document.keys() - values.keys():
        raise UnknownField(prefix + unknown, document[unknown])
    try:
        return kind(**values)
    except UsageError as error:  # of its own check
        raise WrongField(name, document) from error


def to_json(value: Any, *, defaults: bool = True) -> dict[str, Any]:
    """A dataclass as the JSON document that `from_json` reads: tuples are lists. Raises `ValueError` for NaN.

    Without `defaults` those of its own fields that have their default are left out.
    """
    document = json.loads(json_text(dataclasses.asdict(value)))
    usual = {each.name for each in dataclasses.fields(value) if getattr(value, each.name) == each.default}
    return {name: item for name, item in document.items() if defaults or name not in usual}


def not_compared(kind: type) -> set[str]:
    """The fields of a dataclass that are marked with `NOT_COMPARED`."""
    return {name for name, hint in _hints(kind).items() if NOT_COMPARED in getattr(hint, "__metadata__", ())}


def first_difference(old: Any, new: Any, name: str = "") -> str:
    """The first difference between two JSON documents in words, "" for none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return ""
    return "" if old == new else f"{name} was {_short(old)} and is now {_short(new)}"


def _short(value: Any) -> str:
    text = setting(value) if value is None or isinstance(value, bool) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
