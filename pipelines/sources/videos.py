"""Finds the videos of a command's VIDEOS argument and the class of each.

VIDEOS is a folder of class folders, a list file, one video or a glob; a video without a class is `unlabelled`.
"""

import glob
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

from pipelines.datasets.split_lists import fits_on_a_line
from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.interface.wording import plural, some
from pipelines.sources.class_folders import BY_PREDICT, NO_VIDEO, is_timeline, is_workspace, read_class_folders
from pipelines.sources.lists import read_list
from pipelines.sources.names import VIDEO_SUFFIXES, is_video, split_of
from pipelines.sources.source import VideoSource
from pipelines.storage.workspace import UNLABELLED

_LONGEST_NAME = 255 - len(".h5")  # bytes
_READING = "Reading VIDEOS (where the layout is not recognised)"
_FEW = 8  # classes that are named one by one


@dataclass(frozen=True)
class ReadAs:
    """What a user says of VIDEOS where VIDEOS itself does not."""

    classes_at: Annotated[int | None, Option(metavar="N", minimum=1, group=_READING)] = None
    """Take the Nth folder below VIDEOS as the class, whatever the layout looks like."""
    class_names: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            default="classInd.txt, classes.txt, labels.txt or *label_map*.txt beside the list",
            group=_READING,
        ),
    ] = None
    """Names for a list's numeric labels: one per line, with or without the number, or JSON."""
    relative_to: Annotated[
        Path | None, Option(metavar="DIR", default="the list's own, else the current folder", group=_READING)
    ] = None
    """Folder that the paths of a list are relative to."""

    label_column: Annotated[
        str | None,
        Option(metavar="NAME", default="the first that is called label, class, action, verb or such", group=_READING),
    ] = None
    """The column of a list with a header that holds the labels."""

    whole_videos: Annotated[bool, Option(group=_READING)] = False
    """Take every video of a list whole: its starts and ends say what the clips were cut from."""

    def __post_init__(self) -> None:
        options.check(self)


AS_IT_SAYS = ReadAs()
TO_STORE = "VIDEOS is a folder of class folders, a list file (`path label`), one video or a glob"
TO_LOOK_AT = "VIDEOS is a video, a folder of videos, a list file or a glob"
_OF_LISTS = {one.name for one in fields(ReadAs)} - {"classes_at"}


@dataclass(frozen=True)
class Account:
    """How VIDEOS was read."""

    layout: str
    classes: dict[str, int] = field(default_factory=dict)
    """Videos, or segments, by class."""
    splits: dict[str, int] = field(default_factory=dict)
    """Videos, or segments, by split."""
    videos: int = 0
    """How many videos the segments are of; 0 where there are none."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Files that were skipped, by reason."""
    suffixes: dict[str, int] = field(default_factory=dict)
    """Those of them that are not videos by their names, by suffix."""
    notes: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """The account in words, the most important first."""
        what = "segment" if self.videos else "video"
        sentences = [f"{self.layout}: {class_counts(self.classes, what, self.videos)}"]
        if self.splits:
            counts = ", ".join(f"{name} {count}" for name, count in self.splits.items())
            sentences.append(f"splits: {counts} {what if counts.endswith(' 1') else what + 's'}")
        sentences += self.notes
        if self.skipped:
            reasons = [f"{count} {reason}" for reason, count in self.skipped.items()]
            suffixes = ", ".join(f"{count} {suffix}" for suffix, count in self.suffixes.items())
            sentences.append(f"skipped: {'; '.join(reasons)}" + (f" ({suffixes})" if suffixes else ""))
        return sentences


def class_counts(counts: Mapping[str, int], what: str = "video", videos: int = 0) -> str:
    """`3 classes, 12 videos: blue 6, green 2, red 4`; for many classes only smallest, median and largest."""
    labelled = {name: count for name, count in counts.items() if name != UNLABELLED}
    without = counts.get(UNLABELLED, 0)
    of = f" of {plural(videos, 'video')}" if videos else ""
    if not labelled:
        return f"no classes, {plural(without, what)}{of}"
    text = f"{plural(len(labelled), 'class')}, {plural(sum(labelled.values()), what)}{of}: "
    if len(labelled) <= _FEW:
        text += ", ".join(f"{name} {count}" for name, count in sorted(labelled.items()))
    else:
        order = sorted(labelled, key=lambda name: (labelled[name], name))
        least, most = labelled[order[0]], labelled[order[-1]]
        if least == most:
            text += f"{most} a class"
        else:
            text += f"from {least} ({order[0]}) to {most} ({order[-1]}) a class"
            text += f", median {statistics.median(labelled.values()):g}"
    return text + (f"; {plural(without, what)} without a class" if without else "")


