"""List files of videos in all common forms: `path label` a line, CSV with or without a header, tabs, quotes, Kinetics'
annotations, mmaction2's and TSN's `path frames label`, SlowFast's `path label` or `path,label`, and Hugging Face's
`metadata.csv` and `metadata.jsonl`; and of segments of videos: `path,start,end,label`, EPIC-KITCHENS' and ActivityNet's
annotations, and the segments of a timeline.
"""

import codecs
import contextlib
import csv
import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipelines.datasets.split_lists import is_hmdb51_list, is_ucf101_list
from pipelines.errors import MissingError, UsageError
from pipelines.interface.wording import plural, some
from pipelines.sources.names import VIDEO_SUFFIXES, is_video, require_class_name, split_of
from pipelines.sources.segments import Segment
from pipelines.sources.source import VideoSource
from pipelines.storage.workspace import UNLABELLED

PATH_COLUMNS = (
    *("path", "video_path", "videopath", "file_path", "filepath", "file_name", "filename", "file"),
    *("video", "video_name", "clip", "name", "video_id", "youtube_id"),
)
_LABEL_COLUMNS = (
    *("class_name", "classname", "label_name", "labelname", "label", "class", "category", "action", "target", "verb"),
    *("label_id", "class_id", "labelid", "classid", "y"),
)
_SPLIT_COLUMNS = ("split", "subset", "set", "partition")
# Of segments: seconds before frames, which may be those of a set of pictures at another rate (EPIC-KITCHENS' are).
_SECONDS = (
    (
        *("start", "start_time", "start_seconds", "start_sec", "start_timestamp", "t_start", "time_start"),
        *("begin", "begin_time", "onset", "from"),
    ),
    (
        *("end", "end_time", "end_seconds", "end_sec", "end_timestamp", "t_end", "time_end"),
        *("stop", "stop_time", "stop_seconds", "stop_sec", "stop_timestamp", "t_stop", "time_stop"),
        *("finish", "finish_time", "offset", "to"),
    ),
)
_FRAMES = (
    ("start_frame", "frame_start", "startframe", "begin_frame", "onset_frame", "onsetframe"),
    (
        *("end_frame", "frame_end", "endframe", "stop_frame", "frame_stop", "stopframe"),
        *("finish_frame", "offset_frame", "offsetframe"),
    ),
)
_SPANS = ((False, *_SECONDS), (True, *_FRAMES))
_TIME = r"(?:\d+:){0,2}(?:\d+(?:\.\d*|,\d+(?=\s*[;\t]))?|\.\d+)"  # a comma is a decimal one before other separators
_SEGMENT_ON_A_LINE = re.compile(
    rf"(?P<start>{_TIME})\s*[\s,;]\s*(?P<end>{_TIME})\s*[\s,;]\s*(?P<label>(?![\d.,;\s-]+$)\S.*)"
)
_KINETICS = ("youtube_id", "time_start", "time_end")
_FRAME_LISTS = ("original_vido_id", "original_vid_id", "original_video_id", "frame_id")  # SlowFast's Charades and AVA
_CLASS_FILES = ("classInd.txt", "classes.txt", "labels.txt", "class_names.txt", "classnames.txt", "*label_map*.txt")
_SEPARATORS = re.compile(r"[ \t]*[,;\t][ \t]*|[ ]+")
_MOST_SEPARATORS = 40  # of a line that is looked at; no path has more blanks and commas


