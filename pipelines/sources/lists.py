"""Lists of videos, and of segments of videos: which they name, with which labels, and where they are."""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from pipelines.errors import MissingError, UsageError
from pipelines.interface.wording import plural, some
from pipelines.sources.class_names import with_class_names
from pipelines.sources.list_lines import (
    SEPARATORS,
    Entry,
    header_of,
    read_entries,
    read_text,
    spellings,
    three_columns,
)
from pipelines.sources.names import VIDEO_SUFFIXES, is_video, require_class_name, split_of
from pipelines.sources.segments import Segment
from pipelines.sources.source import VideoSource
from pipelines.storage.placeholders import placeholder_in
from pipelines.storage.workspace import UNLABELLED


def read_list(
    list_file: Path,
    *,
    relative_to: Path | None = None,
    class_names: Path | None = None,
    label_column: str | None = None,
    whole_videos: bool = False,
    pictures: bool = False,
) -> tuple[list[VideoSource], list[str]]:
    """Reads the videos of a list file, which need not exist.

    Args:
        relative_to: Relative paths are looked for below this folder; None: below the list's folder, the current one and
            the one above the list's.
        class_names: The file that names the classes of labels that are numbers; None: the only such file beside the
            list.
        label_column: The column of the labels; None: the first of those that are known to hold labels.
        whole_videos: Whether starts and ends say what the videos were cut from, not which part of them is meant.
        pictures: Whether the paths are folders of pictures, which are refused otherwise.

    Returns:
        The videos in order, of one that does not exist with the path where it was looked for first; and how the list
        was read, in sentences.

    Raises:
        MissingError: The list cannot be read.
        UsageError: The file is not a list, a label cannot be a folder's name, a video or segment has two labels, or a
            video two splits.
    """
    if told := placeholder_in(list_file):
        raise MissingError(f"{list_file} cannot be read: {told}")
    videos: list[VideoSource] = []
    notes: list[str] = []
    folders = _folders(list_file, relative_to)
    entries = three_columns(list(read_entries(list_file, folders, notes, label_column, whole_videos)))
    if not pictures:
        _refuse_folders_of_pictures(entries, list_file, folders)
    entries = _with_splits(with_class_names(entries, list_file, class_names, notes), list_file, notes)
    of_segments = any(entry.segment for entry in entries)
    entries = _without_unlabelled_segments(entries, list_file, notes)
    of_list = _split_of_list(list_file)
    by_stem = cache(lambda: _videos_by_stem(folders[0]))  # only where it is needed
    names = cache(_names)
    places: dict[str, tuple[Path, str]] = {}  # of each path, which hundreds of segments may share
    known_as: dict[tuple[Path, Segment | None], Entry] = {}
    in_split: dict[Path, Entry] = {}
    twice = 0
    for entry in entries:
        label = entry.label or UNLABELLED
        require_class_name(label, entry.where)
        if entry.path not in places:
            places[entry.path] = _found(entry, folders, by_stem, names)
        path, problem = places[entry.path]
        known = known_as.setdefault((path, entry.segment), entry)
        if (known.label or UNLABELLED) != label:
            what = f"the segment {entry.segment} of {entry.path}" if entry.segment else entry.path
            raise UsageError(
                f"{entry.where}: {what} has the label {label!r}, but {known.where} gives it "
                f"{known.label or UNLABELLED!r}: keep one"
            )
        if (other := in_split.setdefault(path, entry)).split != entry.split:
            raise UsageError(
                f"{entry.where} has {entry.path} in the split {entry.split or 'none'!r}, {other.where} in "
                f"{other.split or 'none'!r}: a video belongs to one split"
            )
        twice += known is not entry
        if known is entry:
            videos.append(VideoSource.of(label, path, entry.split or of_list, problem, entry.segment))
    if twice:
        what = "a segment" if of_segments else "a video"
        notes.append(f"{plural(twice, f'line of {list_file} repeats', f'lines of {list_file} repeat')} {what}")
    whole = sum(video.segment is None for video in videos)
    if of_segments and whole:
        notes.append(f"{plural(whole, 'row')} of {list_file} without start and end: the whole video")
    unlabelled = sum(video.class_name == UNLABELLED for video in videos)
    if 0 < unlabelled < len(videos):
        have = "has" if unlabelled == 1 else "have"
        notes.append(f"{unlabelled} of {plural(len(videos), 'video')} of {list_file} {have} no label")
    return videos, notes