@dataclass(frozen=True)
class VideoList:
    """What VIDEOS means."""

    videos: list[VideoSource]
    """In order of class and name."""
    ignored: int = 0
    """Files that are not videos by their names."""
    problems: list[VideoSource] = field(default_factory=list)
    """Those that are refused."""
    account: Account | None = None


def find_videos(
    argument: str | Path, *, to_store: bool = True, workspace: Path | None = None, read_as: ReadAs = AS_IT_SAYS
) -> VideoList:
    """Resolves VIDEOS. An existing path always wins over a reading as a glob (names may hold `[`).

    Args:
        to_store: Whether something is to be stored for each video. If not, videos of one class and name may lie in
            several places, and no layout is refused.
        workspace: The workspace in use, which is skipped, as all others are.
        read_as: What the user says of VIDEOS.

    Raises:
        MissingError: There is no such path, or no video in it.
        UsageError: A folder does not say which folders are the classes; a list file gives a label that cannot be a
            folder's name; `read_as` says what VIDEOS of this kind leave unread.
    """
    forms = TO_STORE if to_store else TO_LOOK_AT
    if not str(argument):
        raise UsageError(f"VIDEOS is empty: {forms}")
    path = Path(argument)
    problems: list[VideoSource] = []
    notes: list[str] = []
    skipped: Mapping[str, int] = {}
    suffixes: Mapping[str, int] = {}
    if path.is_dir():
        _refuse_unread(read_as, f"{path} is a folder", {"classes_at"})
        try:
            folder = read_class_folders(path, workspace=workspace, classes_at=read_as.classes_at, to_store=to_store)
        except UsageError:
            if to_store or read_as.classes_at is not None or is_workspace(path):
                raise
            # Whoever stores nothing asks for no classes: any layout will do.
            folder = read_class_folders(path, workspace=workspace, classes_at=1)
            folder.layout = f"videos in {path}, whose first folders are taken for classes (--classes-at N takes others)"
            folder.notes.clear()
        layout, notes, skipped, suffixes = folder.layout, folder.notes, folder.skipped, folder.suffixes
        found = [VideoSource.of(video.class_name, video.path, video.split) for video in folder.videos]
        for at, reason in folder.unreadable:
            above = at.relative_to(path).parts[:-1]
            problems.append(VideoSource(above[0] if above else UNLABELLED, at.name, at, problem=reason))
    elif path.is_file() and is_video(path):
        _refuse_unread(read_as, f"{path} is one video")
        layout, found = "one video", [VideoSource.of(UNLABELLED, path)]
    elif path.is_file():
        _refuse_unread(read_as, f"{path} is a list", _OF_LISTS)
        found, notes = read_list(
            path,
            relative_to=read_as.relative_to,
            class_names=read_as.class_names,
            label_column=read_as.label_column,
            whole_videos=read_as.whole_videos,
        )
        layout = f"list {path}"
    elif not os.path.lexists(path) and glob.has_magic(str(argument)):
        _refuse_unread(read_as, f"{argument} is a glob")
        layout = f"files that match {argument}"
        found, skipped, suffixes = _matching(str(argument))
        classes = sorted({source.class_name for source in found})
        if to_store and classes and all(map(split_of, classes)):
            raise UsageError(
                f"the folders of the files that match {argument} are named as splits are, not as classes "
                f"({some(classes)}): give the folder of class folders as VIDEOS, or a list (`path label`)"
            )
    else:
        raise MissingError(f"there is no {path}: {forms}")
    ignored = skipped.get(NO_VIDEO, 0)
    if not found and not problems:
        passed = "; ".join([*(f"{count} {reason}" for reason, count in skipped.items()), *notes]) or "0 other files"
        raise MissingError(f"no videos in {path} ({passed}): {forms}; supported are {' '.join(sorted(VIDEO_SUFFIXES))}")
    if to_store and not path.is_dir() and len(found) > 1:
        notes += _splits_passed_over(found)
    account = replace(account_of(layout, found), skipped=dict(skipped), suffixes=dict(suffixes), notes=notes)
    if not to_store:
        return VideoList(found, ignored, problems, account)
    videos, refused = refuse_unusable(found)
    return VideoList(videos, ignored, [*problems, *refused], account)


