"""Which videos train and which test: official lists, lists of one's own, and seeded splits that keep groups together.

A split names videos by id, `<class>/<file name without its last suffix>`, whether or not the workspace has them.
`split_lists.py` reads and writes the files, `group_splits.py` makes splits; here is what a workspace does with them.
"""

import hashlib
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.datasets.catalogue import Catalogue, Video
from pipelines.datasets.group_splits import FOLDS, leaking_groups, make_splits
from pipelines.datasets.split_lists import Split, list_files, read_lists, ucf101_lists
from pipelines.errors import MissingError, UsageError
from pipelines.interface.options import BOTH_STREAMS, StreamName
from pipelines.interface.wording import plural
from pipelines.storage.atomic import (
    locked,
    read_json,
    remove_left_over_temporary_files,
    storage_errors,
    temporary_name,
    write_bytes,
    write_json,
)
from pipelines.storage.provenance import made_by
from pipelines.storage.workspace import UNLABELLED, Workspace

SPLITS_SCHEMA = "stres/splits/1"
SPLITS_FILE = "splits.json"


@dataclass(frozen=True)
class ResolvedSplit:
    """A split matched with what the workspace holds."""

    number: int
    classes: list[str]
    """All classes of the split in sorted order, spelt as the workspace spells them: a label is an index into these."""
    train: list[Video]
    test: list[Video]
    missing_train: list[str]
    """Ids that the split names but whose frames or flow are not there."""
    missing_test: list[str]
    leaking_groups: list[str]
    """Groups of which the split has videos on both sides; empty where no rule for groups is known."""
    unlisted: list[str]
    """Videos of the workspace that have a class and that the split names nowhere."""

    def labels(self, videos: Iterable[Video]) -> list[int]:
        """The class index of each of this split's videos."""
        index = {name: label for label, name in enumerate(self.classes)}
        return [index[video.class_name] for video in videos]


def prepare_splits(
    workspace: Workspace,
    catalogue: Catalogue,
    splits_dir: Path | None = None,
    seed: int = 0,
    group_regex: str | None = None,
    overwrite: bool = False,
    *,
    exclude: Collection[str] = (),
    write: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Split]:
    """The splits in use. Where there are none yet, they are copied, or made from the catalogue: as the videos carry
    them from VIDEOS, else at random.

    What is in use stays: another `seed` alone changes nothing, so that runs with several seeds share their splits.

    Args:
        workspace: Whose splits these are.
        catalogue: Its videos.
        splits_dir: Folder of split lists to copy.
        seed: Of random splits.
        group_regex: Finds the group of a video, which stays on one side of a split.
        overwrite: Replace lists that differ from those in `splits_dir`, and splits of our own that were made with
            another `group_regex` or lack videos.
        exclude: Classes that take no part in splits to be made.
        write: False changes nothing, and returns the splits that would be in use.
        tell: Is told what was done.

    Raises:
        UsageError: Lists are broken, or would have to be overwritten.
        MissingError: There is no `splits_dir`.
    """
    folder = workspace.splits
    with locked(workspace.root):  # trainings on several splits may start at once
        if write:
            _end_interrupted_replacement(folder)
        in_use = bool(list_files(folder))
        if splits_dir is not None:
            files = _other_lists(folder, splits_dir, overwrite)
            if files and not write:
                return [replace(split, group_regex=group_regex) for split in read_splits(splits_dir)]
            if files:
                _replace(folder, files, {"origin": "lists", "source": str(splits_dir), "group_regex": group_regex})
        elif not in_use or _made_by_another_rule(folder, group_regex, overwrite):
            return _make(folder, catalogue, seed, group_regex, exclude, write, tell)
        elif overwrite and (record := _record(folder)).get("origin") in ("made", "videos"):
            left_out = resolve(read_splits(folder)[0], catalogue, exclude).unlisted
            if left_out:
                what = plural(len(left_out), "video was", "videos were")
                tell(f"{what} in no split, for example {left_out[0]}: the splits are made again")
                rule = group_regex if group_regex is not None else record.get("group_regex")
                return _make(folder, catalogue, record.get("seed", seed), rule, exclude, write, tell)
        return splits_in_use(folder, group_regex)


def _make(
    folder: Path,
    catalogue: Catalogue,
    seed: int,
    group_regex: str | None,
    exclude: Collection[str],
    write: bool,
    tell: Callable[[str], None],
) -> list[Split]:
    """Makes the splits of a workspace. Raises as `make_splits`, and `UsageError` for ids that a list cannot hold."""
    videos = [video for video in catalogue.videos if video.class_name not in exclude]
    record: dict[str, Any] = {"origin": "videos", "group_regex": group_regex}
    splits = _of_videos(videos, tell)
    if not splits:
        splits = make_splits([(video.class_name, video.video) for video in videos], seed, FOLDS, group_regex)
        record |= {"origin": "made", "seed": seed, "folds": FOLDS}
    if not write:
        ucf101_lists(splits)  # refuses ids that a list cannot hold
    else:
        write_splits(folder, splits, record)
    return [replace(split, group_regex=group_regex) for split in (read_splits(folder) if write else splits)]


