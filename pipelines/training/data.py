"""What a workspace holds for a split: the training videos, their labels, and everything that is not as it should be."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.datasets.catalogue import (
    Catalogue,
    Video,
    flow_provenance,
    lack_of,
    load_catalogue,
    origins_of,
    unreadable,
    with_damaged,
)
from pipelines.datasets.class_balance import ClassBalance
from pipelines.datasets.group_splits import MORE_CLASSES, ONE_CLASS, fewest_groups, hold_out, leaking_groups
from pipelines.datasets.groups import read_groups
from pipelines.datasets.split_lists import GroupRule, Split, read_ids
from pipelines.datasets.splits import (
    ResolvedSplit,
    in_no_split,
    labelled,
    prepare_splits,
    resolve,
    what_they_lack,
    without_classes,
)
from pipelines.datasets.video_names import spelled_as
from pipelines.errors import MissingError, UsageError
from pipelines.interface.options import BOTH_STREAMS, Balance, StreamName
from pipelines.interface.wording import plural, some
from pipelines.runtime.progress import OnProgress, ignore_progress, note
from pipelines.sources.segments import video_of
from pipelines.sources.videos import class_counts
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.workspace import UNLABELLED, Workspace
from pipelines.training.run_config import HeldOut

if TYPE_CHECKING:
    from pipelines.training.settings import TrainingSettings

HELD_APART = Path("val")  # as --validation: what VIDEOS held in val/
ENOUGH_GROUPS = 10  # of every class, for a recipe to hold a tenth out unasked


@dataclass(frozen=True)
class TrainingData:
    """The training side of one split."""

    classes: list[str]
    videos: list[Video]
    """Those with what the streams to be trained are fed with, readable or not."""
    labels: list[int]
    """The index of each video's class in `classes`."""
    validation: list[Video]
    """Videos held out of training, or that the split holds apart, to measure on while training."""
    validation_labels: list[int]
    """The index of each one's class in `classes`."""
    held_out: HeldOut
    """How they were chosen."""
    split: Split
    """As its lists name it without the excluded classes, whether the workspace has the videos or not."""
    missing: list[str]
    """The ids of training videos without that."""
    flow: FlowSettings | None
    """What all flow files share; None where flow is not needed and not every training video has it."""
    short_side: int | None
    """Of the stored pictures; None where they differ, and beside `flow`, which says it too."""
    problems: list[Failure]
    """Why artifacts of training videos cannot be used."""
    unlabelled: list[Video]
    """Videos without a class that the student matches its teacher on too, readable or not."""
    sources: dict[str, str]
    """By id, the SHA-256 of the source of each video of the split, training and test, of which it is known."""


def find_splits(
    settings: "TrainingSettings", *, write: bool, tell: Callable[[str], None] = lambda text: None
) -> tuple[Catalogue, list[Split]]:
    """The videos of a workspace and its splits, which are made where there are none; without `write` nothing is
    stored.

    Raises as `prepare_splits`, and `UsageError` for groups that do not fit.
    """
    workspace, exclude = Workspace(settings.workspace), settings.exclude_classes
    catalogue = with_damaged(workspace, load_catalogue(workspace, write=write))
    groups: GroupRule = settings.group_regex
    if settings.groups is not None:
        groups = read_groups(settings.groups, [video.id for video in labelled(catalogue, exclude)])
    return catalogue, prepare_splits(
        workspace,
        catalogue,
        settings.splits,
        seed=settings.seed or 0,
        groups=groups,
        overwrite=settings.overwrite,
        folds=settings.folds,
        exclude=exclude,
        write=write,
        tell=tell,
    )