def _refuse_unread(read_as: ReadAs, what: str, read: Collection[str] = ()) -> None:
    """Raises `UsageError` for anything else than `read` that is said of VIDEOS: it would be ignored."""
    for one in fields(ReadAs):
        if one.name not in read and getattr(read_as, one.name) != one.default:
            kind = "list" if one.name in _OF_LISTS else "folder"
            raise UsageError(
                f"--{one.name.replace('_', '-')} is for {kind}s of videos, but {what}: leave it out, or give a {kind} "
                "as VIDEOS"
            )


def account_of(layout: str, found: Iterable[VideoSource]) -> Account:
    """The account of videos: their classes and splits counted."""
    found = list(found)
    classes = Counter(source.class_name for source in found)
    splits = Counter(source.split for source in found if source.split)
    videos = len({source.path for source in found}) if any(source.segment for source in found) else 0
    return Account(layout, dict(sorted(classes.items())), dict(sorted(splits.items())), videos)


# ------------------------------------------------------------------ globs


def _matching(pattern: str) -> tuple[list[VideoSource], Mapping[str, int], Mapping[str, int]]:
    """Files that match; the class is the folder's name if the pattern matches folders (`videos/*/*.avi`).
    Also how many were skipped by reason, and of those that are not videos by suffix."""
    by_folder = glob.has_magic(os.path.dirname(pattern))
    skipped: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    found = []
    in_workspace: dict[Path, bool] = {}
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = Path(name)
        if not os.path.isfile(path):
            continue
        if not is_video(path):
            skipped[NO_VIDEO] += 1
            suffixes[path.suffix.lower() or "no suffix"] += 1
        elif by_folder and _lies_in_workspace(Path(os.path.abspath(path)).parent, in_workspace):
            skipped["in a workspace of stres"] += 1
        elif is_timeline(path, {path.with_suffix(".json").name}):
            skipped[BY_PREDICT] += 1
        else:
            folder = Path(os.path.abspath(path)).parent.name
            found.append(VideoSource.of(folder if by_folder else UNLABELLED, path))
    return found, skipped, suffixes


def _lies_in_workspace(folder: Path, known: dict[Path, bool]) -> bool:
    if folder not in known:
        known[folder] = is_workspace(folder) or (folder != folder.parent and _lies_in_workspace(folder.parent, known))
    return known[folder]


def _splits_passed_over(found: Collection[VideoSource]) -> list[str]:
    """Names the folders of a list's or glob's videos that a folder's reading takes for splits, if all have one."""
    folders = set()
    for source in found:
        named = [name for name in source.path.parts[-3:-1] if split_of(name) and name != source.class_name]
        if source.split or not named:
            return []
        folders.add(named[0])
    return [
        f"the videos lie in folders named as splits ({some(sorted(folders))}), which count for none here: for splits "
        "give the folder above them as VIDEOS, or a list with a column `split`"
    ]


# ------------------------------------------------------------------ refusing


def refuse_unusable(found: Iterable[VideoSource]) -> tuple[list[VideoSource], list[VideoSource]]:
    """Separates the videos from those that would overwrite one another or whose name cannot be stored."""
    by_id: dict[tuple[str, str], dict[Path, VideoSource]] = defaultdict(dict)
    for source in found:
        by_id[source.class_name, source.video][source.path] = source
    videos, problems = [], []
    for (class_name, video), sources in sorted(by_id.items()):
        first, *others = sorted(sources)
        if others:
            names = " and ".join(str(path) for path in (first, *others))
            reason = f"two sources of one name: {names} would both be stored as {class_name}/{video}: rename one"
        else:
            reason = _unusable(class_name, video, first)
        if reason:
            problems.append(replace(sources[first], problem=reason))
        else:
            videos.append(sources[first])
    return videos, problems


def _unusable(class_name: str, video: str, path: Path) -> str:
    """Why no stage can store a video of these names; "" where it can."""
    if not _is_utf8(str(path)) or not _is_utf8(class_name):
        return "the path or label is not valid UTF-8: rename the file, or save the list that names it as UTF-8"
    if len(video.encode()) > _LONGEST_NAME:
        return f"the name has more than {_LONGEST_NAME} bytes, too many for a file name with .h5: rename it"
    for what, name in (("class", class_name), ("video", video)):
        if name.startswith("."):
            return f"the {what}'s name {name!r} begins with a dot, and would be stored out of sight: rename it"
        if not fits_on_a_line(name):
            return (
                f"the {what}'s name {name!r} has a line break or a blank at an end, which no split list can hold: "
                f"rename the {'folder or label' if what == 'class' else 'file'}"
            )
    return ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
