"""Split lists as files: UCF101's and HMDB51's formats read, UCF101's written.

UCF101: `classInd.txt` (`1 ApplyEyeMakeup`), `trainlist01.txt` (`Class/clip.avi 1`), `testlist01.txt`
(`Class/clip.avi`), and of our own `vallist01.txt`, held apart. HMDB51: `<class>_test_split1.txt` with lines
`<clip>.avi 1|2|0`: train, test, unused.
"""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pipelines.errors import UsageError
from pipelines.storage.typed_json import Within

_UCF101_LIST = re.compile(r"^(?P<side>train|test|val)list(?P<number>\d+)\.txt$")
_HMDB51_LIST = re.compile(r"^(?P<class>.+)_test_split(?P<number>\d+)\.txt$")
_CLASS_INDEX = "classInd.txt"
# A label in a test list, which official ones have not: only after what surely ends a file name.
_LABELLED_TEST_LINE = re.compile(r"^(?P<path>.+\.[A-Za-z0-9]{2,4})\s+(?P<label>\d+)$")
GroupRule = str | Mapping[str, str] | None
"""How the groups of videos are found: a regular expression, the groups by id, or None, UCF101's file names."""
NO_GROUPS = (
    "no groups are known, so clips of one scene may stand on both sides of a split, which makes accuracy too high"
)
_HMDB51_SIDES = {"1": "train", "2": "test", "0": "unused"}


@dataclass(frozen=True)
class Split:
    """One division of a data set. Ids are `<class>/<file name without its last suffix>`, in the order of the lists."""

    number: Annotated[int, Within(0, 1 << 20)]
    train: list[str]
    test: list[str]
    classes: list[str]
    """Sorted names of all classes, also of those without videos on a side."""
    source: str
    """Where it came from: a folder, or how it was made."""
    groups: GroupRule = None
    """How groups are found that must stay on one side."""
    held_apart: list[str] = field(default_factory=list)
    """Videos that the lists name for neither side: HMDB51's mark 0, validation videos beside a labelled test."""
    set_name: str = ""
    """Of its set of splits; "" for the workspace's first."""
    groups_from: str = ""
    """Where the groups of splits made here came from: `file`, `expression`, `names`, or `none`; "" for lists."""

    @property
    def name(self) -> str:
        return f"split{self.number}"


def read_lists(folder: Path) -> list[Split]:
    """Reads all splits of a folder, by number; the file names tell the format.

    Raises:
        UsageError: There are no lists or both kinds, or one is missing or names no training video; or a line, which is
            named, cannot be read, has a label that contradicts `classInd.txt` or another line, or a video that the
            split already has.
    """
    return [
        Split(number, sides.train, sides.test, classes, str(folder), held_apart=sides.unused)
        for number, sides, classes in _read(folder)
    ]


def listed_ids(folder: Path) -> set[str]:
    """All videos that the lists of a folder name, those that no split uses (HMDB51's mark 0) as well.

    Raises as `read_lists`.
    """
    return {id_ for _, sides, _ in _read(folder) for id_ in sides.named}


def list_files(folder: Path) -> list[Path]:
    """The files of a folder that are split lists of either format, by name; none where there is no such folder."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed ({error.strerror}): check its permissions") from error
    return [
        path
        for path in paths
        if path.name == _CLASS_INDEX or _UCF101_LIST.match(path.name) or _HMDB51_LIST.match(path.name)
    ]


def read_ids(path: Path) -> list[str]:
    """The ids that a list file names: a video a line, as in UCF101's test lists (`Class/clip.avi`).

    Raises:
        UsageError: It cannot be read, names no video, or one twice; or a line is of another form.
    """
    sides = _Sides()
    for where, line in _lines(path):
        sides.add("", _ucf101_id("test", line, where, {})[0], where)
    if not sides.named:
        raise UsageError(f"{path} names no video: give a list with a line such as 'Class/clip.avi' for each")
    return list(sides.named)


def is_ucf101_list(name: str) -> bool:
    """Whether a file of this name is one of UCF101's split lists."""
    return _UCF101_LIST.match(name) is not None


def is_hmdb51_list(name: str) -> bool:
    """Whether a file of this name is one of HMDB51's split lists."""
    return _HMDB51_LIST.match(name) is not None


