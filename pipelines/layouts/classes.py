"""The class of a video whose folder does not tell it: from a list, or from UCF101's names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.datasets.split_lists import list_files, listed_ids
from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.sources.names import UNLABELLED, require_class_name
from pipelines.sources.videos import listed_videos

_UCF101_VIDEO = re.compile(r"v_(?P<class>.+)_g\d+_c\d+")
_UCF101_SPELLING = {"HandStandPushups": "HandstandPushups"}  # as some files have it, and as the lists do


class Classes:
    """Tells classes of videos by name.

    `source`: a folder of split lists (UCF101's or HMDB51's), a list file (`path label` a line), or None.
    Raises `MissingError` where there is no such file, `UsageError` for a list that cannot be used.
    """

    def __init__(self, source: Path | None) -> None:
        self.source = source
        self._listed: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for name, class_name, video in _entries(source) if source is not None else ():
            self._listed[name.casefold()].add((class_name, video))

    def of(self, folders: tuple[str, ...], video: str) -> tuple[str, str]:
        """(class, video) of the video `video` in these folders below the one given, outermost first.

        A list decides wherever there is one, and how both are spelled; else the outermost folder; else UCF101's form
        of name; else the video is unlabelled. Raises `VideoError` where the list does not decide.
        """
        if self.source is None:
            return (folders[0] if folders else _class_in_name(video)), video
        found = self._listed.get(video.casefold(), set())
        if len(found) != 1:
            classes = " and ".join(sorted(class_name for class_name, _ in found))
            raise VideoError(f"{self.source} names it under {classes}" if found else f"{self.source} does not name it")
        return next(iter(found))


def _class_in_name(video: str) -> str:
    found = _UCF101_VIDEO.fullmatch(video)
    return _UCF101_SPELLING.get(found["class"], found["class"]) if found else UNLABELLED


def _entries(source: Path) -> Iterable[tuple[str, str, str]]:
    """(a folder's name, the class and the video that it means) for all that the list names."""
    if source.is_dir():
        return _of_split_lists(source)
    if not source.is_file():
        raise MissingError(f"there is no {source}: --list is a folder of split lists, or a file of lines `path label`")
    if source.absolute() in list_files(source.absolute().parent):
        raise UsageError(f"{source} is one of several split lists: give --list the folder they are in")
    return _of_list_file(source)


def _of_split_lists(folder: Path) -> Iterator[tuple[str, str, str]]:
    for id_ in listed_ids(folder):
        class_name, _, video = id_.partition("/")
        require_class_name(class_name, str(folder))
        yield video, class_name, video


def _of_list_file(path: Path) -> Iterator[tuple[str, str, str]]:
    """A line may name a video's file or the folder of its pictures: with a suffix, or with a dot of its own."""
    for listed in listed_videos(path):
        for name in {listed.path.name, listed.path.stem}:
            yield name, listed.class_name, name
