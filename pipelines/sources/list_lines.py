"""The lines of list files in all common forms: `path label` a line, CSV with or without a header, tabs, quotes,
Kinetics' annotations, mmaction2's and TSN's `path frames label`, SlowFast's `path label` or `path,label`, and Hugging
Face's `metadata.csv` and `metadata.jsonl`; and of segments of videos: `path,start,end,label`, EPIC-KITCHENS' and
ActivityNet's annotations, and the segments of a timeline.
"""

import contextlib
import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipelines.datasets.split_lists import is_hmdb51_list, is_ucf101_list, text_of_list
from pipelines.errors import MissingError, UsageError
from pipelines.interface.wording import plural, some
from pipelines.sources.names import VIDEO_SUFFIXES, is_video
from pipelines.sources.segments import Segment
from pipelines.storage.failures import typed_text

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
    rf"(?P<start>{_TIME})(?P<between>\s*[\s,;]\s*)(?P<end>{_TIME})\s*[\s,;]\s*(?P<label>(?![\d.,;\s-]+$)\S.*)"
)
# Or more, and then something else.
_THREE_NUMBERS = re.compile(r"""(?:["']?[\d.:]+["']?[\s,;]+){3,}(?![\d.,:;\s]*$)""")
_KINETICS = ("youtube_id", "time_start", "time_end")
_FRAME_LISTS = ("original_vido_id", "original_vid_id", "original_video_id", "frame_id")  # SlowFast's Charades and AVA
SEPARATORS = re.compile(r"[ \t]*[,;\t][ \t]*|[ ]+")
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


