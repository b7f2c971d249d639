"""The complete resolved configuration of a run, and the rule that a run keeps it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipelines.datasets.split_lists import Split
from pipelines.errors import UsageError
from pipelines.provenance import made_by
from pipelines.training.runs import Run
from pipelines.workspace import json_text, write_json

RUN_SCHEMA = "stres/run/1"
_MAY_DIFFER = ("stres_version", "library_versions")


def write_or_compare(
    run: Run, settings: Mapping[str, Any], split: Split, sources: Mapping[str, str], *, write: bool = True
) -> None:
    """Writes `config.json` and `split.json` of a new run; of an old one checks that this continues it.

    `settings` holds everything that decides the result; `settings["steps"]` only the steps of this call, which a run
    collects. `sources`: SHA-256 of the videos' sources, by id. Without `write` it only checks. Raises `UsageError`
    naming the first difference.
    """
    document = _document(settings, split)
    if not run.config_file.exists():
        if write:
            write_json(run.split_file, dataclasses.asdict(split) | {"sources": dict(sources)})
            write_json(run.config_file, document)
        return
    old = run.config()
    steps = old.get("steps", {}) | document["steps"]
    difference = first_difference(old | {"steps": steps | old.get("steps", {})}, document | {"steps": steps})
    if difference:
        other_videos = difference.startswith("train_videos")
        same = "extract again what is missing of its videos" if other_videos else "give the same options"
        raise UsageError(
            f"run {run.name} was begun with another configuration: {difference}; {same} to continue it, "
            "another --name, or --overwrite to begin anew"
        )
    if replaced := other_sources(run, sources):
        raise UsageError(
            f"run {run.name} was begun with other videos: {replaced}; restore them and extract them again to continue "
            "it, another --name, or --overwrite to begin anew"
        )
    if write and steps != old.get("steps"):
        write_json(run.config_file, old | {"steps": steps})


def other_sources(run: Run, sources: Mapping[str, str]) -> str:
    """In words, which of these videos are no longer what they were when the run was begun; empty where none is."""
    before = run.sources()
    replaced = [id_ for id_, sha256 in sources.items() if before.get(id_, sha256) != sha256]
    if not replaced:
        return ""
    count = f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
    return f"what is stored as {replaced[0]}{count} comes from another video now (its SHA-256 differs)"


def describe_base(base: Run, settings: Mapping[str, Any], split: Split, sources: Mapping[str, str]) -> dict[str, Any]:
    """Name and weights of the run whose streams another run's joint1 starts from.

    Raises `UsageError` where it was trained on other videos, classes, flow or input: its streams may have seen what
    this run is tested on, or mean something else by their inputs and outputs.
    """
    old, new = base.config(), _document(settings, split)
    for name in ("classes", "split_sha256", "train_videos", "flow", "size"):
        difference = first_difference(old.get(name), new[name], name)
        if difference:
            raise UsageError(f"--base-run {base.name} does not fit this run: {difference}; give one of the same split")
    if replaced := other_sources(base, sources):
        raise UsageError(f"--base-run {base.name} was trained on other videos: {replaced}; train its streams again")
    streams = [step for step in ("appearance", "motion") if base.weights_file(step).exists()]
    return {"name": base.name, "weights_sha256": {step: base.weights_sha256(step) for step in streams}}


def _document(settings: Mapping[str, Any], split: Split) -> dict[str, Any]:
    document = {
        **made_by(RUN_SCHEMA, "opencv", "numpy", "torch"),
        **settings,
        "split_sha256": digest([split.train, split.test]),
    }
    return json.loads(json_text(document))  # what reading it again would give: tuples are lists


def digest(content: Any) -> str:
    """SHA-256 of a JSON document."""
    return hashlib.sha256(json_text(content).encode()).hexdigest()


def first_difference(old: Any, new: Any, name: str = "") -> str:
    """The first difference between two JSON documents, in words; empty where there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
            if found and key not in _MAY_DIFFER:
                return found
        return ""
    return "" if old == new else f"{name} was {_short(old)} and is now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
