"""Whether what is stored under a video's name was made from that very video: which videos are to do, and which are not
what their names say.

Sources are compared by place, size and time of modification, and read only where these do not settle it.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from pipelines.errors import MissingError, StorageError, UsageError, VideoError
from pipelines.runtime.devices import available_cores
from pipelines.runtime.parallel_map import parallel_map
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.runtime.ranks import ranks
from pipelines.sources.videos import VideoProblem, VideoSource
from pipelines.storage.atomic import read_json, write_json
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.provenance import is_pictures
from pipelines.video.resize import stored_size
from pipelines.workspace import Workspace

HASHES_SCHEMA = "stres/source-hashes/1"
_ATTRIBUTES = frozenset(  # all that is compared: reading the others too would double the time of 200,000 videos
    (
        *("source", "source_sha256", "source_bytes", "source_mtime_ns", "source_split"),
        *("frames_sha256", "jpeg_quality"),
        *("width", "height", "source_width", "source_height"),
        *("method", "method_parameters", "bound", "step", "flow_input"),
    )
)


class NamedTask(Protocol):
    """One video to store: where from and where to."""

    @property
    def source(self) -> VideoSource: ...

    @property
    def target(self) -> Path: ...


Task = TypeVar("Task", bound=NamedTask)

Verdict = Literal["same", "changed", "changed?", "other", "other?", "gone"]
"""What a task's source is to the one an artifact was made from: that very one, the same place with other content,
another video, or nothing that there is; with "?" only unless its SHA-256 is the recorded one."""


@dataclass(frozen=True)
class Stamp:
    """By what a source is known without being read: its name, its bytes, its time of modification (ns)."""

    name: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class SourceKind(Generic[Task]):
    """How the sources of tasks are looked at: `stamp` and `sha256` raise `OSError` or `VideoError` for those that are
    not there or cannot be read."""

    stamp: Callable[[Task], Stamp]
    sha256: Callable[[Task], str]


@dataclass(frozen=True)
class Division(Generic[Task]):
    """The tasks, by what becomes of them. `changed`: ids of those `to_do` whose source is no longer what the stored
    artifact was made from; `problems`: those that would replace what another source left."""

    to_do: list[Task]
    done: list[Task] = field(default_factory=list)
    problems: list[VideoProblem] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


def divide(
    tasks: Sequence[Task],
    problems: Sequence[VideoProblem],
    schema: str,
    kind: SourceKind[Task],
    *,
    overwrite: bool,
    conflict: Callable[[dict[str, Any]], str],
    compare: Callable[[Task, Mapping[str, Any]], Verdict] | None = None,
    misfit: Callable[[Task, Mapping[str, Any]], str] | None = None,
    workspace: Workspace,
    stage: str,
    dry_run: bool,
    on_progress: OnProgress,
) -> Division[Task]:
    """Parts the tasks into those to do (with `overwrite` all), those already done, and those whose name another video
    has taken; `problems` are the videos refused before.

    `conflict(attributes)` names the difference between an artifact's settings and those asked for ("" for none);
    `misfit(task, attributes)` says why what is made would not fit the video's other artifact, None where that is not
    looked at; `compare(task, attributes)` compares a source without reading it, None: by its stamp. All are picklable.
    Damaged artifacts are made again. Raises `UsageError` at the first conflict or misfit.
    """
    if overwrite:
        return Division(list(tasks), problems=list(problems))
    compare = compare or functools.partial(compare_stamps, kind.stamp)
    look = functools.partial(_look, schema, conflict, compare, misfit)

    def find() -> list[_Outcome]:
        looks = parallel_map(look, tasks, f"{stage} (what is done)", on_progress)
        hashes = _Hashes(workspace, kind, f"{stage} (compare sources)", on_progress, keep=not dry_run)
        return _settle(tasks, [look if isinstance(look, _Look) else _Look() for look in looks], hashes)

    outcomes = list(zip(tasks, ranks().broadcast_from_rank0(find), strict=True))
    return Division(
        to_do=[task for task, outcome in outcomes if outcome in ("make", "changed")],
        done=[task for task, outcome in outcomes if outcome == "done"],
        problems=[*problems, *(outcome for _, outcome in outcomes if isinstance(outcome, VideoProblem))],
        changed=[task.source.id for task, outcome in outcomes if outcome == "changed"],
    )


_Outcome = Literal["done", "make", "changed"] | VideoProblem


def _settle(tasks: Sequence[Task], looks: "Sequence[_Look]", hashes: "_Hashes[Task]") -> list[_Outcome]:
    hashes.read([task for task, look in zip(tasks, looks, strict=True) if look.needs_reading])
    return [_outcome(task, look, hashes) for task, look in zip(tasks, looks, strict=True)]


def _outcome(task: Task, look: "_Look", hashes: "_Hashes[Task]") -> _Outcome:
    own = look.own and hashes.settle(task, look.own)
    other = look.other and hashes.settle(task, look.other)
    if own == "same":
        return "make" if look.other_split else "done"
    for origin, verdict in ((look.own, own), (look.other, other)):
        if origin is not None and verdict == "other":
            return _two_sources(task, origin)
    if other == "same" and look.misfit:
        raise UsageError(look.misfit)
    return "changed" if own == "changed" else "make"


# ------------------------------------------------------------------ one artifact


@dataclass(frozen=True, slots=True)
class _Origin:
    """What an artifact was made from, and what the task's source is to that."""

    artifact: str
    source: str
    sha256: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Look:
    """What is stored of a task's video: by its own stage, and by the other one."""

    own: _Origin | None = None
    other: _Origin | None = None
    misfit: str = ""
    """Why the result would not fit the other artifact, if that is of the same video."""
    other_split: bool = False
    """Whether the own artifact says that the video stands in another split than VIDEOS says."""

    @property
    def needs_reading(self) -> bool:
        return any(origin is not None and origin.verdict.endswith("?") for origin in (self.own, self.other))