@dataclass(frozen=True)
class Entry:
    """A line of a list."""

    path: str
    """As written there."""
    label: str = ""
    """"" for none."""
    split: str = ""
    where: str = ""
    """File and line, for messages."""
    separator: str = ""
    """What separates path and label, without blanks."""
    segment: Segment | None = None


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
            video segments in two splits.
    """
    videos: list[VideoSource] = []
    notes: list[str] = []
    folders = _folders(list_file, relative_to)
    entries = _three_columns(list(_entries(list_file, folders, notes, label_column, whole_videos)))
    if not pictures and entries and not any(is_video(Path(entry.path)) for entry in entries[:100]):
        first = entries[0]
        if any((folder / first.path).is_dir() for folder in folders):
            raise UsageError(
                f"{first.where} names a folder, {first.path}: a list of folders of pictures (rawframes) is for `stres "
                f"import-frames DIR --list {list_file}`"
            )
    entries = _named(entries, list_file, class_names, notes)
    of_list = _split_of_list(list_file)
    by_stem = cache(lambda: _videos_by_stem(folders[0]))  # only where it is needed
    places: dict[str, tuple[Path, str]] = {}  # of each path, which hundreds of segments may share
    known_as: dict[tuple[Path, Segment | None], Entry] = {}
    in_split: dict[Path, Entry] = {}
    twice = 0
    of_segments = any(entry.segment for entry in entries)
    has_labels = any(entry.label for entry in entries)
    unwanted = [entry for entry in entries if entry.segment and not entry.label] if has_labels else []
    if unwanted:
        notes.append(f"{plural(len(unwanted), 'segment')} of {list_file} without a label: left out")
        entries = [entry for entry in entries if entry.label or not entry.segment]
    for entry in entries:
        label = entry.label or UNLABELLED
        require_class_name(label, entry.where)
        if entry.path not in places:
            places[entry.path] = _found(entry, folders, by_stem)
        path, problem = places[entry.path]
        known = known_as.setdefault((path, entry.segment), entry)
        if (known.label or UNLABELLED) != label:
            what = f"the segment {entry.segment} of {entry.path}" if entry.segment else entry.path
            raise UsageError(
                f"{entry.where}: {what} has the label {label!r}, but {known.where} gives it "
                f"{known.label or UNLABELLED!r}: keep one"
            )
        if of_segments and (other := in_split.setdefault(path, entry)).split != entry.split:
            raise UsageError(
                f"{entry.where} has {entry.path} in the split {entry.split or 'none'!r}, {other.where} in "
                f"{other.split or 'none'!r}: a video's segments belong to one split"
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


def read_lines(list_file: Path) -> list[tuple[str, str]]:
    """Path and label ("" for none) of every line of a list, as they stand there. Raises as `read_list`."""
    return [(entry.path, entry.label) for entry in _three_columns(list(_entries(list_file, (), [], whole_videos=True)))]


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
    first = next((line.strip() for line in _text(list_file).split("\n") if line.strip()), "")
    if not first.startswith("{") and _header(first, []) is None:
        return
    entries = [entry for entry in _entries(list_file, [folder], [], whole_videos=True) if entry.label]
    known_as: dict[str, Entry] = {}
    for entry in _named(entries, list_file, None, []):
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


def _found(entry: Entry, folders: Sequence[Path], by_stem: Callable[[], Mapping[str, list[Path]]]) -> tuple[Path, str]:
    """The path of a video, and why it is not there ("" where it is)."""
    for form in _spellings(entry.path):
        for folder in folders:
            if is_there(folder, form):
                return Path(os.path.abspath(folder / form)), ""
    if not is_video(Path(entry.path)) and "/" not in entry.path:
        named = by_stem().get(entry.path) or by_stem().get(f"v_{entry.path}") or []  # as ActivityNet's are called
        replacements = [path for path in named if "replacement" in str(path)]
        if len(replacements or named) == 1:
            return (replacements or named)[0], ""
    first = folders[0] / entry.path.replace("\0", "")
    if any((folder / entry.path).is_dir() for folder in folders):
        return first, f"{first} is a folder: `stres import-frames` takes folders of pictures"
    looked = f"there is no {first}"
    if not os.path.isabs(entry.path):
        others = ", ".join(str(folder / entry.path) for folder in folders[1:])
        looked += f" (nor {others})" if others else ""
        looked += f": {entry.where} gives {entry.path!r}, relative to {folders[0]}; --relative-to names another folder"
    else:
        looked += f": {entry.where} names it"
    return first, looked + _in_the_way(entry)


def _in_the_way(entry: Entry) -> str:
    """The likely reason why a line is misread, as a sentence; "" if there is none."""
    if re.match(r"^[A-Za-z]:[\\/]", entry.path):
        return ". It is a Windows path, which does not exist here"
    if set(entry.path) & {'"', "'"}:
        return ". Its quotation marks may be the reason: quote the whole path, or nothing"
    if is_video(Path(entry.path or entry.label)) and not entry.label and _SEPARATORS.search(entry.path):
        return ". No label follows it, unless the columns are swapped: the path comes first"
    if len(_SEPARATORS.split(entry.path)) > 1 and not is_video(Path(entry.path)):
        return ". An extra column may be the reason: a line is `path label`"
    return ""


def _spellings(path: str) -> Iterator[str]:
    yield path
    if "\\" in path:
        yield path.replace("\\", "/")


def is_there(folder: Path, name: str) -> bool:
    try:
        return os.path.isfile(folder / name)
    except ValueError:
        return False


# ------------------------------------------------------------------ lines


def _entries(
    list_file: Path,
    folders: Sequence[Path],
    notes: list[str],
    label_column: str | None = None,
    whole_videos: bool = False,
) -> Iterator[Entry]:
    label_columns = _LABEL_COLUMNS if label_column is None else (_column(label_column),)
    entry_of = partial(_of_columns, label_columns=label_columns, whole_videos=whole_videos)
    if is_hmdb51_list(list_file.name):
        raise UsageError(
            f"{list_file} is a split list of HMDB51, whose numbers say train, test or unused, not the class: give the "
            "folder of class folders as VIDEOS, and the lists to `stres train --splits`"
        )
    text = _text(list_file)
    lines = [(f"{list_file}, line {number}", line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(where, line) for where, line in lines if line]
    if not lines:
        return
    if lines[0][1].startswith("{"):
        with contextlib.suppress(ValueError):  # JSON lines, or broken ones
            document = json.loads(text)
            if (annotated := _of_document(document, list_file, notes)) is not None:
                yield from (replace(entry, segment=None) for entry in annotated) if whole_videos else annotated
                return
        for where, line in lines:
            try:
                document = json.loads(line, object_pairs_hook=_without_repetition)
            except ValueError as error:
                raise UsageError(f"{where} cannot be read as JSON ({error})") from error
            yield entry_of(_columns_of(document, where), where)
        return
    array: list[object] = []
    if text.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # a path may begin with a bracket
            array = list(json.loads(text))
    if array:
        places = (f"{list_file}, element {number}" for number in range(1, len(array) + 1))
        yield from (entry_of(_columns_of(one, where), where) for where, one in zip(places, array, strict=True))
        return
    header = _header(lines[0][1], folders, label_columns)
    if header is not None:
        delimiter, columns = header
        if label_column is not None and label_columns[0] not in columns:
            raise UsageError(f"--label-column {label_column}: {list_file} has the columns {', '.join(columns)}")
        if set(columns) & set(_FRAME_LISTS):
            raise UsageError(
                f"{list_file} lists frames, not videos (its columns are {', '.join(columns)}): run `stres "
                "import-frames` on the folders of pictures"
            )
        if delimiter != " " or len(columns) != 2 or columns[0] not in PATH_COLUMNS:
            yield from _of_table(text, delimiter, columns, list_file, entry_of)
            return
        lines = lines[1:]
    elif label_column is not None:
        raise UsageError(f"--label-column {label_column}: the first line of {list_file} names no such column")
    else:
        _refuse_header_without_label(*lines[0], folders)
    by_folder = is_ucf101_list(list_file.name)

    def exists(name: str) -> bool:
        return any(is_there(folder, form) for form in _spellings(name) for folder in folders)

    is_of_segments: bool | None = None
    for where, line in lines:
        path, label, separator = split_line(line, exists)
        # Names may begin with "#" (HMDB51 has some): only "# " begins a comment, and only if no such file exists.
        if (line == "#" or line.startswith(("# ", "#\t"))) and not exists(path):
            continue
        if by_folder and not label and len(Path(path).parts) > 1:  # UCF101's test lists: the folder is the class
            label = Path(path).parent.name
        segment = _SEGMENT_ON_A_LINE.fullmatch(label) if is_video(Path(path)) else None
        if is_of_segments is (segment is None):
            raise UsageError(
                f"{where}: {line!r} is not as the lines before: `path,start,end,label` in all lines, or none"
            )
        is_of_segments = segment is not None
        if segment:
            span = None if whole_videos else _segment(segment["start"], segment["end"], where, in_frames=False)
            yield Entry(path, _unquoted(segment["label"]), "", where, separator, span)
            continue
        if separator and separator in label and line[-1] not in "\"'" and not re.fullmatch(r"[-\d\s,;.]+", label):
            raise UsageError(
                f"{where}: several columns follow {path!r} ({label!r}): name them in a first line "
                f"(path{separator}label{separator}split), or quote a label that holds {separator!r}"
            )
        yield Entry(path, label, "", where, separator)


def _text(list_file: Path) -> str:
    try:
        # Bytes that are not UTF-8 are kept, as in names of files.
        data = list_file.read_bytes()
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # PowerShell's
        text = data.decode(*(("utf-16", "replace") if utf_16 else ("utf-8", "surrogateescape"))).removeprefix("\ufeff")
    except OSError as error:
        raise MissingError(f"{list_file} cannot be read ({error.strerror}): check its permissions") from error
    if "\0" in text:
        raise UsageError(
            f"{list_file} is neither a list file (`path label`) nor named as a video; "
            f"supported are {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    return text


def split_line(line: str, exists: Callable[[str], bool]) -> tuple[str, str, str]:
    """Splits a line into its path, its label ("" for none) and what separates them: "" for blanks, a tab, a comma or a
    semicolon.

    A path ends where a file of that name exists, or else after a video's suffix; a label may have several words.
    """
    places = [found for found in _SEPARATORS.finditer(line) if found.start()][:_MOST_SEPARATORS]
    if not places and line[0] not in "\"'":
        return line, "", ""

    def parted(found: re.Match[str]) -> tuple[str, str, str]:
        mark = found.group().strip(" ")
        return line[: found.start()], _unquoted(line[found.end() :]), mark.strip("\t") or mark[:1]

    at_suffix = [found for found in places if is_video(Path(line[: found.start()]))]
    for found in reversed(at_suffix):
        if exists(line[: found.start()]):
            return parted(found)
    if exists(line):
        return line, "", ""
    quoted = re.match(r"""(?P<mark>["'])(?P<path>.+?)(?P=mark)(?:\s*(?P<separator>[\s,;])\s*(?P<label>.*))?$""", line)
    if quoted:
        return quoted["path"], _unquoted(quoted["label"] or ""), (quoted["separator"] or "").strip(" ")
    for found in reversed(places):
        if exists(line[: found.start()]):
            return parted(found)
    if at_suffix:
        return parted(at_suffix[-1])
    if is_video(Path(line)):
        return line, "", ""
    firm = [found for found in places if found.group().strip(" ")]  # a tab, a comma, a semicolon
    if firm:
        return parted(firm[0])
    numbers = re.fullmatch(r"(?P<path>.+?)\s+(?P<label>\d+\s+\d+)", line)
    if numbers:
        return numbers["path"], numbers["label"], ""
    return parted(places[-1]) if places else (line, "", "")


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].replace(text[0] * 2, text[0])
    return text.strip()