def text_of_list(content: bytes) -> str:
    """The text of a list: UTF-8, in which other bytes stand for themselves, as in names of files; or UTF-16, as
    PowerShell writes it. Joined lists have a mark of its encoding before the first line of each."""
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode(*(("utf-16", "replace") if utf_16 else ("utf-8", "surrogateescape")))
    return re.sub("^\ufeff", "", text, flags=re.MULTILINE)


def fits_on_a_line(name: str) -> bool:
    """Whether a split list can hold this name: no line break, and no blank at an end."""
    return not set(name) & {"\n", "\r"} and name == name.strip()


def ucf101_lists(splits: Sequence[Split]) -> dict[str, bytes]:
    """Splits in UCF101's format.

    Every video gets the suffix `.avi`: the format wants one, and readers drop it.

    Returns:
        The content of each file by its name.

    Raises:
        UsageError: A name has a line break or blanks at an end, which no line can hold.
    """
    classes = splits[0].classes
    labels = {name: label for label, name in enumerate(classes, start=1)}
    lines = {_CLASS_INDEX: [f"{label} {name}" for name, label in labels.items()]}
    for split in splits:
        lines[f"trainlist{split.number:02}.txt"] = [f"{id_}.avi {labels[id_.split('/')[0]]}" for id_ in split.train]
        lines[f"testlist{split.number:02}.txt"] = [f"{id_}.avi" for id_ in split.test]
        if split.held_apart:
            lines[f"vallist{split.number:02}.txt"] = [f"{id_}.avi" for id_ in split.held_apart]
    for name in (n for split in splits for n in (*split.classes, *split.train, *split.test, *split.held_apart)):
        if not fits_on_a_line(name):
            raise UsageError(f"{name!r} cannot stand in a split list (line break or blank at an end): rename it")
    return {
        name: "".join(f"{line}\n" for line in content).encode("utf-8", "surrogateescape")
        for name, content in lines.items()
    }


# ------------------------------------------------------------------ reading


@dataclass
class _Sides:
    """A split being read; knows of every id where it was first named."""

    train: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)

    def add(self, side: str, id_: str, where: str) -> None:
        if id_ in self.named:
            raise UsageError(f"{where} names {id_!r} again, which stands at {self.named[id_]}: remove one of them")
        self.named[id_] = where
        {"train": self.train, "test": self.test}.get(side, self.unused).append(id_)


_Numbered = tuple[int, _Sides, list[str]]
"""A split's number, its sides and all classes."""


def _read(folder: Path) -> list[_Numbered]:
    names = [path.name for path in list_files(folder)]
    ucf101 = any(_UCF101_LIST.match(name) for name in names)
    hmdb51 = any(_HMDB51_LIST.match(name) for name in names)
    if ucf101 == hmdb51:
        problem = "lists of UCF101's and of HMDB51's kind" if ucf101 else "no split lists"
        raise UsageError(
            f"{folder} holds {problem}: give a folder with either trainlist01.txt, testlist01.txt, ... or "
            "<class>_test_split1.txt, ..."
        )
    return _read_ucf101(folder) if ucf101 else _read_hmdb51(folder)


def _read_ucf101(folder: Path) -> list[_Numbered]:
    lists = _numbered_lists(folder)
    labels = _read_class_index(folder / _CLASS_INDEX) if (folder / _CLASS_INDEX).exists() else {}
    splits = []
    for number, paths in sorted(lists.items()):
        for side in ("train", "test"):
            if side not in paths:
                raise UsageError(
                    f"{folder} lacks {side}list{number:02}.txt: add it, or remove the other of split {number}"
                )
        sides, first = _Sides(), dict[int | str, tuple[int | str, str]]()
        for side, path in paths.items():
            for where, line in _lines(path):
                id_, label = _ucf101_id(side, line, where, labels)
                sides.add(side, id_, where)
                if label:
                    _require_one_label(first, int(label), id_.partition("/")[0], where)
        if not sides.train:
            raise UsageError(f"{paths['train']} names no training video: restore it")
        classes = set(labels) or {id_.split("/")[0] for id_ in sides.named}
        splits.append((number, sides, sorted(classes)))
    return splits


