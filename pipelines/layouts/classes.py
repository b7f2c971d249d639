"""The classes of videos: by a list, by their folders, or by UCF101's names."""

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


class Classes:
    """Looks up the classes of videos by name.

    Args:
        source: A folder of split lists (UCF101's or HMDB51's), a list file (`path label` a line), or None.

    Raises:
        MissingError: There is no such file.
        UsageError: The list cannot be used.
    """

    def __init__(self, source: Path | None) -> None:
        self.source = source
        self._listed: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for name, class_name, video in _entries(source) if source is not None else ():
            self._listed[name.casefold()].add((class_name, video))

    def of(self, folders: tuple[str, ...], video: str) -> tuple[str, str]:
        """Returns the class and the name of a video.

        If there is a list it decides, and how both are spelled; else the outermost folder; else UCF101's form of name;
        else the video is unlabelled.

        Args:
            folders: The folders that the video lies in, outermost first.

        Raises:
            VideoError: The list names it not at all, or under several classes.
        """
        if self.source is not None:
            found = self._listed.get(video.casefold(), set())
            if len(found) == 1:
                return next(iter(found))
            classes = " and ".join(sorted(class_name for class_name, _ in found))
            raise VideoError(f"{self.source} names it under {classes}" if found else f"{self.source} does not name it")
        if folders:
            return folders[0], video
        ucf101 = _UCF101_VIDEO.fullmatch(video)
        return _UCF101_SPELLING.get(ucf101["class"], ucf101["class"]) if ucf101 else UNLABELLED, video


def _entries(source: Path) -> Iterator[tuple[str, str, str]]:
    """(a folder's name, the class and the video that it means) for all that the list names."""
    if source.is_dir():
        for id_ in listed_ids(source):
            class_name, _, video = id_.partition("/")
            require_class_name(class_name, str(source))
            yield video, class_name, video
        return
    if not source.is_file():
        raise MissingError(f"there is no {source}: --list is a folder of split lists, or a file of lines `path label`")
    if source.absolute() in list_files(source.absolute().parent):
        raise UsageError(f"{source} is one of several split lists: give --list the folder they are in")
    for listed in read_list(source, whole_videos=True, pictures=True)[0]:
        # A line may name a video's file or the folder of its pictures: with a suffix, or with a dot of its own.
        for name in {listed.path.name, listed.path.stem}:
            yield name, listed.class_name, name