def _three_columns(entries: list[Entry]) -> list[Entry]:
    """Turns `path frames label` into `path label` if all lines are so. Raises `UsageError` for lines of more numbers,
    and for several labels."""
    two_numbers = {"": r"(\d+)\s+(\d+)", "\t": r"(\d+)\s+(\d+)", ",": r"(\d+)\s*,\s*(\d+)", ";": r"(\d+)\s*;\s*(\d+)"}
    labelled = [entry for entry in entries if entry.label]
    found = [re.fullmatch(two_numbers.get(entry.separator, two_numbers[""]), entry.label) for entry in labelled]
    if labelled and all(found):
        labels = {entry.where: match[2] for entry, match in zip(labelled, found, strict=True) if match}
        return [replace(entry, label=labels.get(entry.where, "")) for entry in entries]
    for place, entry in enumerate(entries):
        if re.fullmatch(r"\d+(\s*[,;]\s*\d+)+", entry.label):
            raise UsageError(f"{entry.where}: {entry.path} has several labels ({entry.label}): one class a video")
        if not re.fullmatch(r"-?[\d.]+(\s+-?[\d.]+)+", entry.label):
            continue
        first, *rest = entry.label.split(None, 1)
        if is_video(Path(entry.path)) or len(rest[0].split()) > 1:
            raise UsageError(
                f"{entry.where}: the path {entry.path!r} is followed by {entry.label!r}: a line is `path label`, or in "
                "all lines `path frames label`"
            )
        entries[place] = replace(entry, path=f"{entry.path} {first}", label=rest[0])
    return entries