def _look(
    schema: str,
    conflict: Callable[[dict[str, Any]], str],
    compare: Callable[[Task, Mapping[str, Any]], Verdict],
    misfit: Callable[[Task, Mapping[str, Any]], str] | None,
    task: Task,
) -> _Look:
    own, other_split = None, False
    with contextlib.suppress(ArtifactError):
        attributes = peek(task.target, schema, _ATTRIBUTES)
        if difference := conflict(attributes):
            raise UsageError(
                f"{task.target} was made with other settings ({difference}): give the same ones, --overwrite to make "
                "everything again, or another --workspace"
            )
        own = _origin(task.target, compare(task, attributes), attributes)
        stored = attributes.get("source_split", task.source.split)
        other_split = bool(task.source.split) and stored != task.source.split
        if own.verdict == "same":
            return _Look(own, other_split=other_split)
    if misfit is None:
        return _Look(own, other_split=other_split)
    path, other_schema = _other_artifact(task.target, schema)
    try:
        attributes = peek(path, other_schema, _ATTRIBUTES)
    except ArtifactError:
        return _Look(own, other_split=other_split)
    if is_pictures(str(attributes.get("source", ""))):  # which video they show is not known
        return _Look(own, other_split=other_split)
    other = _origin(path, compare(task, attributes), attributes)
    return _Look(own, other, misfit(task, attributes), other_split)


def _origin(path: Path, verdict: Verdict, attributes: Mapping[str, Any]) -> _Origin:
    return _Origin(str(path), str(attributes.get("source", "")), str(attributes.get("source_sha256", "")), verdict)


def _other_artifact(target: Path, schema: str) -> tuple[Path, str]:
    """Flow of the same name for frames, frames for flow."""
    kind, other = ("flow", FLOW_SCHEMA) if schema == FRAMES_SCHEMA else ("frames", FRAMES_SCHEMA)
    return target.parents[2] / kind / target.parent.name / target.name, other


def _two_sources(task: NamedTask, origin: _Origin) -> VideoProblem:
    source = task.source
    if _exists(origin.source):
        reason = (
            f"two sources of one name: {origin.source} and {source.path} would both be stored as {source.id}: rename "
            "one, or give another --workspace"
        )
    else:
        reason = (
            f"{origin.artifact} was made from {origin.source}, which is no longer there, and {source.path} has other "
            "content: give --overwrite to store this one instead, or another --workspace"
        )
    return VideoProblem(source.class_name, source.video, source.path, reason)


def _exists(source: str) -> bool:
    """Whether a recorded source is still there; of pictures, the (first) folder they were in."""
    return os.path.exists(source.partition("*")[0].rpartition("/")[0] if is_pictures(source) else source)


# ------------------------------------------------------------------ comparing


def compare_stamps(stamp: Callable[[Task], Stamp], task: Task, attributes: Mapping[str, Any]) -> Verdict:
    """What the task's source is to the one that an artifact with these attributes was made from.

    One that cannot be looked at has not changed. Artifacts of stres 0.1 do not tell the time of modification: there the
    size decides, where the place is the same.
    """
    recorded, size = str(attributes.get("source", "")), attributes.get("source_bytes")
    try:
        found = stamp(task)
    except OSError:
        return "same" if recorded == str(task.source.path) else "gone"
    except VideoError:
        return "changed"  # whoever makes it again says why it cannot be read
    if recorded != found.name and not _is_same_file(recorded, found.name):
        return "other?" if size in (found.bytes, None) else "other"
    if size != found.bytes:
        return "changed?" if size is None else "changed"
    return "same" if attributes.get("source_mtime_ns", found.mtime_ns) == found.mtime_ns else "changed?"


