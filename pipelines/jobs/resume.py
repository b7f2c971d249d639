"""Which videos of a job are to do, done already, or not what their names say: whether what is stored under a video's
name was made from that very video.

Sources are compared by path, size and modification time, and read only where these do not settle it.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal

from pipelines.datasets.catalogue import artifact_paths, usable_artifacts
from pipelines.errors import MissingError, StorageError, UsageError, VideoError
from pipelines.jobs.task import Job, Task, VideoTask, by_video
from pipelines.runtime.devices import available_cores
from pipelines.runtime.parallel_map import parallel_map
from pipelines.runtime.progress import Progress
from pipelines.runtime.ranks import ranks
from pipelines.sources.segments import video_of
from pipelines.sources.source import VideoSource
from pipelines.storage.atomic import read_json, write_json
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.provenance import is_pictures, sha256_of
from pipelines.storage.workspace import KINDS, Workspace
from pipelines.video.resize import stored_size

HASHES_SCHEMA = "stres/source-hashes/1"
_ATTRIBUTES = frozenset(  # all that is compared: reading the others too would double the time of 200,000 videos
    (
        *("source", "source_sha256", "source_bytes", "source_mtime_ns", "source_split", "segment"),
        *("frames_sha256", "jpeg_quality"),
        *("width", "height", "source_width", "source_height"),
        *("method", "method_parameters", "bound", "step", "flow_input", "settings"),
    )
)

Verdict = Literal["same", "changed", "changed?", "other", "other?", "gone"]
"""What a task's source is compared with the one that an artifact was made from: the same; changed, at the same path;
another video; gone. With "?" it is that unless its SHA-256 is the recorded one."""


@dataclass(frozen=True)
class Stamp:
    """What identifies a source without reading it."""

    name: str
    bytes: int
    mtime_ns: int


class Sources(Generic[Task]):
    """How the sources of tasks are looked at: as files, unless a class of this knows better. `stamp` and `sha256` raise
    `OSError` or `VideoError` where that fails."""

    def stamp(self, task: Task) -> Stamp:
        status = task.source.path.stat()
        return Stamp(str(task.source.path), status.st_size, status.st_mtime_ns)

    def sha256(self, task: Task) -> str:
        return sha256_of(task.source.path)

    def compare(self, task: Task, attributes: Mapping[str, Any]) -> Verdict:
        """Compares a task's source with the one that an artifact with these attributes was made from, without reading
        it.

        A source that cannot be looked at has not changed. Artifacts of stres 0.1 do not record the modification time:
        there the size decides if the path is the same.
        """
        recorded, size = str(attributes.get("source", "")), attributes.get("source_bytes")
        try:
            found = self.stamp(task)
        except OSError:
            return "same" if recorded == str(task.source.path) else "gone"
        except VideoError:
            return "changed"  # making it again will say why it cannot be read
        is_same_file = recorded == found.name
        with contextlib.suppress(OSError, ValueError):
            is_same_file = is_same_file or os.path.samefile(recorded, found.name)  # as through a link to a folder
        if not is_same_file:
            return "other?" if size in (found.bytes, None) else "other"
        if attributes.get("segment", "") != str(task.source.segment or ""):
            return "changed"
        if size != found.bytes:
            return "changed?" if size is None else "changed"
        return "same" if attributes.get("source_mtime_ns", found.mtime_ns) == found.mtime_ns else "changed?"


@dataclass(frozen=True)
class Comparison(Generic[Task]):
    """How a stage decides whether what is stored is what it would make. Picklable."""

    schema: str
    sources: Sources[Task]
    conflict: Callable[[dict[str, Any]], str]
    """Given an artifact's attributes, names the difference between its settings and those asked for; "" for none.
    Raises `ArtifactError` where they are broken: such an artifact is made again, as a damaged one."""
    misfit: Callable[[Task, Mapping[str, Any]], str] | None = None
    """Given the attributes of the video's other artifact (flow for frames, frames for flow), says why the result would
    not fit it; None: that is not looked at."""
    elsewhere: str = "another --workspace"
    """The option that puts the result beside what is stored."""


@dataclass(frozen=True)
class Division(Generic[Task]):
    """The tasks of a job, by what becomes of them."""

    to_do: list[Task]
    done: list[Task] = field(default_factory=list)
    problems: list[VideoSource] = field(default_factory=list)
    """Videos that are refused, such as one that would replace what another source left."""
    changed: list[str] = field(default_factory=list)
    """Ids of those `to_do` whose source is no longer what the stored artifact was made from."""
    unlisted: list[str] = field(default_factory=list)
    """Ids of stored segments of these videos that no task is of, as after a start or an end was corrected."""
    misfits: int = 0
    """How many tasks make something of another size than the video's other artifact, as only `overwrite` does."""


