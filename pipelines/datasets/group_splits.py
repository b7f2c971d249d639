"""Splits that keep groups together: which videos belong to one, and seeded stratified folds of them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipelines.datasets.dataset_file import video_id
from pipelines.datasets.split_lists import Split
from pipelines.errors import UsageError
from pipelines.storage.workspace import UNLABELLED

FOLDS = 3
_ATTEMPTS = 20  # shuffles tried until every class stands on both sides; one is enough unless groups span classes
_UCF101_GROUP = re.compile(r"^v_.+_g(?P<group>\d+)_c\d+$", re.IGNORECASE)


def make_splits(
    videos: Iterable[tuple[str, str]], seed: int, folds: int = FOLDS, group_regex: str | None = None
) -> list[Split]:
    """Makes random splits: every video tests in exactly one, every class stands on both sides of each in about its
    share, no group on both sides. They are the same for the same set of videos in any order.

    Args:
        videos: (class, video) pairs; those without a class (`unlabelled`) take no part.
        seed: Of the draws.
        folds: Number of splits.
        group_regex: Finds the group of a video (`group_of`).

    Raises:
        UsageError: A class has fewer than `folds` videos or groups, or no such splits are found.
    """
    pairs = sorted({(class_name, video) for class_name, video in videos if class_name != UNLABELLED})
    if not pairs:
        raise UsageError(
            "there are no labelled videos to split: extract a folder of class folders, or give the lists by --splits"
        )
    groups = [group_of(*pair, group_regex=group_regex) or video_id(*pair) for pair in pairs]
    _require_enough(pairs, groups, folds)
    classes = sorted({class_name for class_name, _ in pairs})
    made = []
    for number, test in enumerate(_test_sides(pairs, groups, classes, seed, folds), start=1):
        ids = [video_id(*pair) for pair in pairs]
        made.append(
            Split(
                number=number,
                train=[id_ for place, id_ in enumerate(ids) if place not in test],
                test=[id_ for place, id_ in enumerate(ids) if place in test],
                classes=classes,
                source=f"made with seed {seed}",
                group_regex=group_regex,
            )
        )
    return made


def _require_enough(pairs: Sequence[tuple[str, str]], groups: Sequence[str], folds: int) -> None:
    videos_of: dict[str, int] = defaultdict(int)
    groups_of: dict[str, set[str]] = defaultdict(set)
    for (class_name, _), group in zip(pairs, groups, strict=True):
        videos_of[class_name] += 1
        groups_of[class_name].add(group)
    for class_name, found in groups_of.items():
        if len(found) < folds:
            what = "videos" if videos_of[class_name] < folds else "groups"
            count = videos_of[class_name] if what == "videos" else len(found)
            raise UsageError(
                f"class {class_name!r} has {count} {what}, but {folds} splits need at least {folds}: add {what}, leave "
                "the class out, or give lists of your own by --splits"
            )


def _test_sides(
    pairs: Sequence[tuple[str, str]], groups: Sequence[str], classes: Sequence[str], seed: int, folds: int
) -> list[set[int]]:
    """The places in `pairs` that test in each fold."""
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
    raise UsageError(
        f"no {folds} splits of these groups have every class on both sides ({_ATTEMPTS} were tried): choose another "
        "--group-regex, or give lists of your own by --splits"
    )


# ------------------------------------------------------------------ groups


def group_of(class_name: str, video: str, group_regex: str | None = None) -> str | None:
    """The group whose videos must stay on one side.

    Args:
        class_name: Of the video.
        video: Its name.
        group_regex: Searched in `class/video`; the group is its first capture group, else the whole match, and may
            span classes. None for UCF101's `gXX` of `v_<Class>_gXX_cYY`, within its class.

    Returns:
        The group; None for a video that is a group of its own.

    Raises:
        UsageError: The regular expression is invalid or does not match.
    """
    if group_regex is None:
        match = _UCF101_GROUP.match(video)
        return f"{class_name}/g{match['group']}" if match else None
    id_ = video_id(class_name, video)
    try:
        match = re.search(group_regex, id_)
    except re.error as error:
        raise UsageError(f"--group-regex {group_regex!r} is not a regular expression: {error}") from error
    if match is None:
        raise UsageError(
            f"--group-regex {group_regex!r} does not match {id_!r}: it is searched in <class>/<video without suffix> "
            "of every video and must find its group in each"
        )
    found = match.group(1) if match.re.groups else match.group(0)
    if found is None:
        raise UsageError(f"the capture group of --group-regex {group_regex!r} takes no part in matching {id_!r}")
    return found


def hold_out(ids: Sequence[str], share: float, seed: int, group_regex: str | None = None) -> set[str]:
    """Draws whole groups of the training videos to measure on while training: of each class about that share of its
    groups, one at least, and never all.

    Args:
        ids: Of the training videos (class/video).
        share: Of the groups, between 0 and 1.
        seed: Of the draw, which does not depend on the order of `ids`.
        group_regex: Finds the group of a video (`group_of`).

    Returns:
        The ids held out.

    Raises:
        UsageError: A class would have no training video left.
    """
    import numpy as np

    group, of_class = _groups(ids, group_regex)
    drawn: set[str] = set()
    for number, (_, groups) in enumerate(sorted(of_class.items())):
        wanted = max(1, round(share * len(groups))) - len(groups & drawn)
        free = sorted(groups - drawn)
        order = np.random.default_rng((seed, number)).permutation(len(free))
        drawn.update(free[place] for place in order[: max(0, wanted)])
    for class_name, groups in sorted(of_class.items()):
        if groups <= drawn:
            raise UsageError(
                f"--validation {share:g}: class {class_name!r} has {len(groups)} training "
                f"{'group' if len(groups) == 1 else 'groups'}, of which none would be left to train on: leave "
                "--validation out, or the class by --exclude-class"
            )
    return {id_ for id_ in ids if group[id_] in drawn}


def fewest_groups(ids: Sequence[str], group_regex: str | None = None) -> tuple[str, int]:
    """The class with the fewest groups, the first of several, and their number."""
    counts = {class_name: len(groups) for class_name, groups in sorted(_groups(ids, group_regex)[1].items())}
    return min(counts.items(), key=lambda item: item[1])


def _groups(ids: Sequence[str], group_regex: str | None) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The group of each id, by itself where it has none, and the groups of each class."""
    group: dict[str, str] = {}
    of_class: dict[str, set[str]] = defaultdict(set)
    for id_ in ids:
        class_name, _, video = id_.partition("/")
        group[id_] = group_of(class_name, video, group_regex) or id_
        of_class[class_name].add(group[id_])
    return group, of_class


def leaking_groups(split: Split) -> list[str]:
    """The groups of which a split has videos on both sides, sorted. Raises `UsageError` as `group_of` does."""
    sides = []
    for ids in (split.train, split.test):
        names = (id_.partition("/") for id_ in ids)
        groups = (group_of(class_name, video, split.group_regex) for class_name, _, video in names)
        sides.append({group.casefold() if split.group_regex is None else group for group in groups if group})
    return sorted(sides[0] & sides[1])