def _is_same_file(recorded: str, path: str) -> bool:
    """Whether two names lead to one file, as through a link to a folder."""
    with contextlib.suppress(OSError, ValueError):
        return os.path.samefile(recorded, path)
    return False


def size_conflict(attributes: Mapping[str, Any], short_side: int | None) -> str:
    """Names the difference between a stored size and the one `short_side` asks for; "" for none."""
    made = (attributes.get("width"), attributes.get("height"))
    source = (attributes.get("source_width"), attributes.get("source_height"))
    if not all(isinstance(side, int) for side in (*made, *source)):
        return "its size is not recorded"
    wanted = stored_size(*source, short_side)  # type: ignore[arg-type]
    return "" if made == wanted else f"its size is {made[0]}x{made[1]}, not {wanted[0]}x{wanted[1]}"


def size_misfit(short_side: int | None, task: NamedTask, other: Mapping[str, Any]) -> str:
    """Why frames and flow of this short side would differ in size from the video's other artifact; "" where they fit,
    or where that does not say."""
    difference = size_conflict(other, short_side)
    if not difference or "width" not in other or "source_width" not in other:
        return ""
    has, makes = ("flow", "frames") if other.get("schema") == FLOW_SCHEMA else ("frames", "flow")
    return (
        f"the stored {has} of {task.source.id} would not fit its {makes}: {difference}; give --short-side "
        f"{min(other['width'], other['height'])} as for the {has}, or --overwrite to make all {makes} at this size and "
        f"then the {has} again"
    )


# ------------------------------------------------------------------ reading


def _file_stamp(task: NamedTask) -> Stamp:
    status = task.source.path.stat()
    return Stamp(str(task.source.path), status.st_size, status.st_mtime_ns)


def _file_sha256(task: NamedTask) -> str:
    with task.source.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


VIDEO_FILE: SourceKind[Any] = SourceKind(_file_stamp, _file_sha256)


class _Hashes(Generic[Task]):
    """SHA-256 of sources, each read once: the workspace's `source-hashes.json` keeps what was read, and is believed
    while a source's size and time of modification are the same."""

    def __init__(
        self, workspace: Workspace, kind: SourceKind[Task], phase: str, on_progress: OnProgress, *, keep: bool
    ) -> None:
        self.file, self.kind, self.phase = workspace.source_hashes_file, kind, phase
        self.on_progress, self.keep = on_progress, keep
        self._found: dict[str, str] = {}

    def read(self, tasks: Sequence[Task]) -> None:
        """Finds the hashes of these tasks' sources."""
        if not tasks:
            return
        known = _read_hashes(self.file)
        new: dict[str, list[Any]] = {}
        with ThreadPoolExecutor(min(available_cores(), 16)) as pool:  # hashing does not hold Python's lock
            entries = pool.map(functools.partial(self._entry, known), tasks)
            for done, (task, entry) in enumerate(zip(tasks, entries, strict=True), start=1):
                if entry is not None:
                    name, *values = entry
                    self._found[task.source.id] = values[-1]
                    new[name] = values
                self.on_progress(Progress(self.phase, done, len(tasks), unit="files"))
        if self.keep and any(known.get(name) != values for name, values in new.items()):
            with contextlib.suppress(StorageError):  # it only saves time
                write_json(self.file, {"schema": HASHES_SCHEMA, "files": known | new})

    def _entry(self, known: Mapping[str, list[Any]], task: Task) -> list[Any] | None:
        """Name, size, time of modification and hash; None where the source cannot be read."""
        try:
            stamp = self.kind.stamp(task)
            before = known.get(stamp.name)
            if before is not None and before[:2] == [stamp.bytes, stamp.mtime_ns]:
                return [stamp.name, *before]
            return [stamp.name, stamp.bytes, stamp.mtime_ns, self.kind.sha256(task)]
        except (OSError, VideoError):
            return None

    def settle(self, task: Task, origin: _Origin) -> Verdict:
        """The verdict without "?"."""
        if not origin.verdict.endswith("?"):
            return origin.verdict
        if task.source.id not in self._found:
            return "gone"
        if self._found[task.source.id] == origin.sha256:
            return "same"
        return "changed" if origin.verdict == "changed?" else "other"


def _read_hashes(path: Path) -> dict[str, list[Any]]:
    try:
        document = read_json(path)
        if document["schema"] != HASHES_SCHEMA:
            return {}
        return {
            str(source): [int(size), int(mtime_ns), str(sha256)]
            for source, (size, mtime_ns, sha256) in document["files"].items()
        }
    except (MissingError, KeyError, TypeError, ValueError, AttributeError):
        return {}