def divide(
    job: Job[Task],
    tasks: Sequence[Task],
    problems: Sequence[VideoSource],
    comparison: Comparison[Task],
    *,
    overwrite: bool,
) -> Division[Task]:
    """Divides tasks into those to do, those done, and those whose name another video has taken. Damaged artifacts are
    made again.

    Args:
        job: The job.
        tasks: Its tasks.
        problems: The videos refused before.
        comparison: What is compared.
        overwrite: All are to do.

    Raises:
        UsageError: An artifact was made with other settings, or the result would not fit one.
    """
    unlisted = ranks().broadcast_from_rank0(lambda: _unlisted_segments(job, tasks, problems, comparison))
    if overwrite:
        misfits = ranks().broadcast_from_rank0(lambda: _count_misfits(job, tasks, comparison))
        return Division(list(tasks), problems=list(problems), unlisted=unlisted, misfits=misfits)

    def find() -> list[_Outcome]:
        looks = parallel_map(
            functools.partial(_look, comparison), tasks, f"{job.stage} (what is done)", job.on_progress
        )
        found = [(task, look if isinstance(look, _Look) else _Look()) for task, look in zip(tasks, looks, strict=True)]
        hashes = _source_hashes([task for task, look in found if look.needs_reading], comparison.sources, job)
        return [_outcome(task, look, hashes.get(task.source.id), comparison.elsewhere) for task, look in found]

    outcomes = list(zip(tasks, ranks().broadcast_from_rank0(find), strict=True))
    return Division(
        to_do=[task for task, outcome in outcomes if outcome in ("make", "changed")],
        done=[task for task, outcome in outcomes if outcome == "done"],
        problems=[*problems, *(outcome for _, outcome in outcomes if isinstance(outcome, VideoSource))],
        changed=[task.source.id for task, outcome in outcomes if outcome == "changed"],
        unlisted=unlisted,
    )


_Outcome = Literal["done", "make", "changed"] | VideoSource


# ------------------------------------------------------------------ one video


@dataclass(frozen=True, slots=True)
class _Origin:
    """What an artifact was made from, and what the task's source is to that."""

    artifact: str
    source: str
    sha256: str
    verdict: Verdict

    def settled(self, sha256: str | None) -> Verdict:
        """The verdict without "?", given the hash of the task's source; None: it cannot be read."""
        if not self.verdict.endswith("?"):
            return self.verdict
        if sha256 is None:
            return "gone"
        if sha256 == self.sha256:
            return "same"
        return "changed" if self.verdict == "changed?" else "other"


@dataclass(slots=True)
class _Look:
    """What is stored of a task's video: by its own stage, and by the other one."""

    own: _Origin | None = None
    other: _Origin | None = None
    misfit: str = ""
    """Why the result would not fit the other artifact, if that is of the same video."""
    other_split: bool = False
    """Whether the own artifact says that the video is in another split than VIDEOS says."""

    @property
    def needs_reading(self) -> bool:
        return any(origin is not None and origin.verdict.endswith("?") for origin in (self.own, self.other))


def _look(comparison: Comparison[Task], task: Task) -> _Look:
    def origin(path: Path, attributes: Mapping[str, Any]) -> _Origin:
        source, sha256 = (str(attributes.get(name, "")) for name in ("source", "source_sha256"))
        return _Origin(str(path), source, sha256, comparison.sources.compare(task, attributes))

    look = _Look()
    with contextlib.suppress(ArtifactError):
        attributes = peek(task.target, comparison.schema, _ATTRIBUTES)
        own = origin(task.target, attributes)
        # Of another source, such as pictures that were imported, that is what is wrong.
        if own.verdict != "other" and (difference := comparison.conflict(attributes)):
            raise UsageError(
                f"{task.target} was made with other settings ({difference}): give the same ones, --overwrite to make "
                f"everything again, or {comparison.elsewhere}"
            )
        look.own, split = own, task.source.split
        look.other_split = bool(split) and attributes.get("source_split", split) != split
    if comparison.misfit is None or (look.own is not None and look.own.verdict == "same"):
        return look
    with contextlib.suppress(ArtifactError):
        path, attributes = _peek_at_other(task.target, comparison.schema)
        if not is_pictures(str(attributes.get("source", ""))):  # which video pictures show is not known
            look.other, look.misfit = origin(path, attributes), comparison.misfit(task, attributes)
    return look