# ------------------------------------------------------------------ columns with names


def _column(name: str) -> str:
    """The name of a column, however it is spelled."""
    return re.sub(r"[-\s]+", "_", name.strip().casefold())


def _header(
    line: str, folders: Sequence[Path], label_columns: Sequence[str] = _LABEL_COLUMNS
) -> tuple[str, list[str]] | None:
    """(delimiter, names of the columns) where the first line is a header, which may be written as a comment."""
    if any(is_there(folder, line) for folder in folders):
        return None
    line = line.lstrip("#").lstrip()
    for delimiter in (",", "\t", ";", " "):
        try:
            cells = [_column(cell) for cell in next(csv.reader([line], delimiter=delimiter), [])]
        except csv.Error:  # a line break of another kind within it
            return None
        names = set(cells)
        known = names & set(PATH_COLUMNS) and (
            names & set(label_columns)
            or any(names & set(starts) and names & set(ends) for _, starts, ends in _SPANS)
            or (len(cells) == 1 and delimiter == ",")
            or (len(cells) > 1 and names <= {*PATH_COLUMNS, *_SPLIT_COLUMNS} and names & set(_SPLIT_COLUMNS))
        )
        if known or names >= set(_KINETICS) or (names & set(_FRAME_LISTS) and len(names) > 1):
            return delimiter, cells
    return None


