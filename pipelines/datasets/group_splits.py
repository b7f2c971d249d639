"""Splits that keep groups together: seeded stratified folds, and training groups to hold out."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from pipelines.datasets.dataset_file import video_id
from pipelines.datasets.groups import groups_of
from pipelines.datasets.split_lists import GroupRule, Split
from pipelines.errors import UsageError
from pipelines.storage.workspace import UNLABELLED

FOLDS = 3
ONE_CLASS = "a network of one class is right about every video and learns nothing"
MORE_CLASSES = "extract videos of more classes (VIDEOS is the folder whose folders are the classes)"
_ATTEMPTS = 20  # shuffles tried until every class stands on both sides; one is enough unless groups span classes


def make_splits(
    videos: Iterable[tuple[str, str]],
    seed: int,
    folds: int = FOLDS,
    groups: GroupRule = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Split]:
    """Makes random splits: every video tests in exactly one, every class stands on both sides of each in about its
    share, no group on both sides. They are the same for the same set of videos in any order.

    Args:
        videos: (class, video) pairs; those without a class (`unlabelled`) take no part.
        folds: Number of splits; fewer are made where a class has fewer groups.
        groups: Finds the group of a video (`group_of`).
        tell: Is told why there are fewer.

    Raises:
        UsageError: There is one class only, a class has one video or group, or no such splits are found.
    """
    pairs = sorted({(class_name, video) for class_name, video in videos if class_name != UNLABELLED})
    if not pairs:
        raise UsageError(
            "there are no labelled videos to split: extract a folder of class folders, or give the lists by --splits"
        )
    classes = sorted({class_name for class_name, _ in pairs})
    if len(classes) == 1:
        raise UsageError(f"all videos are of one class, {classes[0]!r}: {ONE_CLASS}; {MORE_CLASSES}")
    group = [*groups_of([video_id(*pair) for pair in pairs], groups).values()]
    most, why = _most_folds(pairs, groups, folds)
    sides: list[set[int]] = []
    for count in range(most, 1, -1):
        if sides := _test_sides(pairs, group, classes, seed, count):
            break
        why = "no others of these groups have every class on both sides"
    if not sides:
        raise UsageError(
            f"no {most} splits of these groups have every class on both sides ({_ATTEMPTS} were tried): choose other "
            "groups by --groups or --group-regex, or give lists of your own by --splits"
        )
    if len(sides) < folds:
        tell(f"{len(sides)} splits are made instead of {folds}: {why}")
    ids = [video_id(*pair) for pair in pairs]
    return [
        Split(
            number=number,
            train=[id_ for place, id_ in enumerate(ids) if place not in test],
            test=[id_ for place, id_ in enumerate(ids) if place in test],
            classes=classes,
            source=f"made with seed {seed}",
            groups=groups,
        )
        for number, test in enumerate(sides, start=1)
    ]


def _most_folds(pairs: Sequence[tuple[str, str]], groups: GroupRule, folds: int) -> tuple[int, str]:
    """How many of the `folds` there can be, and which class allows no more, in words. Raises `UsageError` for one."""
    name, count = fewest_groups([video_id(*pair) for pair in pairs], groups)
    what = "video" if sum(class_name == name for class_name, _ in pairs) == count else "group"
    if count == 1:
        raise UsageError(
            f"class {name!r} has one {what}, which can train or test but not both: add {what}s, leave the class out by "
            f"--exclude-class {shlex.quote(name)}, or give lists of your own by --splits"
        )
    return min(folds, count), f"class {name!r} has no more than {count} {what}s"


def _test_sides(
    pairs: Sequence[tuple[str, str]], groups: Sequence[str], classes: Sequence[str], seed: int, folds: int
) -> list[set[int]]:
    """The places in `pairs` that test in each fold; none where no such folds are found."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[class_name] for class_name, _ in pairs])
    codes: np.ndarray | None = None
    splitter = StratifiedKFold  # measured on 13,320 videos: 0.1 s, where the one for groups takes 0.8 s
    if len(set(groups)) < len(groups):
        splitter, codes = StratifiedGroupKFold, np.unique(np.array(groups, dtype=object), return_inverse=True)[1]
    for attempt in range(_ATTEMPTS):
        state = int(np.random.default_rng((seed, attempt)).integers(2**31))
        folding = splitter(n_splits=folds, shuffle=True, random_state=state)
        sides = list(folding.split(np.zeros(len(labels)), labels, codes))
        if all(len(set(labels[side])) == len(classes) for both in sides for side in both):
            return [{int(place) for place in test} for _, test in sides]
    return []


def hold_out(ids: Sequence[str], share: float, seed: int, groups: GroupRule = None) -> set[str]:
    """Draws whole groups of the training videos to measure on while training: of each class about that share of its
    groups, one at least, and never all.

    Args:
        ids: Of the training videos (class/video).
        share: Of the groups, between 0 and 1.
        seed: Of the draw, which does not depend on the order of `ids`.
        groups: Finds the group of a video (`group_of`).

    Returns:
        The ids held out.

    Raises:
        UsageError: A class would have no training video left.
    """
    import numpy as np

    group, of_class = _groups(ids, groups)
    drawn: set[str] = set()
    for number, (_, found) in enumerate(sorted(of_class.items())):
        wanted = max(1, round(share * len(found))) - len(found & drawn)
        free = sorted(found - drawn)
        order = np.random.default_rng((seed, number)).permutation(len(free))
        drawn.update(free[place] for place in order[: max(0, wanted)])
    for class_name, found in sorted(of_class.items()):
        if found <= drawn:
            raise UsageError(
                f"--validation {share:g}: class {class_name!r} has {len(found)} training "
                f"{'group' if len(found) == 1 else 'groups'}, of which none would be left to train on: leave "
                "--validation out, or the class by --exclude-class"
            )
    return {id_ for id_ in ids if group[id_] in drawn}


def fewest_groups(ids: Sequence[str], groups: GroupRule = None) -> tuple[str, int]:
    """The class with the fewest groups, the first of several, and their number."""
    counts = {class_name: len(found) for class_name, found in sorted(_groups(ids, groups)[1].items())}
    return min(counts.items(), key=lambda item: item[1])


def _groups(ids: Sequence[str], rule: GroupRule) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The group of each id, and the groups of each class."""
    group = groups_of(ids, rule)
    of_class: dict[str, set[str]] = defaultdict(set)
    for id_, name in group.items():
        of_class[id_.partition("/")[0]].add(name)
    return group, of_class


def leaking_groups(split: Split) -> list[str]:
    """The groups of which a split has videos on both sides, sorted. Raises `UsageError` as `group_of` does."""
    group = groups_of([*split.train, *split.test], split.groups)
    fold = str.casefold if split.groups is None else str
    members = Counter(group.values())  # a file may name a group after one of its videos
    sides = (
        {fold(group[id_]) for id_ in ids if group[id_] != id_ or members[id_] > 1} for ids in (split.train, split.test)
    )
    return sorted(set.intersection(*sides))