def _count_misfits(job: Job[Task], tasks: Sequence[Task], comparison: Comparison[Task]) -> int:
    if comparison.misfit is None:
        return 0
    looks = parallel_map(functools.partial(_misfit, comparison), tasks, f"{job.stage} (compare sizes)", job.on_progress)
    return sum(look is True for look in looks)


def _misfit(comparison: Comparison[Task], task: Task) -> bool:
    assert comparison.misfit is not None
    with contextlib.suppress(ArtifactError):
        return bool(comparison.misfit(task, _peek_at_other(task.target, comparison.schema)[1]))
    return False


def _unlisted_segments(
    job: Job[Task], tasks: Sequence[Task], problems: Sequence[VideoSource], comparison: Comparison[Task]
) -> list[str]:
    cut = {task.source.path.stem: task for task in tasks if task.source.segment}
    listed = {task.source.id for task in tasks} | {refused.id for refused in problems}
    unlisted = []
    for path in artifact_paths(job.folder) if cut else ():
        id_, task = f"{path.parent.name}/{path.stem}", cut.get(video_of(path.stem))
        if task is None or id_ in listed:
            continue
        with contextlib.suppress(ArtifactError):
            verdict = comparison.sources.compare(task, peek(path, comparison.schema, _ATTRIBUTES))
            if verdict not in ("other", "gone"):  # those are of another video of this name
                unlisted.append(id_)
    return unlisted


def other_artifact(target: Path, schema: str) -> tuple[Path, str]:
    """The path and schema of the flow for frames, of the frames for flow; `schema` is that of `target`."""
    kind, other = ("flow", FLOW_SCHEMA) if schema == FRAMES_SCHEMA else ("frames", FRAMES_SCHEMA)
    return target.parents[2] / kind / target.parent.name / target.name, other


def _peek_at_other(target: Path, schema: str) -> tuple[Path, dict[str, Any]]:
    """The same file, and its attributes. Raises `ArtifactError`."""
    path, schema = other_artifact(target, schema)
    return path, peek(path, schema, _ATTRIBUTES)


def _outcome(task: Task, look: _Look, sha256: str | None, elsewhere: str) -> _Outcome:
    own, other = (origin and origin.settled(sha256) for origin in (look.own, look.other))
    if own == "same":
        return "make" if look.other_split else "done"
    for origin, verdict in ((look.own, own), (look.other, other)):
        if origin is None or verdict != "other":
            continue
        source, recorded = task.source, origin.source
        if is_pictures(recorded):  # the (first) folder they were in
            recorded = recorded.partition("*")[0].rpartition("/")[0]
        if os.path.exists(recorded):
            reason = (
                f"two sources of one name: {origin.source} and {source.path} would both be stored as {source.id}: "
                f"rename one, or give {elsewhere}"
            )
        else:
            reason = (
                f"{origin.artifact} was made from {origin.source}, which is no longer there, and {source.path} has "
                f"other content: give --overwrite to store this one instead, or {elsewhere}"
            )
        return replace(source, problem=reason)
    if other == "same" and look.misfit:
        raise UsageError(look.misfit)
    return "changed" if own == "changed" else "make"


# ------------------------------------------------------------------ sizes


def size_conflict(attributes: Mapping[str, Any], short_side: int | None) -> str:
    """Names the difference between a stored size and the one `short_side` asks for; "" for none."""
    made = (attributes.get("width"), attributes.get("height"))
    source = (attributes.get("source_width"), attributes.get("source_height"))
    if not all(isinstance(side, int) for side in (*made, *source)):
        return "its size is not recorded"
    wanted = stored_size(*source, short_side)  # type: ignore[arg-type]
    return "" if made == wanted else f"its size is {made[0]}x{made[1]}, not {wanted[0]}x{wanted[1]}"


def size_misfit(short_side: int | None, task: VideoTask, other: Mapping[str, Any]) -> str:
    """Says why frames and flow of this short side would differ in size from the video's other artifact; "" where they
    fit, or where its size is not recorded."""
    difference = size_conflict(other, short_side)
    if not difference or "width" not in other or "source_width" not in other:
        return ""
    has, makes = ("flow", "frames") if other.get("schema") == FLOW_SCHEMA else ("frames", "flow")
    return (
        f"the stored {has} of {task.source.id} would not fit its {makes}: {difference}; {_size_option(other)} as for "
        f"the {has}, or --overwrite to make all {makes} at this size and then the {has} again"
    )