def _refuse_header_without_label(where: str, line: str, folders: Sequence[Path]) -> None:
    """Raises `UsageError` where the line names a column of paths but none of labels, which would make it a video."""
    for delimiter in (",", "\t", ";", " "):
        if any(is_there(folder, name) for name in (line, line.partition(delimiter)[0]) for folder in folders):
            return
        cells = [_unquoted(cell).casefold() for cell in line.split(delimiter) if cell]
        if cells[:2] == ["start_seconds", "end_seconds"]:
            raise UsageError(f"{where} has the windows of a timeline: those of its segments end in .segments.csv")
        if len(cells) < 2 or any("/" in cell or "\\" in cell or is_video(Path(cell)) for cell in cells):
            continue
        if delimiter == " " and (cells[0] not in PATH_COLUMNS or cells[1].isdecimal()):  # a name and its label
            continue
        if set(cells) & set(PATH_COLUMNS):
            raise UsageError(
                f"{where} names columns ({', '.join(cells)}), but none of them is known to hold labels: call the one "
                f"that does label (known are {', '.join(_LABEL_COLUMNS)})"
            )


def _require_once(names: Sequence[str], where: str) -> None:
    """Raises `UsageError` if a column appears twice, since only one of them would be read."""
    for name, count in Counter(names).items():
        if count > 1 and name in (*PATH_COLUMNS, *_LABEL_COLUMNS, *_SPLIT_COLUMNS, *_KINETICS):
            raise UsageError(f"{where} names the column {name} {count} times: keep one")