def find_training_data(
    settings: "TrainingSettings", on_progress: OnProgress = ignore_progress, *, write: bool = True
) -> TrainingData:
    """Finds the training videos of a split, and says what is not as it should be.

    Args:
        write: False leaves `dataset.json` and the splits as they are.

    Raises:
        UsageError: An unknown split, a single class, or one without training video.
        MissingError: There is no usable training video, or none without a class where those are wanted.
    """

    def tell(text: str) -> None:
        on_progress(note(text))

    exclude, root = settings.exclude_classes, settings.workspace
    streams = {stream for name in settings.selected() for stream in settings.step(name).inputs}
    catalogue, found = find_splits(settings, write=write, tell=tell)
    split = next((split for split in found if split.number == (settings.split or 1)), None)
    if split is None:
        raise UsageError(f"--split {settings.split} is none of the splits: {', '.join(str(s.number) for s in found)}")
    all_classes, split = split.classes, without_classes(split, exclude, catalogue.classes)
    more = MORE_CLASSES if len(catalogue.classes) < 2 else "name videos of more classes in the lists"
    _require_classes(split, "leave fewer out by --exclude-class" if len(all_classes) > 1 else more)
    resolved = resolve(split, catalogue, exclude, streams)
    if not resolved.train:
        raise MissingError(
            f"none of the {len(split.train)} training videos of split {split.number} has "
            f"{' and '.join('frames' if stream == 'appearance' else 'flow' for stream in sorted(streams))} in {root}: "
            + (what_they_lack(resolved.missing_train, catalogue) or _none_alike(resolved.missing_train[0], catalogue))
            + _one_stream(split, catalogue, exclude, streams)
        )
    for text in _sentences(resolved, catalogue, streams, settings.balance or "none"):
        tell(text)
    if all(video.damage for video in resolved.train):
        raise MissingError(
            f"none of the {len(resolved.train)} training videos of split {split.number} can be read, for example: "
            f"{resolved.train[0].damage}"
        )
    held_out_by, held, why = _held_out(resolved, split, settings)
    trained = [video for video in resolved.train if video.id not in held]
    held_out = [video for video in (*resolved.train, *resolved.held_apart) if video.id in held]
    if held_out:
        counts = class_counts(Counter(video.class_name for video in held_out))
        tell(f"validation: {counts}, held out of training{why}")
    elif why:
        tell(why)
    without_class = []
    if settings.unlabelled:
        without_class = _without_class(catalogue, streams, root)
        tell(f"the student also matches its teacher on {plural(len(without_class), 'video')} without a class")
    flow = None
    if "motion" in streams or all(video.has_flow for video in resolved.train):
        flow = flow_provenance(catalogue)
    short_sides = {min(video.width, video.height) for video in resolved.train}
    in_training = {*split.train, *(video.id for video in (*resolved.train, *without_class))}
    return TrainingData(
        classes=resolved.classes,
        videos=trained,
        labels=resolved.labels(trained),
        validation=held_out,
        validation_labels=resolved.labels(held_out),
        held_out=held_out_by,
        split=split,
        missing=resolved.missing_train,
        unlabelled=without_class,
        flow=flow,
        short_side=None if flow or len(short_sides) != 1 else short_sides.pop(),
        sources=origins_of([*trained, *held_out, *resolved.test]),
        problems=[problem for problem in catalogue.problems if problem.id in in_training],
    )


def _without_class(catalogue: Catalogue, streams: Collection[StreamName], root: Path) -> list[Video]:
    videos = [video for video in catalogue.videos if video.class_name == UNLABELLED and video.has(streams)]
    if not videos:
        raise MissingError(
            f"--unlabelled: no video without a class has frames and flow in {root}: run `stres extract-frames` and "
            "`stres extract-flow` on a folder of such videos first"
        )
    return videos


def _held_out(resolved: ResolvedSplit, split: Split, settings: "TrainingSettings") -> tuple[HeldOut, set[str], str]:
    """How videos are held out of training, their ids, and what is to be said of it."""
    ids, why = [video.id for video in resolved.train], ""
    validation, of_recipe = settings.validation, settings.base.validation
    if settings.kept is not None:
        kept = spelled_as(settings.kept.ids)
        there = (*ids, *(video.id for video in resolved.held_apart))
        return settings.kept.by, {id_ for id_ in there if kept(id_) is not None}, why
    if validation == HELD_APART and not HELD_APART.is_file():
        return "list", *_apart(resolved, split)
    if isinstance(validation, Path):
        return "list", *_listed(validation, ids, split)
    if validation is None and of_recipe:
        class_name, groups = fewest_groups(ids, split.groups)
        validation, why = of_recipe, " (the recipe's default; --validation 0 trains on them too)"
        if groups < ENOUGH_GROUPS:
            validation = 0.0
            why = (
                f"validation: off, since class {class_name!r} has only {plural(groups, 'training group')} of the "
                f"{ENOUGH_GROUPS} that it takes; --validation SHARE holds some out nevertheless"
            )
    held = hold_out(ids, validation, settings.seed or 0, split.groups) if validation else set()
    return validation or 0.0, held, why