def read_entries(
    list_file: Path,
    folders: Sequence[Path],
    notes: list[str],
    label_column: str | None = None,
    whole_videos: bool = False,
) -> Iterator[Entry]:
    """Reads what the lines of a list say, whatever its form.

    Args:
        folders: Where the videos of relative paths may lie: a path ends where such a file exists.
        notes: Takes what is to be said of the reading, in sentences.
        label_column: The column of the labels; None: the first of those that are known to hold labels.
        whole_videos: Whether starts and ends say what the videos were cut from, not which part of them is meant.

    Yields:
        The entries in order, with labels as they stand there, numbers too.

    Raises:
        MissingError: The list cannot be read.
        UsageError: The file is not a list, or one of other things than videos.
    """
    label_columns = _LABEL_COLUMNS if label_column is None else (_column(label_column),)
    entry_of = partial(_of_columns, label_columns=label_columns, whole_videos=whole_videos)
    if is_hmdb51_list(list_file.name):
        raise UsageError(
            f"{list_file} is a split list of HMDB51, whose numbers say train, test or unused, not the class: give the "
            "folder of class folders as VIDEOS, and the lists to `stres train --splits`"
        )
    text = read_text(list_file)
    lines = [(f"{list_file}, line {number}", line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(where, line) for where, line in lines if line]
    if not lines:
        return
    if lines[0][1].startswith(("{", "[")) and (listed := _of_json(text, lines, list_file, notes, entry_of)) is not None:
        yield from (replace(entry, segment=None) for entry in listed) if whole_videos else listed
        return
    header = header_of(lines[0][1], folders, label_columns)
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
    yield from _of_lines(lines, folders, whole_videos=whole_videos, by_folder=is_ucf101_list(list_file.name))


def _of_lines(
    lines: Sequence[tuple[str, str]], folders: Sequence[Path], *, whole_videos: bool, by_folder: bool
) -> Iterator[Entry]:
    """Lines without names of columns. `by_folder`: a path without a label is in the folder of its class, as in UCF101's
    test lists."""

    def exists(name: str) -> bool:
        return any(os.path.isfile(folder / form) for form in spellings(name) for folder in folders)

    is_of_segments: bool | None = None
    for where, line in lines:
        path, label, separator = split_line(line, exists)
        # Names may begin with "#" (HMDB51 has some): only "# " begins a comment, and only if no such file exists.
        if (line == "#" or line.startswith(("# ", "#\t"))) and not exists(path):
            continue
        if by_folder and not label and len(Path(path).parts) > 1:
            label = Path(path).parent.name
        segment = _SEGMENT_ON_A_LINE.fullmatch(label) if is_video(Path(path)) else None
        if segment and separator in label and separator not in segment["between"]:  # 0,1 is one number in `a.avi;0,1;x`
            segment = None
        if is_video(Path(path)) and _holds_decimal_commas(label, separator, segment):
            raise UsageError(
                f"{where}: the commas in {label!r} may be decimal ones or separate columns: write times with a decimal "
                "point (0.5), or separate all columns by semicolons or tabs"
            )
        if is_of_segments is (segment is None):
            raise UsageError(
                f"{where}: {line!r} is not as the lines before: `path,start,end,label` in all lines, or none"
            )
        is_of_segments = segment is not None
        told = segment["label"] if segment else label
        if separator and separator in told and line[-1] not in "\"'" and not re.fullmatch(r"[-\d\s,;.]+", told):
            raise UsageError(
                f"{where}: several columns follow {path!r} ({label!r}): name them in a first line "
                f"(path{separator}label{separator}split, or path{separator}start{separator}end{separator}label), or "
                f"quote a label that holds {separator!r}"
            )
        span = None
        if segment and not whole_videos:
            span = _segment(segment["start"], segment["end"], where, in_frames=False)
        yield Entry(path, unquoted(told) if segment else label, "", where, separator, span)


def _holds_decimal_commas(text: str, separator: str, segment: re.Match[str] | None) -> bool:
    """Whether the commas in what follows a path may be those of its numbers, although they were not read so.

    Args:
        text: What follows, with a label at its end.
        separator: Between the path and that.
        segment: How that was read, if as a segment.
    """
    numbers = _THREE_NUMBERS.match(text)
    if numbers is None or not re.search(r"\d,\d", numbers[0]):
        return False
    if segment is None:
        return True
    if separator == ",":
        return "," in segment["label"]
    return "," in segment["between"] or "," in text[segment.end("end") : segment.start("label")]


def read_text(list_file: Path) -> str:
    """The text of a list. Raises `MissingError` where it cannot be read, `UsageError` where it is no text."""
    try:
        text = text_of_list(list_file.read_bytes())
    except OSError as error:
        raise MissingError(f"{list_file} cannot be read ({error.strerror}): check its path and permissions") from error
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
    places = [found for found in SEPARATORS.finditer(line) if found.start()][:_MOST_SEPARATORS]
    if not places and line[0] not in "\"'":
        return line, "", ""

    def parted(found: re.Match[str]) -> tuple[str, str, str]:
        mark = found.group().strip(" ")
        return line[: found.start()], unquoted(line[found.end() :]), mark.strip("\t") or mark[:1]

    at_suffix = [found for found in places if is_video(Path(line[: found.start()]))]
    for found in reversed(at_suffix):
        if exists(line[: found.start()]):
            return parted(found)
    if exists(line):
        return line, "", ""
    quoted = re.match(r"""(?P<mark>["'])(?P<path>.+?)(?P=mark)(?:\s*(?P<separator>[\s,;])\s*(?P<label>.*))?$""", line)
    if quoted:
        return quoted["path"], unquoted(quoted["label"] or ""), (quoted["separator"] or "").strip(" ")
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


def unquoted(text: str) -> str:
    """A cell without the quotation marks around it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].replace(text[0] * 2, text[0])
    return text.strip()


def three_columns(entries: list[Entry]) -> list[Entry]:
    """Turns `path frames label` into `path label` if all lines are so. Raises `UsageError` for lines of more numbers,
    and for several labels."""
    two_numbers = {"": r"(\d+)\s+(\d+)", "\t": r"(\d+)\s+(\d+)", ",": r"(\d+)\s*,\s*(\d+)", ";": r"(\d+)\s*;\s*(\d+)"}
    labelled = [entry for entry in entries if entry.label]
    found = [re.fullmatch(two_numbers.get(entry.separator, two_numbers[""]), entry.label) for entry in labelled]
    if labelled and all(found):
        labels = {entry.where: match[2] for entry, match in zip(labelled, found, strict=True) if match}
        return [replace(entry, label=labels.get(entry.where, "")) for entry in entries]
    for place, entry in enumerate(entries):
        if re.fullmatch(r"[\d.:]+([\s,;]+[\d.:]+)+", entry.label) and re.search(r"[,;]", entry.label):
            raise UsageError(
                f"{entry.where}: {entry.path} has several labels ({entry.label}): one class a video; a segment's "
                "start, end and number of a class need a first line that names them (path,start,end,label)"
            )
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


def spellings(path: str) -> Iterator[str]:
    """The forms under which a listed path may exist here: as it is, with Windows' separators turned, and with accented
    letters as one character or, as macOS writes them in names, as two."""
    slashed = path.replace("\\", "/")
    yield from dict.fromkeys((path, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))))


# ------------------------------------------------------------------ columns with names


def _column(name: str) -> str:
    """The name of a column, however it is spelled."""
    return re.sub(r"[-\s]+", "_", name.strip().casefold())


def header_of(
    line: str, folders: Sequence[Path], label_columns: Sequence[str] = _LABEL_COLUMNS
) -> tuple[str, list[str]] | None:
    """(delimiter, names of the columns) where the first line is a header, which may be written as a comment."""
    if any(os.path.isfile(folder / line) for folder in folders):
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
        if any(os.path.isfile(folder / name) for name in (line, line.partition(delimiter)[0]) for folder in folders):
            return
        cells = [unquoted(cell).casefold() for cell in line.split(delimiter) if cell]
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
        yield entry_of(dict(zip_longest(names, (typed_text(cell.strip()) for cell in row), fillvalue="")), where)


def _of_columns(columns: Mapping[str, str], where: str, label_columns: Sequence[str], whole_videos: bool) -> Entry:
    label = next((columns[name] for name in label_columns if columns.get(name)), "")
    split = next((columns[name] for name in _SPLIT_COLUMNS if columns.get(name)), "")
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


def _of_json(
    text: str,
    lines: Sequence[tuple[str, str]],
    list_file: Path,
    notes: list[str],
    entry_of: Callable[[Mapping[str, str], str], Entry],
) -> Iterable[Entry] | None:
    """What JSON lists: a document of segments, an array of rows, or a row a line; None where the text is no array, as
    where a path begins with a bracket."""
    document = None
    with contextlib.suppress(ValueError):
        document = json.loads(text)
    if isinstance(document, list):
        rows = [(f"{list_file}, element {number}", row) for number, row in enumerate(document, start=1)]
        return (entry_of(_columns_of(row, where), where) for where, row in rows) if rows else None
    if lines[0][1].startswith("["):
        return None
    if document is not None and (annotated := _of_document(document, list_file, notes)) is not None:
        return annotated
    return (entry_of(_columns_of(_row_of_json(line, where), where), where) for where, line in lines)


def _row_of_json(line: str, where: str) -> object:
    try:
        return json.loads(line, object_pairs_hook=_without_repetition)
    except ValueError as error:
        raise UsageError(f"{where} cannot be read as JSON ({error})") from error


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
        split = str(about.get("subset", ""))
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
