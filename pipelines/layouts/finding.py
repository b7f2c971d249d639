"""Finds the videos in a folder of pictures, in any of these layouts.

    <video>/img_00001.jpg                  frames; class folders may stand above
    <video>/flow_x_00000.jpg, flow_y_...   flow in one folder a video
    u/<video>/frame000001.jpg, v/...       flow in two trees
    <video>/u/frame_0000000001.jpg, v/...  flow in two folders a video

Which of the folders above are the classes is read as for videos (`sources.class_folders`).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.layouts.classes import ListedClasses, class_by_name
from pipelines.layouts.names import COMPONENT_FOLDERS, OTHER_COMPONENT, read_name
from pipelines.layouts.pictures import Series, is_within
from pipelines.sources.class_folders import Found, read_picture_folders
from pipelines.sources.names import splits_of
from pipelines.sources.videos import Account, VideoSource, account_of, refuse_unusable
from pipelines.storage.workspace import UNLABELLED, Kind

_LAYOUTS = {
    "frames": "<class>/<video>/frame000001.jpg or img_00001.jpg",
    "flow": "u/<video>/frame000001.jpg and v/..., or <class>/<video>/flow_x_00001.jpg (or x_00001.jpg) and y",
}


@dataclass
class FolderList:
    """The videos found."""

    folders: list[tuple[VideoSource, tuple[Series, ...]]] = field(default_factory=list)
    """Each with its frames, or the x and y of its flow; the path is the folder of the (first) pictures."""
    problems: list[VideoSource] = field(default_factory=list)
    """Videos that are refused."""
    ignored: int = 0
    """Number of files whose names are not those of pictures."""
    account: Account | None = None


def find_folders(root: Path, content: Kind, class_list: Path | None, classes_at: int | None = None) -> FolderList:
    """Finds the videos below a folder that have pictures. Holds the folders' names in memory, not those of their files.

    Args:
        content: What the pictures show.
        class_list: The source of `ListedClasses`, which then decide.
        classes_at: The class is the folder so many levels below `root`; None: as the layout says.

    Raises:
        MissingError: There are none.
        UsageError: The folders do not say which of them are the classes, or a list and `classes_at` both shall.
    """
    if class_list is not None and classes_at is not None:
        raise UsageError(f"--list {class_list} says the classes, and so does --classes-at {classes_at}: leave one out")
    if not root.is_dir():
        raise MissingError(f"there is no folder {root}: give one of pictures, {_LAYOUTS[content]}")
    found = _Found(Path(os.path.abspath(root)), ListedClasses(class_list) if class_list is not None else None)
    look = found.add_frames if content == "frames" else found.add_flow
    for folder, names in _folders(found.root, found.refuse):
        look(folder, names)
    listed = found.result(classes_at)
    if not listed.folders and not listed.problems:
        raise MissingError(f"no {content} in {root} ({listed.ignored} other files): supported are {_LAYOUTS[content]}")
    return listed


def _folders(root: Path, refuse: Callable[[Path, str], None]) -> Iterator[tuple[Path, list[str]]]:
    """All folders from `root` down, except hidden ones, with their files' names. Links out of `root` are refused."""
    real_root = os.path.realpath(root)
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        refuse(Path(error.filename), f"cannot be listed ({error.strerror})")

    for parent, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not is_within(real, real_root):
            refuse(Path(parent), f"is a link to a place outside {root}: import that folder by its own name")
        if real in seen or not is_within(real, real_root):
            folders.clear()
            continue
        seen.add(real)
        yield Path(parent), [name for name in files if not name.startswith(".")]


