"""The classes of videos by a list, or by UCF101's names."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipelines.datasets.split_lists import list_files, listed_ids
from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.sources.lists import read_list
from pipelines.sources.names import require_class_name
from pipelines.storage.workspace import UNLABELLED

_UCF101_VIDEO = re.compile(r"v_(?P<class>.+)_g\d+_c\d+")
_UCF101_SPELLING = {"HandStandPushups": "HandstandPushups"}  # as some files have it, and as the lists do


class ListedClasses:
    """Looks up the classes of videos by name in a list.

    Args:
        source: A folder of split lists (UCF101's or HMDB51's), or a list file (`path label` a line).

    Raises:
        MissingError: There is no such file.
        UsageError: The list cannot be used.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.notes: list[str] = []
        """How the list was read, in sentences."""
        self._listed: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
        for name, class_name, video, split in _entries(source, self.notes):
            self._listed[name.casefold()].add((class_name, video, split))

    def of(self, video: str) -> tuple[str, str, str]:
        """Returns the class, the name and the split of a video, as the list spells them.

        Raises:
            VideoError: The list names it not at all, or differently.
        """
        found = self._listed.get(video.casefold(), set())
        if len(found) == 1:
            return next(iter(found))
        named = {class_name for class_name, _, _ in found}
        what = "under" if len(named) > 1 else "twice, in different spelling or splits, under"
        classes = " and ".join(sorted(named))
        raise VideoError(f"{self.source} names it {what} {classes}" if found else f"{self.source} does not name it")


def class_by_name(video: str) -> str:
    """The class that a name of UCF101's form says (`v_<Class>_g01_c01`), else `unlabelled`."""
    ucf101 = _UCF101_VIDEO.fullmatch(video)
    return _UCF101_SPELLING.get(ucf101["class"], ucf101["class"]) if ucf101 else UNLABELLED


def _entries(source: Path, notes: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """(a folder's name; the class, the video and the split that it means) for all that the list names."""
    if source.is_dir():
        for id_ in listed_ids(source):
            class_name, _, video = id_.partition("/")
            require_class_name(class_name, str(source))
            yield video, class_name, video, ""
        return
    if not source.is_file():
        raise MissingError(f"there is no {source}: --list is a folder of split lists, or a file of lines `path label`")
    if source.absolute() in list_files(source.absolute().parent):
        raise UsageError(f"{source} is one of several split lists: give --list the folder they are in")
    videos, told = read_list(source, whole_videos=True, pictures=True)
    notes += told
    for listed in videos:
        # A line may name a video's file or the folder of its pictures: with a suffix, or with a dot of its own.
        for name in {listed.path.name, listed.path.stem}:
            yield name, listed.class_name, name, listed.split
