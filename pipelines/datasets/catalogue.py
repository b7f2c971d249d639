"""Which videos a workspace holds: derived from its artifacts, remembered in `dataset.json`.

The artifacts are the truth. `dataset.json` spares opening them again: an entry is believed while the artifact's size
and time of modification are what they were; a missing or damaged `dataset.json` is simply made again.
"""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipelines.datasets.dataset_file import (
    Artifact,
    ArtifactFile,
    read_dataset_file,
    video_id,
    write_dataset_file,
)
from pipelines.errors import MissingError
from pipelines.interface.options import StreamName
from pipelines.runtime.parallel_map import parallel_map
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.storage.failures import Failure
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.provenance import is_pictures, origin_of
from pipelines.storage.workspace import KINDS, Kind, Workspace


@dataclass(frozen=True, slots=True)
class Video:
    """One video of the workspace; a file it does not have (yet) is None.

    Paths are made when asked for: most of a large catalogue's never are.
    """

    workspace: Workspace
    class_name: str
    video: str
    has_frames: bool
    has_flow: bool
    frames: int
    """T of the source, whichever artifact says it."""
    flow_fields: int
    """T - step; 0 without a flow file."""
    fps: float
    width: int
    """Pixels of the stored pictures; 0 where the artifact does not say."""
    height: int
    """Pixels of the stored pictures; 0 where the artifact does not say."""
    source: str
    source_sha256: str
    flow_settings: FlowSettings | None
    damage: str = ""
    """Why it cannot be read, in `with_damaged`'s catalogue; empty for all others."""
    source_split: str = ""
    """`train`, `validation` or `test`, where VIDEOS said it."""
    flow_source_sha256: str = ""
    """Of the flow, where that was made from something else than the frames: of either, pictures that were imported."""

    @property
    def origin(self) -> str:
        return origin_of(self.source_sha256, self.flow_source_sha256)

    @property
    def id(self) -> str:
        return video_id(self.class_name, self.video)

    def has(self, streams: Iterable[StreamName]) -> bool:
        """Whether it has what these streams are fed with: frames for appearance, flow for motion."""
        return all(self.has_frames if stream == "appearance" else self.has_flow for stream in streams)

    @property
    def frames_file(self) -> Path | None:
        return self.workspace.frames_file(self.class_name, self.video) if self.has_frames else None

    @property
    def flow_file(self) -> Path | None:
        return self.workspace.flow_file(self.class_name, self.video) if self.has_flow else None

    @property
    def flow_step(self) -> int:
        """From frame t to frame t + step: what each flow field spans; 1 without a flow file."""
        return self.flow_settings.step if self.flow_settings else 1


def origins_of(videos: Iterable[Video]) -> dict[str, str]:
    """The origin of each video by its id, of those of which it is known."""
    return {video.id: video.origin for video in videos if video.origin}


def lack_of(streams: Iterable[StreamName]) -> str:
    """What videos are without that these streams cannot use, in words."""
    return " or ".join("no frames" if stream == "appearance" else "no flow" for stream in sorted(streams))


def unreadable(stage: str, video: Video, reason: str) -> Failure:
    """The row of a video that `stage` could not read; its path is the artifact that the reason speaks of."""
    path = video.flow_file if str(video.flow_file) in reason else video.frames_file or video.flow_file
    return Failure(stage, video.class_name, video.video, str(path), reason)


@dataclass(frozen=True)
class Catalogue:
    """All videos of a workspace, sorted by id, and the artifacts that could not be used."""

    classes: list[str]
    videos: list[Video]
    problems: list[Failure]


def load_catalogue(workspace: Workspace, on_progress: OnProgress = ignore_progress, *, write: bool = True) -> Catalogue:
    """Lists `frames/*/*.h5` and `flow/*/*.h5`; opens only what is new or changed since `dataset.json` was written.

    A damaged artifact is a row of `problems` and counts as absent; a frames and a flow file of one name that come from
    different videos are a row too and both count as absent.

    Args:
        on_progress: Is told of each file that is opened.
        write: False leaves `dataset.json` as it is.

    Raises:
        MissingError: There is no workspace.
        StorageError: `dataset.json` cannot be written.
    """
    workspace.require()
    known = read_dataset_file(workspace.dataset_file)
    problems: list[Failure] = []
    found = _examine_all(workspace, known, problems, on_progress)
    changed = len(known) != sum(map(len, found.values())) or any(
        known.get((kind, *name)) is not artifact for name, both in found.items() for kind, artifact in both.items()
    )
    del known
    videos = []
    for (class_name, video), artifacts in sorted(found.items()):
        problem = contradiction(artifacts)
        if problem:
            path = workspace.flow_file(class_name, video)
            reason = f"{workspace.frames_file(class_name, video)} and {path} {problem}: extract both again"
            problems.append(Failure("catalogue", class_name, video, str(path), reason))
        else:
            videos.append(_video(workspace, class_name, video, artifacts))
    catalogue = Catalogue(sorted({video.class_name for video in videos}), videos, problems)
    if write and (changed or not workspace.dataset_file.exists()):
        write_dataset_file(workspace.dataset_file, catalogue.classes, found)
    return catalogue