def _refuse_folders_of_pictures(entries: Sequence[Entry], list_file: Path, folders: Sequence[Path]) -> None:
    if not entries or any(is_video(Path(entry.path)) for entry in entries[:100]):
        return
    first = entries[0]
    if any(os.path.isdir(folder / first.path) for folder in folders):
        raise UsageError(
            f"{first.where} names a folder, {first.path}: a list of folders of pictures (rawframes) is for `stres "
            f"import-frames DIR --list {list_file}`"
        )


def _with_splits(entries: Sequence[Entry], list_file: Path, notes: list[str]) -> list[Entry]:
    """The entries with their splits as stres calls them; what names none of these is noted, and no split."""
    no_split = [entry.split for entry in entries if entry.split and not split_of(entry.split)]
    if no_split:
        notes.append(
            f"{plural(len(no_split), 'row')} of {list_file} in no split: {some(sorted(set(no_split)))} is none of "
            "train, validation and test"
        )
    return [replace(entry, split=split_of(entry.split)) for entry in entries]


def _without_unlabelled_segments(entries: list[Entry], list_file: Path, notes: list[str]) -> list[Entry]:
    """The entries less the segments without a label, where the list gives labels at all."""
    has_labels = any(entry.label for entry in entries)
    unwanted = [entry for entry in entries if entry.segment and not entry.label] if has_labels else []
    if not unwanted:
        return entries
    notes.append(f"{plural(len(unwanted), 'segment')} of {list_file} without a label: left out")
    return [entry for entry in entries if entry.label or not entry.segment]


def read_lines(list_file: Path) -> list[tuple[str, str]]:
    """Path and label ("" for none) of every line of a list, as they stand there. Raises as `read_list`."""
    return [
        (entry.path, entry.label) for entry in three_columns(list(read_entries(list_file, (), [], whole_videos=True)))
    ]


def _folders(list_file: Path, relative_to: Path | None) -> list[Path]:
    if relative_to is not None:
        if not relative_to.is_dir():
            raise MissingError(f"--relative-to {relative_to}: there is no such folder")
        return [Path(os.path.abspath(relative_to))]
    own = Path(os.path.abspath(list_file)).parent
    return list(dict.fromkeys([own, Path.cwd(), own.parent]))


def _split_of_list(list_file: Path) -> str:
    """The split in a list's name (`train.csv`, `kinetics400_val_list_videos.txt`); "" if there is none, or if it is one
    of several divisions (`trainlist01.txt`)."""
    stem = list_file.stem.casefold()
    if re.search(r"(split|list|fold)[_-]?\d", stem):
        return ""
    found = {split for part in re.split(r"[^a-z]+", stem) if (split := split_of(part))}
    return found.pop() if len(found) == 1 else ""


def listed_labels(list_file: Path, by_name: Mapping[str, Sequence[Path]]) -> Iterator[tuple[Path, str]]:
    """The labels of a list with a header; nothing if the file is not such a list. Starts and ends in it say what the
    videos were cut from.

    Args:
        list_file: The list, whose paths are relative to its folder.
        by_name: The paths of videos by their names without suffix. A name that only one of them has need not be in the
            folder that the list says.

    Yields:
        (path, class) of each labelled video.

    Raises:
        UsageError: The list is broken, or gives a video two labels.
    """
    folder = list_file.parent
    first = next((line.strip() for line in read_text(list_file).split("\n") if line.strip()), "")
    if not first.startswith("{") and header_of(first, []) is None:
        return
    entries = [entry for entry in read_entries(list_file, [folder], [], whole_videos=True) if entry.label]
    known_as: dict[str, Entry] = {}
    for entry in with_class_names(entries, list_file, None, []):
        require_class_name(entry.label, entry.where)
        paths = by_name.get(Path(entry.path).stem, [])
        exact = [path for path in paths if path == folder / entry.path]
        for path in exact or (paths if len(paths) == 1 else []):
            known = known_as.setdefault(entry.path, entry)
            if known.label != entry.label:
                raise UsageError(
                    f"{entry.where}: {entry.path} has the label {entry.label!r}, but {known.where} gives it "
                    f"{known.label!r}: keep one, or give {list_file} as VIDEOS where its rows are of segments"
                )
            yield path, entry.label


# ------------------------------------------------------------------ where a path leads