def _listed(file: Path, ids: Collection[str], split: Split) -> tuple[set[str], str]:
    """The videos of a list, as the workspace spells them, and what is to be said of their groups.

    Raises `MissingError` where there is no such list, `UsageError` where it names other than training videos, or all
    of a class.
    """
    if not file.is_file():
        raise MissingError(
            f"--validation {file}: there is no such file: give a share of the training groups, such as 0.1, or a list "
            "of training videos"
        )
    here = {id_.casefold(): id_ for id_ in ids}
    split_ids = {id_.casefold() for id_ in split.train}
    listed = read_ids(file)
    if others := [id_ for id_ in listed if id_.casefold() not in here.keys() | split_ids]:
        raise UsageError(
            f"--validation {file} names {plural(len(others), 'video')} that split {split.number} does not train on, "
            f"such as {others[0]}: name training videos only"
        )
    held = {here[folded] for id_ in listed if (folded := id_.casefold()) in here}
    left = [id_ for id_ in ids if id_ not in held]
    if bare := sorted({id_.partition("/")[0] for id_ in held} - {id_.partition("/")[0] for id_ in left}):
        raise UsageError(
            f"--validation {file} names every training video of class {bare[0]!r}: leave some to train on, or leave "
            "the class out by --exclude-class"
        )
    return held, _of_their_groups(split, left, held)


def _apart(resolved: ResolvedSplit, split: Split) -> tuple[set[str], str]:
    """The videos that the split holds apart, and what is to be said of their groups. Raises `MissingError` for none."""
    held = {video.id for video in resolved.held_apart}
    if not held:
        lack = (
            "of those it names none is stored"
            if split.held_apart
            else "VIDEOS had none in val/ beside train/ and test/"
        )
        raise MissingError(
            f"--validation {HELD_APART}: split {split.number} has no videos for validation ({lack}): give a share of "
            "the training groups, such as 0.1, or a list of training videos"
        )
    return held, _of_their_groups(split, [video.id for video in resolved.train], held)


def _of_their_groups(split: Split, left: list[str], held: Collection[str]) -> str:
    """What is to be said where held-out videos have groups that are trained on; "" where none has."""
    leaking = leaking_groups(replace(split, train=left, test=sorted(held)))
    if not leaking:
        return ""
    groups = plural(len(leaking), "group has", "groups have")
    return f"; {groups} others that are trained on, for example {leaking[0]}: held-out accuracy will be too high"


def _none_alike(id_: str, catalogue: Catalogue) -> str:
    """What to do where the workspace has no video that is called like the lists', of which `id_` is one."""
    extract = "run `stres extract-frames` and `stres extract-flow` on"
    if not catalogue.videos:
        return f"{extract} the videos first"
    class_name = id_.partition("/")[0]
    there = next((video for video in catalogue.videos if video.class_name == class_name), catalogue.videos[0])
    return (
        f"the lists name {id_!r}, the workspace has {plural(len(catalogue.videos), 'video')}, such as {there.id!r}: "
        f"correct the lists, or {extract} the lists' videos"
    )


def _one_stream(split: Split, catalogue: Catalogue, exclude: Collection[str], streams: Collection[StreamName]) -> str:
    """How to train on what is there, where that is enough for one of the streams."""
    for stream in BOTH_STREAMS:
        if len(streams) > 1 and resolve(split, catalogue, exclude, [stream]).train:
            return f"; or train the {stream} stream alone: --steps {stream}"
    return ""


def _require_classes(split: Split, more: str) -> None:
    """Raises `UsageError` where the lists leave nothing to learn; `more` is how there would be more classes."""
    trained = {id_.partition("/")[0] for id_ in split.train}
    only_tested = sorted({id_.partition("/")[0] for id_ in split.test} - trained)
    if only_tested:
        if (other := spelled_as(trained)(only_tested[0])) is not None:
            raise UsageError(
                f"the training list of split {split.number} calls a class {other!r}, the test list {only_tested[0]!r}: "
                "write its name in one way"
            )
        raise UsageError(
            f"class {only_tested[0]!r} of split {split.number} has test videos and no training video"
            + (f", and so have {len(only_tested) - 1} more" if only_tested[1:] else "")
            + ": add some to the training list, or leave it out by "
            + " ".join(f"--exclude-class {shlex.quote(name)}" for name in only_tested[:5])
        )
    if len(split.classes) < 2:
        name = split.classes[0] if split.classes else "none"
        raise UsageError(f"split {split.number} has one class only, {name!r}: {ONE_CLASS}; {more}")