def _require_one_label(first: dict[int | str, tuple[int | str, str]], number: int, class_name: str, where: str) -> None:
    """Raises `UsageError` where a line before gives the class another label, or another class the label. `first`: the
    label of each class and the class of each label, and where it first stands."""
    for key, value in ((number, class_name), (class_name, number)):
        before, at = first.setdefault(key, (value, where))
        if before != value:
            raise UsageError(
                f"{where} gives {class_name!r} the label {number}, but {at} gives "
                + (f"it {before}" if key == class_name else f"this label to {before!r}")
                + ": one label a class, correct one of them"
            )


def _numbered_lists(folder: Path) -> dict[int, dict[str, Path]]:
    lists: dict[int, dict[str, Path]] = {}
    for path in list_files(folder):
        match = _UCF101_LIST.match(path.name)
        if match:
            sides = lists.setdefault(int(match["number"]), {})
            if match["side"] in sides:
                raise UsageError(f"{sides[match['side']]} and {path} are both split {int(match['number'])}: remove one")
            sides[match["side"]] = path
    return {
        number: {side: sides[side] for side in ("train", "test", "val") if side in sides}  # in this order
        for number, sides in lists.items()
    }


def _read_class_index(path: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for where, line in _lines(path):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip():
            raise UsageError(f"{where} must be like '1 ApplyEyeMakeup', not {line!r}")
        if name.strip() in labels:
            raise UsageError(f"{where} names the class {name.strip()!r} again: remove one")
        if int(number) in labels.values():
            raise UsageError(f"{where} gives {name.strip()!r} the number {number}, which another class has: correct it")
        labels[name.strip()] = int(number)
    return labels


def _ucf101_id(side: str, line: str, where: str, labels: dict[str, int]) -> tuple[str, str]:
    """The id and the label ("" for none) of `Class/clip.avi 1` (train) or `Class/clip.avi` (test); a label must be that
    of the class."""
    path, label = line, ""
    if side == "train":
        path, label = _last_word(line)
    elif labelled := _LABELLED_TEST_LINE.match(line):
        path, label = labelled["path"], labelled["label"]
    parts = path.split("/")
    if len(parts) < 2 or not all(parts) or (side == "train" and not label.isdecimal()):
        example = "'Class/clip.avi 1'" if side == "train" else "'Class/clip.avi'"
        raise UsageError(f"{where} must be like {example}, not {line!r}")
    class_name = parts[-2]
    if labels and class_name not in labels:  # spelled otherwise than in classInd.txt
        alike = [name for name in labels if name.casefold() == class_name.casefold()]
        if len(alike) != 1:
            raise UsageError(
                f"{where} names the class {class_name!r}, which {_CLASS_INDEX} does not list: add it there"
            )
        class_name = alike[0]
    if label and labels and labels[class_name] != int(label):
        raise UsageError(
            f"{where} gives {class_name!r} the label {label}, but {_CLASS_INDEX} says {labels[class_name]}"
        )
    return f"{class_name}/{Path(parts[-1]).stem}", label  # `a.b.avi` is `a.b`, as its artifacts are named


def _read_hmdb51(folder: Path) -> list[_Numbered]:
    found = [(match, path) for path in list_files(folder) if (match := _HMDB51_LIST.match(path.name))]
    classes = sorted({match["class"] for match, _ in found})
    paths = {(int(match["number"]), match["class"]): path for match, path in found}
    splits = []
    for number in sorted({number for number, _ in paths}):
        sides = _Sides()
        for class_name in classes:
            if (number, class_name) not in paths:
                raise UsageError(
                    f"{folder} lacks {class_name}_test_split{number}.txt, which other classes have: add it"
                )
            for where, line in _lines(paths[number, class_name]):
                clip, mark = _last_word(line)
                if mark not in _HMDB51_SIDES or not clip:
                    raise UsageError(f"{where} must be like 'clip.avi 1' (1 train, 2 test, 0 unused), not {line!r}")
                sides.add(_HMDB51_SIDES[mark], f"{class_name}/{Path(clip).stem}", where)
        if not sides.train:
            raise UsageError(f"the lists of split {number} in {folder} mark no video 1, for training: restore them")
        splits.append((number, sides, classes))
    return splits


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(where it stands, line) of all lines that are not blank, without blanks at their ends."""
    try:
        text = text_of_list(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number} of {path}", line.strip()


def _last_word(line: str) -> tuple[str, str]:
    """What stands before the last word, and that word."""
    before, *last = line.rsplit(None, 1)
    return (before, last[0]) if last else ("", before)
