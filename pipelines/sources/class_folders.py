"""The classes, and where the folders say it the splits, of a folder of videos, or of folders of their pictures.

    <class>/clip.avi, <class>/<group>/clip.avi       classes; videos may lie deeper
    <class>/train/clip.avi, <class>/test/...         classes, then splits
    train/<class>/clip.mp4, val/..., test/...        splits, then classes; part_0/ and replacement/ have no meaning
    clip.mp4, train/clip.mp4 and metadata.csv        Hugging Face's VideoFolder: file_name,label
    train/<id>_000001_000011.mp4 and annotations/    Kinetics before its videos are sorted into classes

Every other layout is refused, with what to give instead: a folder one level too high would make all videos one class,
and the network would be right about each.
"""

import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.interface.wording import plural, some
from pipelines.sources.lists import listed_labels
from pipelines.sources.names import is_video, split_of, splits_of
from pipelines.storage.workspace import UNLABELLED

NO_VIDEO = "not a video by its name"
"""Why a file is skipped, as the account of the videos says it."""
BY_PREDICT = "written by stres predict"
"""Likewise."""
_MEANINGLESS = re.compile(r"part[_-]?\d+|replacement.*", re.IGNORECASE)  # folders of Kinetics' archives


@dataclass(frozen=True)
class Found:
    """A video below the folder."""

    path: Path
    folders: tuple[str, ...]
    """The folders above it that may be classes or splits, outermost first."""
    class_name: str = UNLABELLED
    """Before the folders are read: the class that its own name says, if any."""
    split: str = ""