def _sentences(
    split: ResolvedSplit, catalogue: Catalogue, streams: Collection[StreamName], balance: Balance
) -> list[str]:
    """What a user is to know of a split before it is trained on."""
    train, test = (Counter(video.class_name for video in side) for side in (split.train, split.test))
    told = [f"training: {class_counts(train)}", f"test: {class_counts(test)}"]
    if test:
        told[1] += f"; {ClassBalance.of(test, len(split.classes)).sentence()}"
    if ClassBalance.of(train, len(split.classes)).unbalanced and balance == "none":
        told.append(
            "the classes are unbalanced: --balance sampler draws them equally often, --balance loss weighs rare ones up"
        )
    if single := sorted(name for name, count in train.items() if count == 1):
        classes = plural(len(single), "class has", "classes have")
        told.append(f"{classes} a single training video ({some(single)}): that is all it can learn of them")
    for what, missing in (("training", split.missing_train), ("test", split.missing_test)):
        if missing:
            videos = plural(len(missing), f"{what} video of the split has", f"{what} videos of the split have")
            text = f"{videos} {lack_of(streams)}, for example {missing[0]}"
            lack = what_they_lack(missing, catalogue)
            told.append(f"{text}; {lack}" if lack else text)
    untrained = [name for name in split.classes if name not in train]
    if untrained:
        named, classes = ", ".join(untrained[:3]), plural(len(split.classes), "class")
        have = "has" if len(untrained) == 1 else "have"
        told.append(
            f"{len(untrained)} of {classes} {have} no training video here ({named}): the network "
            "cannot learn them; --exclude-class NAME leaves a class out"
        )
    if not split.test and not split.missing_test:
        told.append(f"the test list of split {split.number} is empty: this run cannot be evaluated")
    elif untested := [name for name in split.classes if name not in test]:
        classes, have = plural(len(split.classes), "class"), "has" if len(untested) == 1 else "have"
        told.append(
            f"{len(untested)} of {classes} {have} no test video here ({some(untested)}): the test does not tell how "
            "well they are recognised, and mean class accuracy is of the others"
        )
    if split.unlisted:
        told.append(in_no_split(split.unlisted, f"split {split.number}"))
    if split.leaking_groups:
        count, example = len(split.leaking_groups), split.leaking_groups[0]
        groups = plural(count, "group appears", "groups appear")
        told.append(f"{groups} in both training and test, for example {example}: accuracy will be too high")
    if twice := _stored_twice(split):
        files, (one, other, *_) = plural(len(twice), "file is", "files are"), sorted(video.id for video in twice[0])
        told.append(
            f"{files} stored under two classes or on both sides of the split, for example as {one} and {other}, as "
            "where a class was renamed or a label corrected: remove what is outdated from frames/ and flow/, and make "
            "the splits again by --overwrite"
        )
    return told


def _stored_twice(split: ResolvedSplit) -> list[list[Video]]:
    """The videos of each file, or segment of one, that has two classes or is both trained and tested on."""
    trained = {video.id for video in split.train}
    stored: dict[tuple[str, str], list[Video]] = defaultdict(list)
    for video in (*split.train, *split.test):
        whole = video_of(video.video)
        if video.origin:
            stored[video.origin, video.video.removeprefix(whole) if whole else ""].append(video)
    return [
        videos for videos in stored.values() if len({(video.class_name, video.id in trained) for video in videos}) > 1
    ]


def record_unreadable(
    workspace: Workspace,
    data: TrainingData,
    reasons: Mapping[str, str],
    on_progress: OnProgress,
    *,
    write: bool = True,
) -> int:
    """Names the training videos that could not be used, and brings `failures.csv` up to date.

    Args:
        reasons: By id, why videos were unreadable while training.
        write: False leaves `failures.csv` alone.

    Returns:
        How many there are.
    """
    videos = [*data.videos, *data.unlabelled]
    by_id = {video.id: video for video in videos}
    known = [replace(row, stage="train") for row in data.problems]
    failed = [unreadable("train", by_id[id_], reason) for id_, reason in reasons.items() if not by_id[id_].damage]
    failed += {row.key: row for row in known}.values()
    bad = {row.key for row in failed}
    good = {("train", video.class_name, video.video) for video in videos} - bad
    if write:
        record_outcomes(workspace, failed=failed, succeeded=good)
    for row in failed:
        text = f"left out of training: {row.id}: {row.reason}"
        on_progress(note(text))
    return len(failed)
