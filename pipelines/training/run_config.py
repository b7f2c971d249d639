"""What the files of a run must hold for anything to be done with it, since they may come from anybody."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.datasets.split_lists import Split
from pipelines.errors import MissingError
from pipelines.storage.atomic import json_text
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.typed_json import WrongField
from pipelines.training.recipes import CROP_SCHEMES


def checked_config(document: Any, path: Path) -> dict[str, Any]:
    """`config.json` if it says all that training and tests rely on. Raises `MissingError` naming the first that is
    missing or of another kind."""
    return _checked(document, _CONFIG, path)


def checked_split(document: Any, path: Path) -> Split:
    """`split.json` as a split. Raises `MissingError`.

    Its rule for groups is left out: leaks are told when a run is trained, and a stranger's expression may take years.
    """
    fields = _checked(document, _SPLIT, path)
    held_apart = document.get("held_apart", [])
    if not _are_texts(held_apart):
        raise MissingError(f"{path} has {held_apart!r:.60} for 'held_apart': restore it, or train the run again")
    return Split(**{name: fields[name] for name in _SPLIT}, held_apart=held_apart)


def _checked(document: Any, fields: "Mapping[str, Callable[[Any], bool]]", path: Path) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise MissingError(f"{path} is no JSON object: restore it, or train the run again")
    for name, is_usable in fields.items():
        if name not in document or not is_usable(document[name]):
            found = f"{document[name]!r}"[:60] if name in document else "nothing"
            raise MissingError(f"{path} has {found} for {name!r}: restore it, or train the run again")
    return document


def _is_whole(value: Any, low: int, high: int = 1 << 20) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_classes(value: Any) -> bool:
    return _are_texts(value) and len(value) == len(set(value)) > 0


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_whole(side, 32, 8192) for side in value)


def _are_counted(value: Any) -> bool:
    return isinstance(value, dict) and _is_whole(value.get("count"), 0, 1 << 40) and _is_text(value.get("sha256"))


def _are_steps(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(step, dict) and _is_whole(step.get("frames"), 1) and step.get("crops") in CROP_SCHEMES
        for step in value.values()
    )


def _is_flow(value: Any) -> bool:
    """Empty, of a run without flow files, or with what computing more of it needs."""
    try:
        return value == {} or bool(FlowSettings.from_json(value))
    except WrongField:
        return False


def flow_of(settings: Mapping[str, Any]) -> FlowSettings | None:
    return FlowSettings.from_json(settings["flow"]) if settings["flow"] else None


def _is_network(value: Any) -> bool:
    return isinstance(value, dict) and {"depth", "width", *_CONNECTION} <= value.keys()


_CONNECTION = ("fusion", "direction", "temporal_kernels", "temporal_init")
_CONFIG: Mapping[str, Callable[[Any], bool]] = {
    "recipe": _is_text,
    "split": lambda value: _is_whole(value, 0),
    "seed": lambda value: _is_whole(value, 0, 1 << 63),
    "size": _is_size,
    "weights": _is_text,
    "precision": _is_text,
    "network": _is_network,
    "classes": _are_classes,
    "train_videos": _are_counted,
    "flow": _is_flow,
    "steps": _are_steps,
    "stres_version": _is_text,
}
_SPLIT: Mapping[str, Callable[[Any], bool]] = {
    "number": lambda value: _is_whole(value, 0),
    "train": _are_texts,
    "test": _are_texts,
    "classes": _are_texts,
    "source": _is_text,
}


def digest(content: Any) -> str:
    """SHA-256 of a JSON document."""
    return hashlib.sha256(json_text(content).encode()).hexdigest()