@dataclass
class FolderOfVideos:
    """What a folder holds."""

    root: Path
    videos: list[Found] = field(default_factory=list)
    layout: str = ""
    """How the folder was read."""
    notes: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Files that were skipped, by reason."""
    suffixes: Counter[str] = field(default_factory=Counter)
    """Those of them that are not videos by their names, by suffix."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """Folders that cannot be listed, and why."""
    lists: list[Path] = field(default_factory=list)
    """Files that may give labels: `metadata.csv`, `metadata.jsonl`, and CSV files in `annotations/`."""
    folders: list[tuple[str, ...]] = field(default_factory=list)
    """All folders below the root that were looked into."""
    argument: str = "VIDEOS"
    """What the command calls the root."""
    label_it: str = "give a list (`path label`) as VIDEOS"
    """How else a user can name the classes."""
    to_store: bool = True
    """Whether something is to be stored for each video, to train on."""


def read_class_folders(
    root: Path, *, workspace: Path | None, classes_at: int | None, to_store: bool = True
) -> FolderOfVideos:
    """Finds the videos below a folder with their classes and splits.

    Args:
        workspace: The workspace in use, whose own videos are skipped.
        classes_at: The class is the folder so many levels below `root`, whatever the layout looks like; None: as the
            layout says.
        to_store: Whether something is to be stored for each video, to train on; if not, videos need no class.

    Raises:
        UsageError: The layout does not say which folders are the classes.
    """
    if is_workspace(root):
        raise UsageError(
            f"{root} is a workspace of stres: VIDEOS is a folder of {'class folders' if to_store else 'videos'}"
        )
    read = FolderOfVideos(root, to_store=to_store)
    _walk(read, workspace)
    if read.videos:
        _read_layout(read, classes_at)
    return read


def read_picture_folders(root: Path, videos: Iterable[Found], *, classes_at: int | None) -> FolderOfVideos:
    """The classes and splits of videos that are folders of pictures.

    Args:
        root: The folder that they lie in.
        videos: Each with the folders above it, and the class that its name says, which counts where it lies in none.
        classes_at: As of `read_class_folders`.

    Raises:
        UsageError: The layout does not say which folders are the classes.
    """
    named = "name the classes by --list (a folder of split lists, or a list file)"
    read = FolderOfVideos(root, list(videos), argument="DIR", label_it=named)
    if read.videos:
        _read_layout(read, classes_at)
    return read


def _read_layout(read: FolderOfVideos, classes_at: int | None) -> None:
    """Gives the videos their classes and splits. Raises `UsageError` where the layout does not say them."""
    root = read.root
    tops = {video.folders[0] for video in read.videos if video.folders}
    splits = splits_of({top for top in tops if not _MEANINGLESS.fullmatch(top)})
    with_videos = {video.path.relative_to(root).parts[:-1] for video in read.videos}
    if classes_at is not None:
        _at_level(read, classes_at)
        _note_empty(read, with_videos, classes_at)
    elif splits:  # all folders are splits (`replacement` belongs to one)
        _read_splits(read, splits)
        _note_empty(read, with_videos, 2)
    else:
        read.videos = _label(read, read.videos, "")
        if any(video.class_name != UNLABELLED for video in read.videos) and not read.layout.startswith("labels"):
            _note_empty(read, with_videos, 1)
    spellings: dict[str, set[str]] = defaultdict(set)
    for video in read.videos:
        spellings[unicodedata.normalize("NFC", video.class_name).casefold()].add(video.class_name)
    for names in spellings.values():
        if len(names) > 1:
            differ = "differ in upper and lower case only, or in how accents are written"
            read.notes.append(f"the classes {' and '.join(sorted(names))} {differ}")


# ------------------------------------------------------------------ what is there


def _walk(read: FolderOfVideos, workspace: Path | None) -> None:
    """Follows links to folders (data sets are often linked together)."""
    own = os.path.realpath(workspace) if workspace is not None else None
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        read.unreadable.append((Path(error.filename), f"the folder cannot be listed ({error.strerror})"))

    for parent, folders, files in os.walk(read.root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up, or to a folder that was seen elsewhere
            read.skipped["in folders linked in a second time"] += sum(is_video(Path(name)) for name in files)
            folders.clear()
            continue
        seen.add(real)
        may_be_workspace = "dataset.json" in files or not {"frames", "flow", "runs"}.isdisjoint(folders)
        if real == own or (may_be_workspace and is_workspace(Path(parent))):
            read.skipped[f"in the workspace {parent}"] += _count_videos(Path(parent))
            folders.clear()
            continue
        read.skipped["hidden"] += sum(name.startswith(".") for name in (*files, *folders))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        _add_files(read, Path(parent), sorted(name for name in files if not name.startswith(".")))
    read.skipped = Counter({reason: count for reason, count in read.skipped.items() if count})


def _add_files(read: FolderOfVideos, parent: Path, names: list[str]) -> None:
    below = parent.relative_to(read.root).parts
    read.folders.append(below)
    there = set(names)
    for name in names:
        path = parent / name
        if not is_video(path):
            read.skipped[NO_VIDEO] += 1
            read.suffixes[path.suffix.lower() or "no suffix"] += 1
            is_annotation = path.suffix == ".csv" and below in ((), ("annotations",))
            if is_annotation or name in ("metadata.csv", "metadata.jsonl"):
                read.lists.append(path)
            continue
        if is_timeline(path, there):
            read.skipped[BY_PREDICT] += 1
        else:
            read.videos.append(Found(path, below))


def is_timeline(path: Path, beside: Collection[str]) -> bool:
    """Whether `predict --timeline` wrote a video: then its JSON is among the names of the files beside it."""
    timeline = path.with_suffix(".json")
    return path.suffix == ".mp4" and timeline.name in beside and _begins_with(timeline, '"stres/timeline/')


def is_workspace(folder: Path) -> bool:
    """Whether a folder is a workspace: one that holds artifacts or runs."""
    if _begins_with(folder / "dataset.json", '"stres/dataset/'):
        return True
    places = itertools.chain(folder.glob("frames/*/*.h5"), folder.glob("flow/*/*.h5"))
    return next(places, None) is not None or any(
        (path.parent / "split.json").is_file() for path in folder.glob("runs/*/config.json")
    )


def _begins_with(path: Path, text: str) -> bool:
    """Whether a file has `text` in its beginning."""
    try:
        with path.open("rb") as file:
            return text.encode() in file.read(400)
    except OSError:
        return False


def _count_videos(workspace: Path) -> int:
    """How many videos lie in a workspace: timelines and pictures of flow."""
    count = 0
    for parent, folders, files in os.walk(workspace):
        if Path(parent) == workspace:
            folders[:] = [name for name in folders if name not in ("frames", "flow", "runs", "scores", "set-aside")]
        count += sum(is_video(Path(name)) for name in files)
    return count


def _note_empty(read: FolderOfVideos, with_videos: set[tuple[str, ...]], level: int) -> None:
    """Names the folders number `level`, counted from 1, below which no video lies."""
    used = {folders[:level] for folders in with_videos}
    places = {path.parent.relative_to(read.root).parts for path in read.lists}
    empty = {folders[:level] for folders in read.folders if len(folders) >= level} - used - places
    if level == 2:  # of splits, where archives may be in between
        empty = {folders for folders in empty if not any(map(_MEANINGLESS.fullmatch, folders))}
    if empty:
        read.notes.append(f"class folders without videos: {some(['/'.join(folders) for folders in sorted(empty)])}")


# ------------------------------------------------------------------ layouts


def _at_level(read: FolderOfVideos, level: int) -> None:
    """The class is folder number `level`, counted from 1; a folder above it may be a split."""
    videos = []
    for video in read.videos:
        class_name = video.folders[level - 1] if len(video.folders) >= level else video.class_name
        split = next((found for name in video.folders[: level - 1] if (found := split_of(name))), "")
        videos.append(replace(video, class_name=class_name, split=split))
    read.videos = videos
    read.layout = f"the class is folder {level} below {read.root} (--classes-at {level})"
    high = sum(video.class_name == UNLABELLED and len(video.folders) < level for video in videos)
    if all(len(video.folders) < level for video in videos):
        deepest = max(len(video.folders) for video in videos)
        raise UsageError(f"--classes-at {level}: the videos of {read.root} lie in at most {plural(deepest, 'folder')}")
    if high:
        read.notes.append(f"{plural(high, 'video')} above the class folders: without a class")


def _read_splits(read: FolderOfVideos, splits: Mapping[str, str]) -> None:
    loose = [video for video in read.videos if not video.folders]
    if loose:
        raise _mixed(read, f"{plural(len(loose), 'video')} beside the folders {some(_tops(read.videos), 4)}")
    by_split: dict[str, list[Found]] = defaultdict(list)
    for video in read.videos:
        top = video.folders[0]
        by_split[top].append(replace(video, folders=video.folders[1:], split=splits.get(top, "")))
    # A replacement takes the place of the video of its name.
    replaced = {path.stem: path for top in by_split if top not in splits for path in (v.path for v in by_split[top])}
    if replaced:
        by_split = {
            top: [replace(video, path=replaced.get(video.path.stem, video.path)) for video in videos]
            for top, videos in by_split.items()
            if top in splits
        }
        read.notes.append(
            f"{plural(len(replaced), 'video was', 'videos were')} replaced by those in {read.root / 'replacement'}"
        )
    videos = [video for top in sorted(by_split) for video in _label(read, by_split[top], top)]
    if all(video.class_name == UNLABELLED for video in videos):
        tops = some(sorted(by_split), 4)
        raise UsageError(
            f"{read.root} holds {tops} with videos but no class folders and no labels: {read.label_it}, "
            f"{'add a metadata.csv (file_name,label), ' if read.argument == 'VIDEOS' else ''}"
            "or say --classes-at 1 if these are the classes"
        )
    read.videos = videos
    read.layout = f"{', '.join(f'{top}/' for top in sorted(by_split))} with {read.layout}"


def _label(read: FolderOfVideos, videos: Sequence[Found], top: str) -> list[Found]:
    """The videos of one folder, `top` below the root, with their classes."""
    videos = [
        replace(video, folders=tuple(name for name in video.folders if not _MEANINGLESS.fullmatch(name)) or ())
        if top or not video.folders
        else video
        for video in videos
    ]
    named = [video for video in videos if not video.folders and video.class_name != UNLABELLED]
    loose = [video for video in videos if not video.folders and video.class_name == UNLABELLED]
    folder = read.root / top if top else read.root
    if named and not loose:
        read.layout = read.layout or "classes by the names of the videos"
        in_folders = [video for video in videos if video.folders]
        return [*named, *(_label(read, in_folders, top) if in_folders else ())]
    if loose:
        if labelled := _labelled(read, videos, loose, folder):
            return labelled
        if any(video.folders for video in videos):
            count = plural(len(loose), "video")
            raise _mixed(read, f"{count} directly in {folder} and others in its folders {some(_tops(videos), 4)}")
        read.layout = read.layout or "videos without class folders"
        if read.to_store:
            read.notes.append(
                f"{plural(len(loose), 'video lies', 'videos lie')} directly in {folder}: without a class they are "
                "neither trained on nor tested, but `train --unlabelled` lets a student match its teacher on them"
                + (", and `predict` takes them" if read.argument == "VIDEOS" else "")
            )
        return list(videos)
    if not top and all(len(video.folders) == 2 and split_of(video.folders[1]) for video in videos):
        read.layout = "class folders with splits"
        return [replace(video, class_name=video.folders[0], split=split_of(video.folders[1])) for video in videos]
    _require_class_level(read, videos, folder)
    read.layout = read.layout or "class folders"
    return [replace(video, class_name=video.folders[0]) for video in videos]


def _require_class_level(read: FolderOfVideos, videos: Sequence[Found], folder: Path) -> None:
    """Raises `UsageError` if the first folders may not be the classes."""
    direct: Counter[str] = Counter()
    below: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        if len(video.folders) == 1:
            direct[video.folders[0]] += 1
        else:
            below[video.folders[0]].add(video.folders[1])
    tops = sorted({*direct, *below})
    level = 1 + len(folder.relative_to(read.root).parts)
    if len(tops) == 1 and not direct:
        inner = folder / tops[0]
        while len(found := {v.folders[len(inner.relative_to(folder).parts)] for v in videos}) == 1 and all(
            len(v.folders) > len(inner.relative_to(folder).parts) + 1 for v in videos
        ):
            inner /= found.pop()
        below_root = inner.relative_to(read.root).parts
        # Not where folders between have no name here: those of flow's components, of archives.
        those = f"give {inner}" if inner.is_dir() else f"--classes-at {len(below_root) + 1}"
        raise UsageError(
            f"{folder} holds one folder, {tops[0]}, with {plural(len(found), 'folder')} of "
            f"videos ({some(sorted(found), 4)}): {those} if those are the classes, or --classes-at {level} if "
            f"{tops[0]} is the only class"
        )
    said = sorted({video.class_name for video in videos} - {UNLABELLED})
    if len(tops) == 1 and len(said) > 1:
        raise UsageError(
            f"{folder} holds one folder, {tops[0]}, of videos whose names say the classes {some(said, 4)}: give "
            f"{folder / tops[0]}, or --classes-at {level} if {tops[0]} is the only class"
        )
    groups = sorted(top for top in below if top not in direct)
    splits = {name for video in videos for name in video.folders[:-1] if split_of(name)}
    if splits:
        raise _mixed(read, f"{some(sorted(splits))}, named as splits are, with folders below")
    if direct and any(len(below[top]) > 1 for top in groups):
        raise _mixed(read, f"videos directly in {some(sorted(direct), 4)}, but in {some(groups, 4)} one folder deeper")
    if below:
        example = next(video for video in videos if len(video.folders) > 1)
        which, place = "some" if direct else "all", example.path.relative_to(read.root)
        note = (
            f"{which} videos lie deeper than their class's folder ({place}): the class is {example.folders[0]!r}; "
            f"--classes-at {level + 1} makes it {example.folders[1]!r}"
        )
        held, *others = below.values()
        if not direct and len(held) > 1 and others and all(names == held for names in others):
            each = f"each of {some(tops, 4)} holds the folders {some(sorted(held), 4)}"
            note += f", and {each}: are they the classes, and the folders above them parts of the data set?"
        read.notes.append(note)


def _mixed(read: FolderOfVideos, what: str) -> UsageError:
    return UsageError(
        f"{read.root} does not say which folders are the classes: it holds {what}. Put every video into the folder of "
        f"its class, {read.label_it}, or say --classes-at N: the class is the Nth folder below {read.argument}, and "
        "videos above it have none"
    )


def _tops(videos: Sequence[Found]) -> list[str]:
    return sorted({video.folders[0] for video in videos if video.folders})


# ------------------------------------------------------------------ labels beside the videos


def _labelled(read: FolderOfVideos, videos: Sequence[Found], loose: Sequence[Found], folder: Path) -> list[Found]:
    """The videos with the classes that files in the folder give to those without a class folder; [] if none does."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for video in loose:
        by_name[video.path.stem].append(video.path)
    labels = {path: label for list_file in read.lists for path, label in listed_labels(list_file, by_name)}
    if not labels:
        return []
    read.layout = f"labels in {', '.join(str(path.relative_to(read.root)) for path in read.lists)}"
    labelled = [
        replace(video, class_name=labels.get(video.path, video.folders[0] if video.folders else UNLABELLED))
        for video in videos
    ]
    without = sum(video.class_name == UNLABELLED for video in labelled)
    if without:
        read.notes.append(f"{plural(without, 'video')} in {folder} {'has' if without == 1 else 'have'} no label")
    return labelled
