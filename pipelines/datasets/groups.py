"""Which videos belong to one group (a scene, a person, a recording), whose clips must stay on one side of a split."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipelines.datasets.dataset_file import video_id
from pipelines.datasets.split_lists import GroupRule
from pipelines.datasets.video_names import VideoNames, without_suffix
from pipelines.errors import MissingError, UsageError
from pipelines.interface.wording import plural, some
from pipelines.sources.list_lines import PATH_COLUMNS
from pipelines.sources.segments import video_of
from pipelines.storage.failures import typed_text

_UCF101_GROUP = re.compile(r"^v_(?P<class>.+)_g(?P<group>\d+)_c\d+$", re.IGNORECASE)
_GROUP_COLUMNS = (
    *("group", "group_id", "scene", "scene_id", "person", "subject", "actor", "recording"),
    *("source_video", "source_id", "source"),
)
_NUMBERED = "person|subject|subj|actor|user|player|scene|session|recording|group"
_KNOWN_NAMES = (
    ("the recording in HMDB51's names", r"/(.+)_[a-z]_(?:nm|cm)_np\d+_(?:fr|le|ri|ba)_(?:goo|med|bad)_\d+$"),
    ("the video in Kinetics' names", r"/([\w-]{11})_\d{6}_\d{6}$"),
    ("the person in NTU RGB+D's names", r"/S\d{3}C\d{3}(P\d{3})R\d{3}A\d{3}"),
    ("the numbered person, scene or such that names begin with", rf"(?i)/((?:{_NUMBERED})[-_ ]?\d+)(?!\d)"),
    ("the word before the class in the names", r"^(?=[^/]+/([^/_]+)_)([^/]+)/\1_\2_?\d*$"),
    ("what stands before the number of a clip", r"(?i)/(.+)[-_. ](?:clip|part|cut|segment|seg|take|shot|c)[-_]?\d+$"),
)


def group_of(class_name: str, video: str, groups: GroupRule = None) -> str | None:
    """The group whose videos must stay on one side.

    Args:
        groups: A regular expression, searched in `class/video`: the group is its first capture group, else the whole
            match, and may span classes. Or the groups by id. None for UCF101's `gXX` of `v_<Class>_gXX_cYY`, within its
            class.

    Returns:
        The group; None for a video that is a group of its own. A segment has the group of the video that it is a part
        of, which itself is one, of segments of all classes, if it is in no other.

    Raises:
        UsageError: The regular expression is invalid or does not match.
    """
    whole = video_of(video)
    if groups is None:
        match = _UCF101_GROUP.match(whole or video)
        if match is None:
            return whole or None
        return f"{match['class'] if whole else class_name}/g{match['group']}"
    if isinstance(groups, Mapping):
        return groups.get(video_id(class_name, video)) or whole or None
    id_ = video_id(class_name, whole or video)
    try:
        match = re.search(groups, id_)
    except re.error as error:
        raise UsageError(f"--group-regex '{groups}' is not a regular expression: {error}") from error
    if match is None:
        raise UsageError(
            f"--group-regex '{groups}' does not match {id_!r}: it is searched in <class>/<video without suffix> "
            "of every video and must find its group in each"
        )
    found = match.group(1) if match.re.groups else match.group(0)
    if found is None:
        raise UsageError(f"the capture group of --group-regex '{groups}' takes no part in matching {id_!r}")
    return found


def groups_of(ids: Iterable[str], groups: GroupRule = None) -> dict[str, str]:
    """The group of each id (`group_of`), by itself where it has none. Groups that share a video, whole or in segments,
    are one. Raises as `group_of`."""
    ids = list(ids)
    segmented = {whole for id_ in ids if (whole := video_of(id_.partition("/")[2]))}
    found: dict[str, str] = {}
    joined: dict[str, str] = {}  # to a group that it is one with
    of_video: dict[str, str] = {}

    def root(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    for id_ in ids:
        class_name, _, video = id_.partition("/")
        whole = video_of(video) or (video if video in segmented else "")
        found[id_] = group_of(class_name, video, groups) or whole or id_
        if whole:
            one, other = root(found[id_]), root(of_video.setdefault(whole, found[id_]))
            if one != other:
                joined[max(one, other)] = min(one, other)
    return {id_: root(group) for id_, group in found.items()}


def recognised_groups(videos: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The regular expression of a data set whose names tell groups, and what the group is, in words; "" for both where
    none is known that fits every video and finds several groups in every class.

    Args:
        videos: (class, video) pairs.
    """
    for what, regex in _KNOWN_NAMES:
        pattern = re.compile(regex)
        of_class: dict[str, set[str]] = defaultdict(set)
        for class_name, video in videos:
            match = pattern.search(video_id(class_name, video))
            if match is None:
                break
            of_class[class_name].add(match[1])
        else:
            groups = set().union(*of_class.values())
            if len(groups) < len(videos) and all(len(found) > 1 for found in of_class.values()):
                return regex, what
    return "", ""