class _Found:
    """Gathers the videos of a walk."""

    def __init__(self, root: Path, listed: ListedClasses | None) -> None:
        self.root, self.listed = root, listed
        self.ignored = 0
        self._videos: dict[Path, tuple[tuple[str, ...], tuple[Series, ...]]] = {}
        self._problems: list[VideoSource] = []
        self._halves: dict[tuple[str, ...], dict[str, Path]] = {}

    def add_frames(self, folder: Path, names: list[str]) -> None:
        frames = sum(read_name(name, "frames") is not None for name in names)
        self.ignored += sum(read_name(name, "component") is None for name in names)
        if frames and self._component(folder) is None:
            self._add(folder, self._parts(folder), (Series(folder, "frames", self.root),))

    def add_flow(self, folder: Path, names: list[str]) -> None:
        x, y = (any(read_name(name, component) for name in names) for component in ("x", "y"))
        self.ignored += sum(read_name(name, "component") is None for name in names)
        if x and y:
            series = Series(folder, "x", self.root), Series(folder, "y", self.root)
            self._add(folder, self._parts(folder), series)
        elif (at := self._component(folder)) is not None:
            if any(read_name(name, "component") for name in names):
                # Kept until the other component's folder is found.
                parts = self._parts(folder)
                component, other = parts[at].lower(), OTHER_COMPONENT[parts[at].lower()]
                halves = self._halves.setdefault((*sorted((component, other)), *parts[:at], *parts[at + 1 :]), {})
                halves[COMPONENT_FOLDERS[component]] = folder
                halves.setdefault(COMPONENT_FOLDERS[other], self.root.joinpath(*parts[:at], other, *parts[at + 1 :]))
        elif x or y:
            there, missing = ("x", "y") if x else ("y", "x")
            self.refuse(folder, f"has flow pictures of {there}, but none of {missing}")

    def refuse(self, folder: Path, reason: str, parts: tuple[str, ...] | None = None) -> None:
        """Records a folder that cannot be used; `parts` are those of its path that name class and video."""
        parts = self._parts(folder) if parts is None else parts
        class_name = parts[0] if len(parts) > 1 else UNLABELLED
        self._problems.append(VideoSource(class_name, self._name(parts), folder, problem=reason))

    def result(self, classes_at: int | None) -> FolderList:
        """Raises `UsageError` where the layout does not say which folders are the classes."""
        for (_, _, *rest), halves in self._halves.items():  # each pair of component folders is a video
            absent = next((folder for folder in halves.values() if not folder.is_dir()), None)
            if absent is None:
                series = tuple(Series(halves[component], "component", self.root) for component in ("x", "y"))
                self._add(halves["x"], tuple(rest), series)
            else:
                self.refuse(halves["x"], f"lacks one component: there is no {absent}", tuple(rest))
        if self.listed is not None:
            layout, notes = f"classes by {self.listed.source}", self.listed.notes
            sources = self._by_list(self.listed)
        else:
            by_name = (
                Found(folder, parts[:-1], class_by_name(self._name(parts)))
                for folder, (parts, _) in self._videos.items()
            )
            read = read_picture_folders(self.root, by_name, classes_at=classes_at)
            layout, notes = read.layout, read.notes
            sources = [
                VideoSource(video.class_name, self._name(self._videos[video.path][0]), video.path, video.split)
                for video in read.videos
            ]
        skipped = {"not named as pictures": self.ignored} if self.ignored else {}
        account = replace(account_of(layout, sources), skipped=skipped, notes=notes)
        videos, problems = refuse_unusable(sources)
        folders = [(source, self._videos[source.path][1]) for source in videos]
        return FolderList(folders, [*self._problems, *problems], self.ignored, account)

    def _by_list(self, listed: ListedClasses) -> list[VideoSource]:
        sources = []
        of_folders = splits_of({parts[0] for parts, _ in self._videos.values() if len(parts) > 1})
        for folder, (parts, _) in self._videos.items():
            try:
                class_name, video, split = listed.of(self._name(parts))
            except VideoError as error:
                self.refuse(folder, str(error), parts)
            else:
                split = split or of_folders.get(next(iter(parts[:-1]), ""), "")
                sources.append(VideoSource(class_name, video, folder, split))
        return sources

    def _add(self, folder: Path, parts: tuple[str, ...], series: tuple[Series, ...]) -> None:
        self._videos[folder] = parts, series

    def _parts(self, folder: Path) -> tuple[str, ...]:
        return folder.relative_to(self.root).parts

    def _name(self, parts: tuple[str, ...]) -> str:
        return parts[-1] if parts else self.root.name

    def _component(self, folder: Path) -> int | None:
        """The index of the part of the folder's path that names a component: the last part, or the first that could."""
        parts = [part.lower() for part in self._parts(folder)]
        if parts and parts[-1] in COMPONENT_FOLDERS:
            return len(parts) - 1
        return next((at for at, part in enumerate(parts) if part in COMPONENT_FOLDERS), None)
