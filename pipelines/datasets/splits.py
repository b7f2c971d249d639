"""Which videos train and which test: official lists, lists of one's own, and seeded splits that keep groups together.

A split names videos by id, `<class>/<file name without its last suffix>`, whether or not the workspace has them.
`split_lists.py` reads and writes the files, `group_splits.py` makes splits; here is what a workspace does with them.
"""

import hashlib
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.datasets.catalogue import Catalogue, Video
from pipelines.datasets.dataset_file import video_id
from pipelines.datasets.group_splits import FOLDS, leaking_groups, make_splits
from pipelines.datasets.groups import group_of, recognised_groups
from pipelines.datasets.split_lists import NO_GROUPS, GroupRule, Split, list_files, read_lists, ucf101_lists
from pipelines.datasets.video_names import plain_name, spelled_as
from pipelines.errors import MissingError, UsageError
from pipelines.interface.options import BOTH_STREAMS, StreamName
from pipelines.interface.wording import numbered, plural
from pipelines.sources.segments import video_of
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
_RECORD = dict.fromkeys(("origin", "source", "group_regex", "groups_from"), str) | dict.fromkeys(
    ("seed", "folds", "asked_folds"), int
)
GROUPS_FILE = "groups.json"  # beside it: groups by id, of splits whose groups were given as a file


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
    held_apart: list[Video]
    """Those of its classes that are on neither side, as videos for validation."""
    unlisted: list[str]
    """Videos of the workspace that have a class and that the split names nowhere."""

    def labels(self, videos: Iterable[Video]) -> list[int]:
        """The class index of each of this split's videos."""
        index = {name: label for label, name in enumerate(self.classes)}
        return [index[video.class_name] for video in videos]


def prepare_splits(
    workspace: Workspace,
    catalogue: Catalogue,
    splits: Path | None = None,
    seed: int = 0,
    groups: GroupRule = None,
    overwrite: bool = False,
    *,
    folds: int | None = None,
    exclude: Collection[str] = (),
    write: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Split]:
    """The splits in use. Where there are none yet, they are copied, or made from the catalogue: as the videos carry
    them from VIDEOS, else at random.

    What is in use stays: another `seed` alone changes nothing, so that runs with several seeds share their splits.
    A workspace may have several sets of splits: the first in `splits/`, others in `split-sets/<name>/`.

    Args:
        splits: Folder of split lists to copy, or the name of a set; None: the first set.
        seed: Of random splits.
        groups: How the group of a video is found, which stays on one side of a split.
        overwrite: Replace lists that differ from those in the folder `splits`, and splits of our own that were made
            with other `groups` or `folds`, or lack videos.
        folds: How many random splits to make.
        exclude: Classes that take no part in splits to be made.
        write: False changes nothing, and returns the splits that would be in use.

    Raises:
        UsageError: Lists are broken, or would have to be overwritten.
        MissingError: There is no folder or set `splits`.
    """
    with locked(workspace.root):  # trainings on several splits may start at once
        if write:
            _end_interrupted_replacements(workspace.root, "splits")
            _end_interrupted_replacements(workspace.split_sets, "*")
        name, lists = _chosen_set(
            workspace, splits, overwrite, may_make=folds is not None or groups is not None, tell=tell
        )
        folder = workspace.split_sets / name if name else workspace.splits
        if splits is not None and lists:
            if folds is not None:
                raise UsageError(f"--folds {folds} is of splits that stres makes: leave it out, or --splits {splits}")
            made = read_lists(splits)
            record: dict[str, Any] = {"origin": "lists", "source": str(splits)}
        else:
            if list_files(folder) and not _made_otherwise(folder, groups, folds, overwrite):
                record = _record(folder)
                left_out = []
                if overwrite and record.get("origin") in ("made", "videos"):
                    left_out = resolve(read_lists(folder)[0], catalogue, exclude).unlisted
                if not left_out:
                    return splits_in_use(folder, groups)
                what = plural(len(left_out), "video was", "videos were")
                tell(f"{what} in no split, for example {left_out[0]}: the splits are made again")
                if groups is None and record.get("groups_from") != "names":
                    groups = groups_in_use(folder)
                    if isinstance(groups, Mapping):
                        raise UsageError(
                            f"the groups of the splits in {folder} came from a file, which has to name the group of "
                            f"{left_out[0]} too: give it by --groups"
                        )
                folds = folds or record.get("asked_folds") or record.get("folds")
                seed = record.get("seed", seed)
            made, groups, record = _new_splits(labelled(catalogue, exclude), seed, groups, folds, tell)
            lists = ucf101_lists(made)  # refuses ids that a list cannot hold
        if not write:
            return [replace(split, groups=groups, set_name=name) for split in made]
        _replace(folder, lists, record, groups)
        return splits_in_use(folder, groups)