def _videos_by_stem(own: Path) -> dict[str, list[Path]]:
    """All videos below a list's own folder, by their names without suffix, as Kinetics' lists name them."""
    found: dict[str, list[Path]] = defaultdict(list)
    # A folder of annotations is next to those of the videos.
    for parent, folders, files in os.walk(own.parent if own.name.casefold() == "annotations" else own):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for file in sorted(files):
            if is_video(Path(file)) and not file.startswith("."):
                found[Path(file).stem].append(Path(parent, file))
    return found


def _found(
    entry: Entry,
    folders: Sequence[Path],
    by_stem: Callable[[], Mapping[str, list[Path]]],
    names: Callable[[Path], Mapping[str, list[str]]],
) -> tuple[Path, str]:
    """The path of a video, and why it is not there ("" where it is)."""
    for form in spellings(entry.path):
        for folder in folders:
            if os.path.isfile(folder / form):
                return Path(os.path.abspath(folder / form)), ""
    if not is_video(Path(entry.path)) and "/" not in entry.path:
        named = by_stem().get(entry.path) or by_stem().get(f"v_{entry.path}") or []  # as ActivityNet's are called
        replacements = [path for path in named if "replacement" in str(path)]
        if len(replacements or named) == 1:
            return (replacements or named)[0], ""
    first = folders[0] / entry.path.replace("\0", "")
    if any(os.path.isdir(folder / entry.path) for folder in folders):
        return first, f"{first} is a folder: `stres import-frames` takes folders of pictures"
    looked = f"there is no {first}"
    if not os.path.isabs(entry.path):
        others = ", ".join(str(folder / entry.path) for folder in folders[1:])
        looked += f" (nor {others})" if others else ""
        looked += f": {entry.where} gives {entry.path!r}, relative to {folders[0]}; --relative-to names another folder"
    else:
        looked += f": {entry.where} names it"
    paths = [Path(os.path.abspath(folder / form)) for form in spellings(entry.path) for folder in folders]
    if alike := next((found for path in paths for found in _alike(path, names) if os.path.isfile(found)), None):
        return first, f"{looked}. Did you mean {alike}? Upper and lower case differ"
    if alike := next((found for path in paths for found in _of_other_suffixes(path, names)), None):
        return first, f"{looked}. Did you mean {alike}? The suffix differs"
    return first, looked + _in_the_way(entry)


def _of_other_suffixes(path: Path, names: Callable[[Path], Mapping[str, list[str]]]) -> Iterator[Path]:
    """The videos that are there under a path with another suffix, or with one."""
    stems = {path.name, path.stem} if is_video(path) else {path.name}
    for folder in _alike(path.parent, names):
        for name in (stem + suffix for stem in sorted(stems) for suffix in sorted(VIDEO_SUFFIXES)):
            yield from (folder / found for found in names(folder).get(name.casefold(), ()))


def _alike(path: Path, names: Callable[[Path], Mapping[str, list[str]]]) -> list[Path]:
    """What is there under a path, upper and lower case alike."""
    found = [Path(path.anchor)]
    for part in path.parts[1:]:
        found = [
            folder / name
            for folder in found
            for name in ([part] if os.path.exists(folder / part) else names(folder).get(part.casefold(), ()))
        ]
    return found


def _names(folder: Path) -> dict[str, list[str]]:
    """The names in a folder, by their lower case; none where it cannot be listed."""
    found: dict[str, list[str]] = defaultdict(list)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):
            found[name.casefold()].append(name)
    return found


def _in_the_way(entry: Entry) -> str:
    """The likely reason why a line is misread, as a sentence; "" if there is none."""
    if re.match(r"^[A-Za-z]:[\\/]", entry.path):
        return ". It is a Windows path, which does not exist here"
    if "://" in entry.path or entry.path.startswith(("~", "$")):
        return ". Addresses, ~ and variables are not followed: write the path of the file"
    if set(entry.path) & {'"', "'"}:
        return ". Its quotation marks may be the reason: quote the whole path, or nothing"
    if is_video(Path(entry.path or entry.label)) and not entry.label and SEPARATORS.search(entry.path):
        return ". No label follows it, unless the columns are swapped: the path comes first"
    if set(entry.path) & set(",;|") or (len(SEPARATORS.split(entry.path)) > 1 and not is_video(Path(entry.path))):
        return ". An extra column, or another separator, may be the reason: a line is `path label`"
    return ""