def _of_videos(videos: Iterable[Video], tell: Callable[[str], None]) -> list[Split]:
    """The one split that the videos carry from `train/`, `val/`, `test/` or a list: tested on `test`, or where that has
    no labelled video on `validation`, which else is held apart. None where one side has no video."""
    sides: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        if video.class_name != UNLABELLED:
            sides[video.source_split].append(video.id)
    train, validation, test = sides["train"], sides["validation"], sides["test"]
    if not train or not (validation or test):
        if train:
            tell("all videos with a split of their own are for training: they are divided at random")
        return []
    tested, held_apart = (test, validation) if test else (validation, [])
    classes = sorted({id_.partition("/")[0] for id_ in (*train, *tested)})
    text = f"the split is the videos' own: {len(train)} train, {len(tested)} test ({'test' if test else 'validation'})"
    tell(f"{text}; {len(held_apart)} for validation are held apart" if held_apart else text)
    return [Split(1, train, tested, classes, "the videos' own split", held_apart=held_apart)]


def splits_in_use(folder: Path, group_regex: str | None = None) -> list[Split]:
    """The splits of a workspace's folder with its rule for groups: `group_regex`, else the one they were made with.

    Raises `UsageError` for broken or no lists, `MissingError` for a damaged `splits.json`.
    """
    rule = group_regex if group_regex is not None else _record(folder).get("group_regex")
    return [replace(split, group_regex=rule) for split in read_splits(folder)]


def read_splits(folder: Path) -> list[Split]:
    """The splits of a folder of UCF101's or HMDB51's lists, by number. Raises `UsageError` for broken or no lists."""
    return read_lists(folder)


def write_splits(folder: Path, splits: Sequence[Split], record: Mapping[str, Any] | None = None) -> None:
    """Replaces `folder` by UCF101's lists of `splits`, with `splits.json` saying where they came from: all of it or
    nothing. Raises `UsageError` for ids that a list cannot hold, `StorageError`."""
    _replace(folder, ucf101_lists(splits), record or {"origin": "made"})


def resolve(
    split: Split,
    catalogue: Catalogue,
    exclude: Collection[str] = (),
    streams: Collection[StreamName] = BOTH_STREAMS,
) -> ResolvedSplit:
    """Finds a split's videos, upper and lower case alike where that is unambiguous (UCF101's `HandstandPushups`).
    Videos of the classes in `exclude` are not missed in the split; those without what `streams` are fed with are.

    Raises `UsageError` where the split's `group_regex` does not match a video.
    """
    finder = _Finder(catalogue, streams)
    train, missing_train = finder.find(split.train)
    test, missing_test = finder.find(split.test)
    finder.find(split.held_apart)
    out = {*exclude, UNLABELLED}
    return ResolvedSplit(
        number=split.number,
        classes=sorted({finder.class_name(name) for name in split.classes}),
        train=train,
        test=test,
        missing_train=missing_train,
        missing_test=missing_test,
        leaking_groups=leaking_groups(split),
        unlisted=[v.id for v in catalogue.videos if v.id not in finder.named and v.class_name not in out],
    )


def in_no_split(unlisted: Sequence[str], what: str) -> str:
    """The sentence about videos that `what` does not name, and how to have them in it; "" where there are none."""
    if not unlisted:
        return ""
    classes = sorted({id_.partition("/")[0] for id_ in unlisted})
    named = f"class {classes[0]}" if len(classes) == 1 else f"{len(classes)} classes, for example {unlisted[0]}"
    videos = plural(len(unlisted), f"video of {named} is", f"videos of {named} are")
    return (
        f"{videos} in no list of {what}: `stres train --overwrite` makes splits of our own again, with all videos; "
        "lists of yours come by --splits DIR --overwrite"
    )


def without_classes(split: Split, exclude: Collection[str]) -> Split:
    """The split without these classes, upper and lower case alike. Raises `UsageError` for an unknown one."""
    known = {name.casefold() for name in split.classes}
    for name in exclude:
        if name.casefold() not in known:
            raise UsageError(f"--exclude-class {name}: split {split.number} has the classes {', '.join(split.classes)}")
    out = {name.casefold() for name in exclude}

    def kept(ids: Iterable[str]) -> list[str]:
        return [id_ for id_ in ids if id_.partition("/")[0].casefold() not in out]

    return replace(
        split,
        train=kept(split.train),
        test=kept(split.test),
        held_apart=kept(split.held_apart),
        classes=[name for name in split.classes if name.casefold() not in out],
    )