def sets_of_splits(workspace: Workspace) -> dict[str, Path]:
    """The folder of each set of splits that a workspace has, by name: "" is the first, in `splits/`."""
    named = {folder.name: folder for folder in sorted(workspace.split_sets.glob("[!.]*"))}
    return {name: folder for name, folder in ({"": workspace.splits} | named).items() if list_files(folder)}


def set_name_of(workspace: Workspace, splits: Path, overwrite: bool = False) -> str:
    """The name of the set of splits that `prepare_splits` takes for `splits`: "" for the first. Raises as it does."""
    return _chosen_set(workspace, splits, overwrite, may_make=True)[0]


def _chosen_set(
    workspace: Workspace,
    splits: Path | None,
    overwrite: bool,
    *,
    may_make: bool,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[str, dict[str, bytes]]:
    """The name of the set that `splits` stands for; and its lists, where these are to be copied there."""
    sets = sets_of_splits(workspace)
    if splits is None:
        return "", {}
    if not splits.is_dir():
        if str(splits) not in sets and not (may_make and str(splits) == _plain(str(splits))):
            have = f"; there are the sets {', '.join(filter(None, sets))}" if any(sets) else ""
            raise MissingError(
                f"--splits {splits}: there is no such folder, nor a set of splits of that name in "
                f"{workspace.root}{have}; with --folds or --groups one of that name is made"
            )
        return str(splits), {}
    read_lists(splits)  # broken lists never become those in use
    lists = _lists(splits)
    for name, folder in sets.items():
        if _lists(folder) == lists:
            return name, {}
    source = splits.resolve()
    for name, folder in sets.items():
        if (known := _record(folder).get("source")) and Path(known).resolve() == source:
            if not overwrite:
                raise UsageError(
                    f"--splits {splits} holds other lists than when it was copied to {folder}: omit --splits to go on "
                    "with those, give --overwrite to replace them, or put the new ones into another folder to have both"
                )
            return name, lists
    if "" not in sets or overwrite:
        return "", lists
    name = next(name for name in numbered(_plain(source.name)) if name not in sets)
    tell(f"the lists of {splits} are kept as the set {name} beside those in {workspace.splits}: runs {name}-split<N>")
    return name, lists


def _plain(name: str) -> str:
    """As the name of a set, with which the names of its runs begin."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "lists"


def _new_splits(
    videos: Sequence[Video], seed: int, groups: GroupRule, folds: int | None, tell: Callable[[str], None]
) -> tuple[list[Split], GroupRule, dict[str, Any]]:
    """New splits of the videos, the groups that were kept together, and the record of both. Raises as `make_splits`."""
    if folds is None and (splits := _of_videos(videos, tell)):
        return splits, groups, {"origin": "videos"}
    pairs = [(video.class_name, video.video) for video in videos]
    groups, origin, sentence = _chosen_groups(pairs, groups)
    asked = folds or FOLDS
    splits = make_splits(pairs, seed, asked, groups, tell)
    tell(sentence)
    record = {"origin": "made", "seed": seed, "folds": len(splits), "groups_from": origin}
    return splits, groups, record | ({"asked_folds": asked} if asked != len(splits) else {})


def _chosen_groups(pairs: Sequence[tuple[str, str]], groups: GroupRule) -> tuple[GroupRule, str, str]:
    """The groups of splits to be made, where they came from (`Split.groups_from`), and a sentence about them."""
    origin, what = ("expression" if isinstance(groups, str) else "file"), "as given"
    if groups is None:
        origin, what = "names", "UCF101's gXX"
        wholes = [(class_name, video_of(video) or video) for class_name, video in pairs]
        if not any(group_of(*whole) for whole in wholes):
            regex, what = recognised_groups(wholes)
            groups = regex or None
            clips = [pair for pair in pairs if not video_of(pair[1])]
            if not regex and (known := recognised_groups(clips))[0]:  # the films' names do not tell, the clips' do
                groups = {video_id(*clip): str(group_of(*clip, groups=known[0])) for clip in clips}
                what = f"{known[1]}, else the videos of the segments"
            what = what or "the videos of the segments"
    names = [group_of(*pair, groups=groups) for pair in pairs]
    if groups is None and not any(names):
        return None, "none", f"{NO_GROUPS}; --groups FILE --overwrite names them"
    count, example = len(set(names) - {None}), next((name for name in names if name), None)
    told = f"groups: {count}, {what}, such as {example}; each stays on one side of a split"
    if None in names:
        others = plural(names.count(None), "video")
        told += f"; {others} without one may show scenes of both sides: accuracy may be too high"
    return groups, origin, told


def _of_videos(videos: Iterable[Video], tell: Callable[[str], None]) -> list[Split]:
    """The one split that the videos carry from `train/`, `val/`, `test/` or a list: tested on `test`, or where that has
    no labelled video on `validation`, which else is held apart. None where one side has no video."""
    sides: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        sides[video.source_split].append(video.id)
    train, validation, test = sides["train"], sides["validation"], sides["test"]
    if not train or not (validation or test):
        if train:
            tell("all videos with a split of their own are for training: they are divided at random")
        return []
    tested, held_apart = (test, validation) if test else (validation, [])
    classes = sorted({id_.partition("/")[0] for id_ in (*train, *tested)})
    text = f"the split is the videos' own: {len(train)} train, {len(tested)} test ({'test' if test else 'validation'})"
    tell(
        f"{text}; {len(held_apart)} for validation are held apart (--validation val measures on them)"
        if held_apart
        else text
    )
    return [Split(1, train, tested, classes, "the videos' own split", held_apart=held_apart)]


def splits_in_use(folder: Path, groups: GroupRule = None) -> list[Split]:
    """The splits of a set's folder with these `groups`, else those they were made with.

    Raises `UsageError` for broken or no lists, `MissingError` for a damaged `splits.json`.
    """
    about: dict[str, Any] = {
        "groups": groups if groups is not None else groups_in_use(folder),
        "groups_from": str(_record(folder).get("groups_from", "")),
        "set_name": "" if folder.name == "splits" else folder.name,
    }
    return [replace(split, **about) for split in read_lists(folder)]


def write_splits(folder: Path, splits: Sequence[Split], record: Mapping[str, Any] | None = None) -> None:
    """Replaces `folder` by UCF101's lists of `splits`, with `splits.json` saying where they came from: all of it or
    nothing. Raises `UsageError` for ids that a list cannot hold, `StorageError`."""
    _replace(folder, ucf101_lists(splits), record or {"origin": "made"}, None)


def resolve(
    split: Split,
    catalogue: Catalogue,
    exclude: Collection[str] = (),
    streams: Collection[StreamName] = BOTH_STREAMS,
) -> ResolvedSplit:
    """Finds a split's videos, upper and lower case alike where that is unambiguous (UCF101's `HandstandPushups`).
    Videos of the classes in `exclude` are not missed in the split; those without what `streams` are fed with are.

    Raises `UsageError` where the split's regular expression for groups does not match a video.
    """
    finder = _Finder(catalogue, streams)
    train, missing_train = finder.find(split.train)
    test, missing_test = finder.find(split.test)
    held_apart, _ = finder.find(split.held_apart)
    classes = sorted({finder.class_name(name) for name in split.classes})
    return ResolvedSplit(
        number=split.number,
        classes=classes,
        train=train,
        test=test,
        missing_train=missing_train,
        missing_test=missing_test,
        leaking_groups=leaking_groups(
            replace(
                split,
                train=[*missing_train, *(video.id for video in train)],
                test=[*missing_test, *(video.id for video in test)],
            )
        ),
        held_apart=[video for video in held_apart if video.class_name in classes],
        unlisted=[video.id for video in labelled(catalogue, exclude) if video.id not in finder.named],
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
        "lists of yours come by --splits DIR"
    )


def labelled(catalogue: Catalogue, exclude: Collection[str] = ()) -> list[Video]:
    """The videos that have a class, and none of those in `exclude`, upper and lower case alike."""
    out = {name.casefold() for name in exclude}
    return [v for v in catalogue.videos if v.class_name != UNLABELLED and v.class_name.casefold() not in out]


def without_classes(split: Split, exclude: Collection[str], others: Collection[str] = ()) -> Split:
    """The split without these classes, upper and lower case alike. Raises `UsageError` for one that neither the split
    nor `others`, the classes of the workspace, have."""
    known = {name.casefold() for name in (*split.classes, *others)}
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
        by_name[plain_name(video.video)].append(video.id)
    alike = [(id_, by_name[plain_name(id_.partition("/")[2])]) for id_ in missing if finder.video(id_) is None]
    alike = [(id_, found) for id_, found in alike if len(found) == 1]
    if not alike:
        return ""
    id_, (found,) = alike[0]
    which = "class" if id_.partition("/")[2] == found.partition("/")[2] else "name"
    return (
        f"{len(alike)} of them are there under another {which}: the lists say {id_}, the workspace has {found}; "
        "extract the videos again with the lists' classes (the folder of class folders as VIDEOS), or correct the lists"
    )


class _Finder:
    """Looks up ids and classes as the catalogue spells them."""

    def __init__(self, catalogue: Catalogue, streams: Collection[StreamName] = BOTH_STREAMS) -> None:
        self.streams = streams
        self.videos = {video.id: video for video in catalogue.videos}
        self.named: set[str] = set()
        self._id = spelled_as(self.videos)
        self._class = spelled_as(catalogue.classes)
        self._segments: dict[str, list[Video]] = defaultdict(list)  # by the id of their video
        for video in catalogue.videos:
            if whole := video_of(video.video):
                self._segments[video_id(video.class_name, whole)].append(video)

    def find(self, ids: Iterable[str]) -> tuple[list[Video], list[str]]:
        """The videos that have what the streams are fed with, and the ids of which that is not so. The id of an
        untrimmed video stands for all its segments of that class."""
        found, missing = [], []
        for id_ in ids:
            video = self.video(id_)
            segments = self._segments.get(id_, []) if video is None else [video]
            self.named.update(one.id for one in segments)
            found += [one for one in segments if one.has(self.streams)]
            missing += [one.id if video is None else id_ for one in segments if not one.has(self.streams)]
            if not segments:
                missing.append(id_)
        return found, missing

    def video(self, id_: str) -> Video | None:
        return self.videos.get(self._id(id_) or "")

    def class_name(self, name: str) -> str:
        return self._class(name) or name


# ------------------------------------------------------------------ the folder


def _replace(folder: Path, lists: Mapping[str, bytes], record: Mapping[str, Any], groups: GroupRule) -> None:
    """Puts a new folder in the place of `folder` in one renaming, so that no half of a set of lists is ever in use."""
    new, old = temporary_name(folder), folder.with_name(f".{folder.name}.old-{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    by_regex = {} if isinstance(groups, Mapping) else {"group_regex": groups}
    try:
        for name, content in sorted(lists.items()):
            write_bytes(new / name, content)
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + content + b"\0")
        if isinstance(groups, Mapping):
            write_json(new / GROUPS_FILE, dict(sorted(groups.items())))
        write_json(
            new / SPLITS_FILE,
            {**made_by(SPLITS_SCHEMA, "numpy"), **by_regex, **record, "lists_sha256": digest.hexdigest()},
        )
        with storage_errors(folder):
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _end_interrupted_replacements(parent: Path, name: str) -> None:
    """Puts back the lists that a process killed between two renamings had moved away from folders of this `name`, and
    removes what it left.

    The caller has the workspace locked, so no replacement is going on.
    """
    for old in parent.glob(f".{name}.old-*"):
        folder = old.with_name(old.name[1:].rpartition(".old-")[0])
        if not folder.exists():
            with storage_errors(folder):
                old.rename(folder)
    for left in parent.glob(f".{name}.old-*"):
        shutil.rmtree(left, ignore_errors=True)
    remove_left_over_temporary_files(parent, below=False)


def _record(folder: Path) -> dict[str, Any]:
    """`splits.json`, without what is of another type than is written; empty for lists that were put there by hand."""
    document = _document(folder / SPLITS_FILE)
    return {name: value for name, value in document.items() if isinstance(value, _RECORD.get(name, object))}


def groups_in_use(folder: Path) -> GroupRule:
    """The groups that a set of splits was made with. Raises `MissingError` where they are damaged."""
    by_id = {id_: str(group) for id_, group in _document(folder / GROUPS_FILE).items()}
    return by_id or _record(folder).get("group_regex")


def _document(path: Path) -> dict[str, Any]:
    document = read_json(path) if path.exists() else {}
    return document if isinstance(document, dict) else {}


def _made_otherwise(folder: Path, groups: GroupRule, folds: int | None, overwrite: bool) -> bool:
    """Whether the splits in use were made with other groups or folds, which only `overwrite` allows."""
    record, before = _record(folder), groups_in_use(folder)
    origin = record.get("origin")
    if folds is not None and origin not in ("made", "videos"):
        raise UsageError(
            f"--folds {folds} is of splits that stres makes, but those in {folder} are lists: omit it, or make others "
            f"beside them by --splits NAME --folds {folds}"
        )
    difference = ""
    if folds is not None and folds not in (record.get("asked_folds"), record.get("folds")):
        has = record.get("folds", 1)
        difference = f"--folds is {folds}, but {folder} has {plural(has, 'split')}"
    elif groups is not None and origin == "made" and groups != before:
        if isinstance(groups, str):
            difference = f"--group-regex is '{groups}', but the splits in {folder} were made with "
            difference += "the groups of a file" if isinstance(before, Mapping) else f"'{before}'" if before else "none"
        else:
            difference = f"the splits in {folder} were made with other groups than those of --groups"
    if difference and not overwrite:
        raise UsageError(
            f"{difference}: omit it, make another set of splits by --splits NAME, or give --overwrite to make these "
            "again"
        )
    return bool(difference)


def _lists(folder: Path) -> dict[str, bytes]:
    """The content of the list files of a folder, by name."""
    return {path.name: path.read_bytes() for path in list_files(folder)}