def _of_table(
    text: str,
    delimiter: str,
    names: Sequence[str],
    list_file: Path,
    entry_of: Callable[[Mapping[str, str], str], Entry],
) -> Iterator[Entry]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(f"{list_file} cannot be read as CSV ({error})") from error
    _require_once(names, f"{list_file}, line {rows[0][0]}")
    for number, row in rows[1:]:
        where = f"{list_file}, line {number}"
        if len(row) > len(names):
            raise UsageError(
                f"{where} has {plural(len(row), 'column')}, the header {len(names)}: quote what holds a {delimiter!r}"
            )
        yield entry_of(dict(zip_longest(names, (cell.strip() for cell in row), fillvalue="")), where)


def _of_columns(columns: Mapping[str, str], where: str, label_columns: Sequence[str], whole_videos: bool) -> Entry:
    label = next((columns[name] for name in label_columns if columns.get(name)), "")
    split = next((split_of(columns[name]) for name in _SPLIT_COLUMNS if columns.get(name)), "")
    if all(columns.get(name) for name in _KINETICS):
        try:
            start, end = (int(float(columns[name])) for name in _KINETICS[1:])
        except ValueError:
            raise UsageError(f"{where}: time_start and time_end must be seconds") from None
        return Entry(f"{columns['youtube_id']}_{start:06d}_{end:06d}", label, split, where)
    path = next((columns[name] for name in PATH_COLUMNS if columns.get(name)), "")
    if not path:
        raise UsageError(f"{where} names no video: known columns are {', '.join(PATH_COLUMNS)}")
    return Entry(path, label, split, where, segment=None if whole_videos else _segment_of_columns(columns, where))


def _segment_of_columns(columns: Mapping[str, str], where: str) -> Segment | None:
    """The segment that a row is of; None where the list has no columns for that, or the row nothing in them. Raises
    `UsageError` where only one of start and end is known."""
    said: list[str] = []
    alone = ""
    paired = False
    for in_frames, *both in _SPANS:
        names = [next((name for name in spellings if name in columns), "") for spellings in both]
        paired |= all(names)
        if all(names):
            start, end = (columns[name] for name in names)
            if start and end:
                return _segment(start, end, where, in_frames=in_frames)
            said += names if start or end else []
        elif any(names) and not alone:
            does, other, known = ("starts", "ends", both[1]) if names[0] else ("ends", "starts", both[0])
            alone = (
                f"{where}: the column {max(names)} says where a segment {does}, but no column where it {other}: call "
                f"that one {known[0]} (known are {', '.join(known)}); if the videos are meant whole, leave "
                f"{max(names)} out or give --whole-videos"
            )
    if said:
        raise UsageError(f"{where} says no {' and no '.join(name for name in said if not columns[name])}")
    if alone and not paired:
        raise UsageError(alone)
    return None


def _segment(start: str, end: str, where: str, *, in_frames: bool) -> Segment:
    try:
        return Segment.of(start, end, in_frames=in_frames)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _of_document(document: Mapping[str, Any], list_file: Path, notes: list[str]) -> list[Entry] | None:
    """What a JSON document of segments lists; None for another one."""
    if isinstance(document.get("database"), dict):
        return _of_activitynet(document, list_file, notes)
    is_timeline = str(document.get("schema", "")).startswith("stres/timeline/")
    return list(_of_timeline(document, list_file)) if is_timeline else None


def _of_activitynet(document: Mapping[str, Any], list_file: Path, notes: list[str]) -> list[Entry]:
    """ActivityNet's annotations, which THUMOS14, HACS and FineAction are given in too: videos without any, as those of
    its test, are not listed. What cannot be used is left out, since they have such annotations as published. Raises
    `UsageError` where that is all."""
    entries: list[Entry] = []
    unusable: list[str] = []
    labels: dict[tuple[str, Segment | None], set[str]] = defaultdict(set)
    for video, about in document["database"].items():
        split = split_of(str(about.get("subset", "")))
        for number, annotation in enumerate(about.get("annotations", []), start=1):
            where = f"video {video}, annotation {number}"
            try:
                start, end = map(str, annotation["segment"])
                label = str(annotation["label"])
            except (KeyError, TypeError, ValueError):
                unusable.append(f"{where} has no segment of a start and an end, or no label")
                continue
            try:
                span = _segment("0" if start.startswith("-") else start, end, where, in_frames=False)
            except UsageError as error:
                unusable.append(str(error))
                continue
            entries.append(Entry(video, label, split, f"{list_file}, {where}", segment=span))
            labels[video, span].add(label)
    if unusable and not entries:
        raise UsageError(f"{list_file}, {unusable[0]}: correct it")
    if unusable:
        what = plural(len(unusable), "unusable annotation")
        notes.append(f"{what} of {list_file} left out ({unusable[0]})")
    several = [f"{video} {span}: {' and '.join(sorted(of))}" for (video, span), of in labels.items() if len(of) > 1]
    if several:
        what = plural(len(several), "segment")
        notes.append(f"{what} of {list_file} left out, with more than one label ({some(several)}): keep one label each")
    return [entry for entry in entries if len(labels[entry.path, entry.segment]) == 1]