def read_groups(path: Path, ids: Iterable[str]) -> dict[str, str]:
    """Reads which group each video belongs to: CSV with a row for each, its id and its group.

    Args:
        path: The file. A first row with the names of the columns may put them in any order, among others. A video is
            named by its id, its path or its name, with or without suffix; without a group it is one of its own. A row
            of an untrimmed video is one of all its segments, also where it is stored whole too.
        ids: Of all videos that need a group.

    Returns:
        The groups by id.

    Raises:
        MissingError: There is no such file, or it cannot be read.
        UsageError: It has no two columns, lacks videos, or gives one two groups.
    """
    if not path.is_file():
        raise MissingError(f"--groups {path}: there is no such file")
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        delimiter = next((one for one in ",;\t" if lines and one in lines[0]), ",")
        rows = [
            [typed_text(cell.strip()) for cell in row] for row in csv.reader(lines, delimiter=delimiter) if any(row)
        ]
    except (OSError, csv.Error) as error:
        raise MissingError(f"--groups {path} cannot be read as CSV ({error})") from error
    names = [cell.casefold() for cell in rows[0]] if rows else []
    group_column = next((names.index(name) for name in _GROUP_COLUMNS if name in names), None)
    video_column = next((names.index(name) for name in PATH_COLUMNS if name in names), 0)
    if group_column is not None:
        rows.pop(0)
    wanted = sorted(ids)
    known = VideoNames(wanted)
    segments: dict[str, list[str]] = defaultdict(list)  # by the name of their video
    for id_ in wanted:
        if whole := video_of(id_.partition("/")[2]):
            segments[whole].append(id_)
    groups: dict[str, str] = {}
    others = []
    for row in rows:
        if len(row) <= max(video_column, group_column or 1) or (group_column is None and len(row) > 2):
            raise UsageError(
                f"--groups {path}: the row {','.join(row)!r} is not a video and its group, such as "
                "walk/clip1.avi,scene1; more columns need a first row that names them, one of them `group`"
            )
        video, group = row[video_column], row[1 if group_column is None else group_column]
        found = known.find(video)
        named = [*([] if found is None else [found]), *segments.get(without_suffix(video).name, [])]
        if not named:
            others.append(video)
        for id_ in named:
            if groups.setdefault(id_, group) != group:
                raise UsageError(f"--groups {path} gives {id_} two groups, {groups[id_]!r} and {group!r}: keep one")
    if missing := [id_ for id_ in wanted if id_ not in groups]:
        instead = f"; it has {some(others)} instead" if others else ""
        raise UsageError(
            f"--groups {path} lacks {len(missing)} of {plural(len(wanted), 'video')}, {some(missing)}{instead}: add "
            "a row for each, with nothing behind the comma for a video that is a group of its own"
        )
    return {id_: group for id_, group in groups.items() if group}
