"""The names of classes that a list gives as numbers."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.interface.wording import plural
from pipelines.sources.list_lines import Entry, read_text, unquoted

_CLASS_FILES = ("classInd.txt", "classes.txt", "labels.txt", "class_names.txt", "classnames.txt", "*label_map*.txt")


def with_class_names(entries: list[Entry], list_file: Path, class_names: Path | None, notes: list[str]) -> list[Entry]:
    """Replaces numbers as labels by the names of their classes, if there is a file of those.

    Args:
        entries: Of one list.
        list_file: The list, beside which such a file is looked for.
        class_names: The file; None: the only one beside the list.
        notes: Takes what is to be said of it, in sentences.

    Raises:
        UsageError: Some labels are numbers and others names, or the file does not fit them.
    """
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
    text = read_text(path)
    if path.suffix.lower() == ".json":
        return _names_of_json(path, text), True
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    before = [re.fullmatch(r"(?P<number>\d+)[\s,:]+(?P<name>.+)", line) for line in lines]
    after = [re.fullmatch(r"(?P<name>.+)[\s,:]+(?P<number>\d+)", line) for line in lines]
    if lines and lines[0].casefold() in ("id,name", "name,id", "label,name", "name,label"):
        before, after = before[1:], after[1:]
    for found in (before, after):
        if found and all(found):
            pairs = [(int(match["number"]), unquoted(match["name"])) for match in found if match]
            break
    else:
        pairs = [(number, unquoted(line)) for number, line in enumerate(lines, start=1)]
        return _without_contradiction(path, pairs), False
    return _without_contradiction(path, pairs), True


def _names_of_json(path: Path, text: str) -> dict[int, str]:
    try:
        document = json.loads(text)
        if isinstance(document, list):
            pairs = list(enumerate(map(str, document)))
        elif all(isinstance(value, int) for value in document.values()):
            pairs = [(value, unquoted(name)) for name, value in document.items()]  # SlowFast's quote names twice
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