def what_they_lack(missing: Sequence[str], catalogue: Catalogue) -> str:
    """Why videos of a split cannot be used, as far as the workspace shows it, and what to do; "" where nothing like
    them is there: one of two artifacts is missing, or they have other names."""
    finder = _Finder(catalogue)
    there = [video for id_ in missing if (video := finder.video(id_)) is not None]
    for has, lacks, command in (("frames", "flow", "extract-flow"), ("flow", "frames", "extract-frames")):
        halves = sum(getattr(video, f"has_{has}") and not getattr(video, f"has_{lacks}") for video in there)
        if halves:
            which = "they have" if halves == len(missing) else f"{halves} of them {'has' if halves == 1 else 'have'}"
            return f"{which} {has} and no {lacks}: run `stres {command}` on the videos"
    by_name: dict[str, list[str]] = defaultdict(list)
    for video in catalogue.videos:
        by_name[_bare(video.video)].append(video.id)
    alike = [(id_, by_name[_bare(id_.partition("/")[2])]) for id_ in missing if finder.video(id_) is None]
    alike = [(id_, found) for id_, found in alike if len(found) == 1]
    if not alike:
        return ""
    id_, (found,) = alike[0]
    which = "class" if id_.partition("/")[2] == found.partition("/")[2] else "name"
    return (
        f"{len(alike)} of them are there under another {which}: the lists say {id_}, the workspace has {found}; "
        "extract the videos again with the lists' classes (the folder of class folders as VIDEOS), or correct the lists"
    )


def _bare(name: str) -> str:
    """A name without what spellings differ in."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


class _Finder:
    """Looks up ids and classes as the catalogue spells them."""

    def __init__(self, catalogue: Catalogue, streams: Collection[StreamName] = BOTH_STREAMS) -> None:
        self.streams = streams
        self.videos = {video.id: video for video in catalogue.videos}
        self.classes = set(catalogue.classes)
        self.named: set[str] = set()
        self._folded = _unambiguous(self.videos)
        self._folded_classes = _unambiguous(self.classes)

    def find(self, ids: Iterable[str]) -> tuple[list[Video], list[str]]:
        """The videos that have what the streams are fed with, and the ids of which that is not so."""
        found, missing = [], []
        for id_ in ids:
            video = self.video(id_)
            if video is not None:
                self.named.add(video.id)
            if video is None or not video.has(self.streams):
                missing.append(id_)
            else:
                found.append(video)
        return found, missing

    def video(self, id_: str) -> Video | None:
        return self.videos.get(id_) or self.videos.get(self._folded.get(id_.casefold(), ""))

    def class_name(self, name: str) -> str:
        return name if name in self.classes else self._folded_classes.get(name.casefold(), name)


def _unambiguous(names: Iterable[str]) -> dict[str, str]:
    """Case-folded name -> name, where no two fold to the same."""
    folded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folded[name.casefold()].append(name)
    return {fold: spellings[0] for fold, spellings in folded.items() if len(spellings) == 1}


# ------------------------------------------------------------------ the folder


def _replace(folder: Path, files: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
    """Puts a new folder in the place of `folder` in one renaming, so that no half of a set of lists is ever in use."""
    new, old = temporary_name(folder), folder.with_name(f".{folder.name}.old-{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    try:
        for name, content in sorted(files.items()):
            write_bytes(new / name, content)
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + content + b"\0")
        write_json(new / SPLITS_FILE, {**made_by(SPLITS_SCHEMA, "numpy"), **record, "lists_sha256": digest.hexdigest()})
        with storage_errors(folder):
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _end_interrupted_replacement(folder: Path) -> None:
    """Puts back the lists that a process killed between two renamings had moved away, and removes what it left.

    The caller has the workspace locked, so no replacement is going on.
    """
    for old in folder.parent.glob(f".{folder.name}.old-*"):
        if not folder.exists():
            with storage_errors(folder):
                old.rename(folder)
    for left in folder.parent.glob(f".{folder.name}.old-*"):
        shutil.rmtree(left, ignore_errors=True)
    remove_left_over_temporary_files(folder.parent, below=False)


def _record(folder: Path) -> dict[str, Any]:
    """`splits.json`; empty for lists that somebody put there by hand."""
    path = folder / SPLITS_FILE
    if not path.exists():
        return {}
    document = read_json(path)
    return document if isinstance(document, dict) else {}


def _made_by_another_rule(folder: Path, group_regex: str | None, overwrite: bool) -> bool:
    """Whether the splits in use were made with another rule for groups, which only `overwrite` allows."""
    record = _record(folder)
    if group_regex is None or record.get("origin") != "made" or record.get("group_regex") == group_regex:
        return False
    if not overwrite:
        raise UsageError(
            f"--group-regex is {group_regex!r}, but the splits in {folder} were made with "
            f"{record.get('group_regex')!r}: omit it, use another --workspace, or give --overwrite"
        )
    return True


def _other_lists(folder: Path, splits_dir: Path, overwrite: bool) -> dict[str, bytes]:
    """The list files of `splits_dir` by name, which are to replace those of `folder`; empty where they are there
    already."""
    if not splits_dir.is_dir():
        raise MissingError(f"--splits {splits_dir}: there is no such folder")
    read_lists(splits_dir)  # broken lists never become those in use
    files = {path.name: path.read_bytes() for path in list_files(splits_dir)}
    in_use = {path.name: path.read_bytes() for path in list_files(folder)}
    if in_use == files:
        return {}
    if in_use and not overwrite:
        raise UsageError(
            f"--splits {splits_dir} holds other lists than those in use in {folder}: omit --splits to go on "
            "with those, use another --workspace, or give --overwrite to replace them"
        )
    return files