def _of_timeline(document: Mapping[str, Any], list_file: Path) -> Iterator[Entry]:
    """The segments that `predict --timeline` found."""
    for number, found in enumerate(document["segments"], start=1):
        where = f"{list_file}, segment {number}"
        span = _segment(str(found["start"]), str(found["end"]), where, in_frames=False)
        yield Entry(document["video"], found["class_name"], "", where, segment=span)


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"{Counter(name for name, _ in pairs).most_common(1)[0][0]!r} appears twice in one object")
    return dict(pairs)


def _columns_of(document: object, where: str) -> dict[str, str]:
    if not isinstance(document, dict):
        raise UsageError(f"{where} is not a JSON object of columns, as others are: correct it")
    for name, value in document.items():
        if str(name).casefold() in (*PATH_COLUMNS, *_LABEL_COLUMNS) and isinstance(value, list | dict):
            raise UsageError(f"{where}: {name} is {json.dumps(value)}: a video has one path and one class")
    _require_once([_column(str(name)) for name in document], where)
    return {_column(str(name)): "" if value is None else str(value) for name, value in document.items()}


# ------------------------------------------------------------------ the names of numbers


def _named(entries: list[Entry], list_file: Path, class_names: Path | None, notes: list[str]) -> list[Entry]:
    """Replaces numbers as labels by the names of their classes, if there is a file of those."""
    numbers = {entry.label for entry in entries if entry.label}
    if "-1" in numbers and all(number.isdecimal() for number in numbers - {"-1"}):  # mmaction2's for no label
        entries = [replace(entry, label="" if entry.label == "-1" else entry.label) for entry in entries]
        numbers -= {"-1"}
    _refuse_mixture(entries)
    if not numbers or not all(number.isdecimal() for number in numbers):
        if class_names is not None and numbers:
            raise UsageError(f"--class-names {class_names} names numbers, but the labels of {list_file} are names")
        return entries
    folder = Path(os.path.abspath(list_file)).parent
    beside = sorted({path for pattern in _CLASS_FILES for path in folder.glob(pattern)} - {folder / list_file.name})
    if class_names is None and len(beside) > 1:
        several = ", ".join(path.name for path in beside)
        notes.append(f"several files beside {list_file} could name its classes ({several}): --class-names says which")
    source = class_names or (beside[0] if len(beside) == 1 else None)
    if source is None:
        notes.append(f"the classes of {list_file} are numbers: --class-names FILE gives them names")
        return entries
    names = _class_of_number(source, entries)
    notes.append(f"classes by their numbers in {source}: {min(names)} is {names[min(names)]}")
    return [replace(entry, label=names[int(entry.label)] if entry.label else "") for entry in entries]


def _refuse_mixture(entries: Sequence[Entry]) -> None:
    """Raises `UsageError` if some labels are numbers and others names: it is not known which belong together."""
    number = next((entry for entry in entries if re.fullmatch(r"-?\d+", entry.label)), None)
    name = next((entry for entry in entries if entry.label and not re.fullmatch(r"-?\d+", entry.label)), None)
    if number is not None and name is not None:
        raise UsageError(
            f"{number.where} has the number {number.label} as its label, {name.where} the name {name.label!r}: give "
            "names in all lines, or numbers"
        )