def with_damaged(workspace: Workspace, catalogue: Catalogue) -> Catalogue:
    """The same where what is in `problems` counts as present, with the reason as its `damage`: what a training is made
    of must not depend on which of its files can be read today."""
    videos = {video.id: video for video in catalogue.videos}
    for row in catalogue.problems:
        known = videos.get(row.id) or unexamined(workspace, row.class_name, row.video)
        videos[known.id] = replace(
            known,
            has_frames=workspace.frames_file(row.class_name, row.video).exists(),
            has_flow=workspace.flow_file(row.class_name, row.video).exists(),
            damage=row.reason,
        )
    return Catalogue(
        sorted({video.class_name for video in videos.values()}),
        sorted(videos.values(), key=lambda video: (video.class_name, video.video)),
        catalogue.problems,
    )


def unexamined(workspace: Workspace, class_name: str, video: str) -> Video:
    """A video of which nothing is known but its name."""
    return Video(workspace, class_name, video, False, False, 0, 0, 0.0, 0, 0, "", "", None)


def flow_provenance(catalogue: Catalogue) -> FlowSettings | None:
    """How the flow of this workspace was computed; `short_side` and `flow_input` are None where the files differ, which
    is allowed. None without flow files.

    Raises `MissingError` naming two files that contradict each other in method, parameters, bound or step.
    """
    made = [(video, video.flow_settings) for video in catalogue.videos if video.flow_settings is not None]
    if not made:
        return None
    first, shared = made[0]
    for video, settings in made:
        if name := shared.contradiction(settings):
            raise MissingError(
                f"the flow files contradict each other: {first.flow_file} has {name} {getattr(shared, name)}, "
                f"{video.flow_file} has {getattr(settings, name)}: run `stres extract-flow --overwrite` so that all "
                "have the same"
            )
    short_sides, inputs = {each.short_side for _, each in made}, {each.flow_input for _, each in made}
    return replace(
        shared,
        short_side=short_sides.pop() if len(short_sides) == 1 else None,
        flow_input=inputs.pop() if len(inputs) == 1 else None,
    )


# ------------------------------------------------------------------ artifacts

_SCHEMAS: dict[Kind, str] = {"frames": FRAMES_SCHEMA, "flow": FLOW_SCHEMA}
_ATTRIBUTES = frozenset(
    (
        *("source_frames", "fps", "width", "height", "source", "source_sha256", "source_split"),
        *(setting.name for setting in fields(FlowSettings)),
    )
)


def _examine_all(
    workspace: Workspace,
    known: Mapping[tuple[Kind, str, str], Artifact],
    problems: list[Failure],
    on_progress: OnProgress,
) -> dict[tuple[str, str], dict[Kind, Artifact]]:
    """The artifacts of every (class, video), frames before flow; adds those that cannot be used to `problems`."""
    files = [file for kind in KINDS for file in artifact_files(kind, workspace.root / kind)]
    unknown = [file for file in files if not _is_known(file, known)]
    looks = iter(parallel_map(_examine, unknown, "catalogue", on_progress))
    interned: dict[FlowSettings, FlowSettings] = {}
    found: dict[tuple[str, str], dict[Kind, Artifact]] = {}
    for file in files:
        artifact = known[file.kind, file.class_name, file.video] if _is_known(file, known) else next(looks)
        if not isinstance(artifact, Artifact):
            problems.append(Failure("catalogue", file.class_name, file.video, file.path, str(artifact)))
            continue
        if artifact.flow_settings is not None:
            artifact.flow_settings = interned.setdefault(artifact.flow_settings, artifact.flow_settings)
        found.setdefault((file.class_name, file.video), {})[file.kind] = artifact
    return found


def _is_known(file: ArtifactFile, known: Mapping[tuple[Kind, str, str], Artifact]) -> bool:
    artifact = known.get((file.kind, file.class_name, file.video))
    return artifact is not None and (artifact.bytes, artifact.mtime_ns) == (file.bytes, file.mtime_ns)


def artifact_files(kind: Kind, folder: Path) -> Iterator[ArtifactFile]:
    """`artifact_paths`, with what the file system says of each."""
    for class_folder, entry in _artifact_entries(folder):
        status = entry.stat()
        video = entry.name.removesuffix(".h5")
        yield ArtifactFile(kind, entry.path, class_folder.name, video, status.st_size, status.st_mtime_ns)


