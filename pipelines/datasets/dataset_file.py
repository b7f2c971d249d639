"""`dataset.json`: what the catalogue remembers of every artifact, so that it need not open it again."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipelines.storage.atomic import atomic_file, json_text, storage_errors
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.provenance import made_by
from pipelines.storage.workspace import KINDS, Kind

DATASET_SCHEMA = "stres/dataset/1"


def video_id(class_name: str, video: str) -> str:
    """How a video is named in lists and messages."""
    return f"{class_name}/{video}"


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """An artifact file that was found."""

    kind: Kind
    path: str
    class_name: str
    video: str
    bytes: int
    mtime_ns: int


@dataclass(slots=True)
class Artifact:
    """What is kept of one artifact file, and by what a change of it shows: size and time of modification."""

    bytes: int
    mtime_ns: int
    frames: int
    fps: float
    width: int
    height: int
    source: str
    source_sha256: str
    flow_settings: FlowSettings | None
    source_split: str = ""
    """`train`, `validation` or `test`, where VIDEOS said it."""


_SHARED = ("frames", "fps", "width", "height", "source", "source_sha256")


def write_dataset_file(
    path: Path, classes: Sequence[str], found: Mapping[tuple[str, str], Mapping[Kind, Artifact]]
) -> None:
    """One line a video, so that the file of a large data set stays small and its differences can be read. An artifact's
    entry holds only what differs from its video's."""
    settings: dict[FlowSettings, int] = {}
    for _, artifacts in sorted(found.items()):
        for artifact in artifacts.values():
            if artifact.flow_settings is not None:
                settings.setdefault(artifact.flow_settings, len(settings))
    flow_settings = [asdict(each) for each in settings]
    head = {**made_by(DATASET_SCHEMA, "h5py"), "classes": classes, "flow_settings": flow_settings}
    entries = (_json(_entry(*name, artifacts, settings)) for name, artifacts in sorted(found.items()))
    with (
        atomic_file(path) as temporary,
        storage_errors(path),
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.write("{\n")
        file.writelines(f"{_json(name)}: {_json(value)},\n" for name, value in head.items())
        file.write(_VIDEOS + next(entries, ""))
        file.writelines(f",\n{entry}" for entry in entries)
        file.write(f"\n{_END}}}\n")


_VIDEOS, _END = '"videos": [\n', "]\n"


def _entry(
    class_name: str, video: str, artifacts: Mapping[Kind, Artifact], settings: Mapping[FlowSettings, int]
) -> dict[str, Any]:
    first = next(iter(artifacts.values()))
    entry: dict[str, Any] = {"id": video_id(class_name, video), "class": class_name, "video": video}
    entry |= {name: getattr(first, name) for name in _SHARED}
    for kind, artifact in artifacts.items():
        part: dict[str, Any] = {"bytes": artifact.bytes, "mtime_ns": artifact.mtime_ns}
        part |= {name: getattr(artifact, name) for name in _SHARED if getattr(artifact, name) != entry[name]}
        if artifact.source_split:
            part["source_split"] = artifact.source_split
        if artifact.flow_settings is not None:
            part["flow_settings"] = settings[artifact.flow_settings]
        entry[f"{kind}_artifact"] = part
    return entry


def _json(value: Any) -> str:
    return json_text(value, ensure_ascii=False)


def read_dataset_file(path: Path) -> dict[tuple[Kind, str, str], Artifact]:
    """What `dataset.json` remembers of each artifact; nothing where it is absent, damaged, of another version or not
    laid out as `write_dataset_file` does."""
    try:
        with path.open(encoding="utf-8") as lines:
            head = "".join(itertools.takewhile(lambda line: line != _VIDEOS, lines))
            document = json.loads(head.rstrip().removesuffix(",") + "}")
            if document["schema"] != DATASET_SCHEMA:
                return {}
            settings = [  # whose parameters are text
                FlowSettings.from_json(each | {"method_parameters": json.loads(each["method_parameters"])})
                for each in document["flow_settings"]
            ]
            return dict(_artifacts(lines, settings))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}


def _artifacts(
    lines: Iterable[str], settings: Sequence[FlowSettings]
) -> Iterator[tuple[tuple[Kind, str, str], Artifact]]:
    """Those of the lines up to the end of the list, parsed one by one: all entries at once of 200,000 videos take half
    a gigabyte. Raises `ValueError` where the end is missing, and what comes of entries that are none."""
    for line in lines:
        if line == _END:
            return
        if line == "\n":  # no videos
            continue
        entry = json.loads(line.rstrip().removesuffix(","))
        for kind in KINDS:
            part = entry.get(f"{kind}_artifact")
            if part is not None:
                merged = {name: entry[name] for name in _SHARED} | {"flow_settings": None} | part
                if kind == "flow":
                    merged["flow_settings"] = settings[part["flow_settings"]]
                yield (kind, sys.intern(entry["class"]), entry["video"]), _checked(merged)
    raise ValueError("it is cut off")


_TYPES: dict[str, tuple[type, ...]] = {
    "fps": (int, float),
    "source": (str,),
    "source_sha256": (str,),
    "source_split": (str,),
    "flow_settings": (FlowSettings, type(None)),
}
_FIELDS = [(field.name, _TYPES.get(field.name, (int,))) for field in fields(Artifact)]


def _checked(values: dict[str, Any]) -> Artifact:
    """An entry of the right types. Raises `TypeError`."""
    artifact = Artifact(**values)
    for name, types in _FIELDS:
        if not isinstance(getattr(artifact, name), types):
            raise TypeError(name)
    return artifact