def require_imported_size(target: Path, schema: str, width: int, height: int) -> None:
    """Raises `VideoError` where the video's other artifact was imported in another size than `target` would have,
    which only the opened video tells."""
    with contextlib.suppress(ArtifactError):
        path, other = _peek_at_other(target, schema)
        has = other.get("width"), other.get("height")
        if is_pictures(str(other.get("source", ""))) and has != (width, height):
            instead = "no VIDEOS, for the flow of those frames" if schema == FLOW_SCHEMA else "another --workspace"
            raise VideoError(
                f"would be stored at {width}x{height} pixels, but {path} was imported at {has[0]}x{has[1]}: give the "
                f"--short-side that makes both equal, or {instead}, or delete that file to make both anew"
            )


def require_workspace_size(job: Job[Task], division: Division[Task]) -> None:
    """Checks that what is to be made follows the rule of `stored_size` by which other videos of the workspace got their
    size.

    Raises:
        UsageError: The other videos have another size: their frames for frames, their flow for flow, or the other kind
            where there is none.
    """
    kinds = sorted(KINDS, key=lambda kind: job.folder != job.workspace.root / kind) if division.to_do else ()
    for path, attributes in itertools.chain.from_iterable(usable_artifacts(job.workspace, kind) for kind in kinds):
        if "width" not in attributes or "source_width" not in attributes:
            continue
        if difference := size_conflict(attributes, job.short_side):
            name = path.relative_to(job.workspace.root).with_suffix("")
            raise UsageError(
                f"{job.workspace.root} has videos of another --short-side, beside which others must not be stored: of "
                f"{name} {difference}; {_size_option(attributes)} as for them, or --overwrite and all of the "
                "workspace's videos, or another --workspace"
            )
        return


def stored_short_side(workspace: Workspace) -> int | None:
    """The --short-side that gives further videos the size of those stored; None: none is needed, or known."""
    for _, attributes in itertools.chain.from_iterable(usable_artifacts(workspace, kind) for kind in KINDS):
        if not is_pictures(str(attributes.get("source", ""))) and "width" in attributes:
            return min(attributes["width"], attributes["height"]) if size_conflict(attributes, None) else None
    return None


def _size_option(attributes: Mapping[str, Any]) -> str:
    """What to do about --short-side to get the rule that gave an artifact its size."""
    if not size_conflict(attributes, None):
        return "leave out --short-side"
    return f"give --short-side {min(attributes['width'], attributes['height'])}"


# ------------------------------------------------------------------ reading sources


def _source_hashes(tasks: Sequence[Task], sources: Sources[Task], job: Job[Task]) -> dict[str, str]:
    """The SHA-256 of the tasks' sources that can be read, by id.

    Each is read once: the workspace's `source-hashes.json` keeps what was read, and is believed while a source's size
    and modification time are the same.
    """
    if not tasks:
        return {}
    known = _known_hashes(job.workspace.source_hashes_file)

    def entry(task: Task) -> tuple[str, list[Any]] | None:
        """Name and [size, modification time, hash]."""
        try:
            stamp = sources.stamp(task)
            before = known.get(stamp.name)
            if before is not None and before[:2] == [stamp.bytes, stamp.mtime_ns]:
                return stamp.name, before
            return stamp.name, [stamp.bytes, stamp.mtime_ns, sources.sha256(task)]
        except (OSError, VideoError):
            return None

    found, new = dict[str, str](), dict[str, list[Any]]()
    together = by_video(tasks)
    first = [tasks[0] for tasks in together]
    with ThreadPoolExecutor(min(available_cores(), 16)) as pool:  # hashing does not hold Python's lock
        for done, (tasks, named) in enumerate(zip(together, pool.map(entry, first), strict=True), start=1):
            if named is not None:
                name, values = named
                new[name] = values
                found |= {task.source.id: values[-1] for task in tasks}
            job.on_progress(Progress(f"{job.stage} (compare sources)", done, len(together), unit="files"))
    if not job.dry_run and any(known.get(name) != values for name, values in new.items()):
        with contextlib.suppress(StorageError):  # it only saves time
            write_json(job.workspace.source_hashes_file, {"schema": HASHES_SCHEMA, "files": known | new})
    return found


def _known_hashes(path: Path) -> dict[str, list[Any]]:
    """What `source-hashes.json` holds; nothing where it is absent or damaged."""
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