def artifact_paths(folder: Path) -> Iterator[Path]:
    """Every `<class>/<video>.h5`, sorted; names that begin with a dot are not yet whole files, or not ours."""
    return (Path(entry.path) for _, entry in _artifact_entries(folder))


def usable_artifacts(workspace: Workspace, kind: Kind) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Path and attributes of every artifact that the catalogue takes, for whoever needs only the first."""
    for file in artifact_files(kind, workspace.root / kind):
        with contextlib.suppress(ArtifactError):
            attributes = peek(Path(file.path), _SCHEMAS[kind])
            artifact_of(file, attributes)
            yield Path(file.path), attributes


def _artifact_entries(folder: Path) -> Iterator[tuple["os.DirEntry[str]", "os.DirEntry[str]"]]:
    for class_folder in _entries(folder):
        if class_folder.is_dir():
            for entry in _entries(Path(class_folder.path)):
                if entry.name.endswith(".h5") and entry.is_file():
                    yield class_folder, entry


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        advice = "check the path, and the permissions of the folders above it"
        raise MissingError(f"{folder} cannot be listed ({error.strerror}): {advice}") from error


def _examine(file: ArtifactFile) -> Artifact | ArtifactError:
    """What is kept of an artifact, or why it cannot be used."""
    try:
        return artifact_of(file, peek(Path(file.path), _SCHEMAS[file.kind], _ATTRIBUTES))
    except ArtifactError as error:
        return error


def artifact_of(file: ArtifactFile, attributes: Mapping[str, Any]) -> Artifact:
    """What the catalogue remembers of the artifact with these attributes. Raises `ArtifactError` for broken ones."""
    try:
        if not math.isfinite(fps := float(attributes.get("fps", 0.0))):
            raise ValueError(f"{fps} is not a finite number")  # which no JSON file can hold
        return Artifact(
            bytes=file.bytes,
            mtime_ns=file.mtime_ns,
            frames=int(attributes["source_frames"]),
            fps=fps,
            width=int(attributes.get("width", 0)),
            height=int(attributes.get("height", 0)),
            source=str(attributes.get("source", "")),
            source_sha256=str(attributes.get("source_sha256", "")),
            source_split=str(attributes.get("source_split", "")),
            flow_settings=FlowSettings.from_attributes(attributes) if file.kind == "flow" else None,
        )
    except KeyError as error:
        raise ArtifactError(f"{file.path} lacks the attribute {error}: delete it and extract it again") from error
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{file.path} has a broken attribute ({error}): delete it and extract it again") from error


def contradiction(artifacts: Mapping[Kind, Artifact]) -> str:
    """Why the frames and the flow of one name cannot belong together; empty where they can."""
    if len(artifacts) < 2:
        return ""
    frames, flow = artifacts["frames"], artifacts["flow"]
    if frames.frames != flow.frames:
        return f"were made from {frames.frames} and {flow.frames} frames"
    # Of pictures that were imported, which video they show is not known.
    if frames.source_sha256 != flow.source_sha256 and not is_pictures(frames.source) and not is_pictures(flow.source):
        if frames.source == flow.source:
            return "were made from different versions of the video (their source hashes differ)"
        return f"were made from different videos, {frames.source} and {flow.source} (their source hashes differ)"
    sizes = (frames.width, frames.height), (flow.width, flow.height)
    if sizes[0] != sizes[1] and all(all(size) for size in sizes):
        return f"differ in size ({frames.width}x{frames.height} and {flow.width}x{flow.height})"
    return ""


def _video(workspace: Workspace, class_name: str, video: str, artifacts: Mapping[Kind, Artifact]) -> Video:
    flow = artifacts.get("flow")
    settings = flow.flow_settings if flow else None
    first = next(iter(artifacts.values()))  # of `frames` where there is one
    sized = next((artifact for artifact in artifacts.values() if artifact.width and artifact.height), first)
    return Video(
        workspace=workspace,
        class_name=class_name,
        video=video,
        has_frames="frames" in artifacts,
        has_flow="flow" in artifacts,
        frames=first.frames,
        flow_fields=max(0, first.frames - settings.step) if settings else 0,
        fps=first.fps,
        width=sized.width,
        height=sized.height,
        source=first.source,
        source_sha256=first.source_sha256,
        flow_settings=settings,
        source_split=next((made.source_split for made in artifacts.values() if made.source_split), ""),
        flow_source_sha256=flow.source_sha256 if flow and flow.source_sha256 != first.source_sha256 else "",
    )