def _class_of_number(source: Path, entries: Sequence[Entry]) -> dict[int, str]:
    """The class of each number in the list. Raises `UsageError` where the file does not say which is which."""
    names, numbered = read_class_names(source)
    wanted = {int(entry.label) for entry in entries if entry.label}
    # A file without numbers counts from 0 or from 1; mmaction2's lists count from 0 beside a classInd.txt from 1.
    shifts = [shift for shift in (0, 1) if all(number + shift in names for number in wanted)]
    if not shifts:
        raise UsageError(
            f"{source} names {plural(len(names), 'class')}, from {min(names, default=0)} to {max(names, default=0)}, "
            f"but the list has the labels {min(wanted)} to {max(wanted)}: give the list's own file by --class-names"
        )
    agree = Counter(
        {
            shift: sum(
                Path(entry.path.replace("\\", "/")).parent.name.casefold() == names[int(entry.label) + shift].casefold()
                for entry in entries
                if entry.label
            )
            for shift in shifts
        }
    )
    shift = agree.most_common(1)[0][0]
    if len(shifts) > 1 and agree[0] == agree[1]:
        if not numbered:
            raise UsageError(
                f"{source} does not say whether its first class is number 0 or 1, and the list has neither 0 nor the "
                "last number: write the number before each name"
            )
        shift = 0
    known = {name.casefold() for name in names.values()}
    for entry in entries:
        folder = Path(entry.path.replace("\\", "/")).parent.name
        if entry.label and folder.casefold() in known - {names[int(entry.label) + shift].casefold()}:
            raise UsageError(
                f"{entry.where}: {entry.path} has the label {entry.label}, which {source} calls "
                f"{names[int(entry.label) + shift]!r}: correct one of them, or give another file by --class-names"
            )
    return {number: names[number + shift] for number in sorted(wanted)}


def read_class_names(path: Path) -> tuple[dict[int, str], bool]:
    """Reads a file of class names: JSON, or one name a line, with or without its number before or after it.

    Returns:
        The classes by number, which without numbers in the file count from 1; and whether the file has the numbers.

    Raises:
        MissingError: The file cannot be read.
        UsageError: It is not a file of class names, or contradicts itself.
    """
    text = _text(path)
    if path.suffix.lower() == ".json":
        return _names_of_json(path, text), True
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    before = [re.fullmatch(r"(?P<number>\d+)[\s,:]+(?P<name>.+)", line) for line in lines]
    after = [re.fullmatch(r"(?P<name>.+)[\s,:]+(?P<number>\d+)", line) for line in lines]
    if lines and lines[0].casefold() in ("id,name", "name,id", "label,name", "name,label"):
        before, after = before[1:], after[1:]
    for found in (before, after):
        if found and all(found):
            pairs = [(int(match["number"]), _unquoted(match["name"])) for match in found if match]
            break
    else:
        pairs = [(number, _unquoted(line)) for number, line in enumerate(lines, start=1)]
        return _without_contradiction(path, pairs), False
    return _without_contradiction(path, pairs), True


def _names_of_json(path: Path, text: str) -> dict[int, str]:
    try:
        document = json.loads(text)
        if isinstance(document, list):
            pairs = list(enumerate(map(str, document)))
        elif all(isinstance(value, int) for value in document.values()):
            pairs = [(value, _unquoted(name)) for name, value in document.items()]  # SlowFast's quote names twice
        else:
            pairs = [(int(number), str(name)) for number, name in document.items()]
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as names of classes ({error})") from error
    return _without_contradiction(path, pairs)


def _without_contradiction(path: Path, pairs: Sequence[tuple[int, str]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, name in pairs:
        if names.setdefault(number, name) != name:
            raise UsageError(f"{path} gives the number {number} to {names[number]!r} and to {name!r}: correct it")
    if len(set(names.values())) < len(names):
        name, count = Counter(names.values()).most_common(1)[0]
        raise UsageError(f"{path} names the class {name!r} {count} times: correct it")
    return names
