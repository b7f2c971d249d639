"""Which video or class a name means, as people and other programs write them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath

from pipelines.sources.names import PICTURE_SUFFIXES, VIDEO_SUFFIXES


def plain_name(name: str) -> str:
    """A name without what spellings differ in: case, blanks and punctuation."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def by_spelling(names: Iterable[str], spelling: Callable[[str], str] = plain_name) -> dict[str, str]:
    """Names by their `spelling`, of those that no two share."""
    found = defaultdict(list)
    for name in names:
        found[spelling(name)].append(name)
    return {spelled: same[0] for spelled, same in found.items() if len(same) == 1}


def spelled_as(names: Collection[str], spelling: Callable[[str], str] = str.casefold) -> Callable[[str], str | None]:
    """Gives the one of `names` that another means: itself, else that of the same `spelling` where that is unambiguous;
    None: none."""
    exact, spelled = set(names), by_spelling(set(names), spelling)
    return lambda name: name if name in exact else spelled.get(spelling(name))


def without_suffix(video: str) -> PurePosixPath:
    """A video's path or name, without the suffix of a video."""
    path = PurePosixPath(video.strip().replace("\\", "/"))
    return path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES | PICTURE_SUFFIXES else path


class VideoNames:
    """Known videos by what they may be called: an id (`<class>/<video>`), a path that ends so, or the video alone where
    no two classes share it; with or without a video's suffix.

    The class may be spelled otherwise, as far as no other class is spelled so too. A folder that is no class tells
    nothing; one that is another class rules a video out. What is written exactly so comes before what differs in case.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._classes: set[str] = set()
        self._exact: dict[str, list[str]] = defaultdict(list)
        self._folded: dict[str, list[str]] = defaultdict(list)
        for id_ in ids:
            path = PurePosixPath(id_)
            self._classes.add(path.parent.name)
            self._exact[path.name].append(id_)
            self._folded[path.name.casefold()].append(id_)
        self._plain_classes = {plain for name in self._classes if (plain := plain_name(name))}
        self._spelled = by_spelling(self._classes)

    def find(self, text: str, class_name: str = "") -> str | None:
        """The id that a name means; None for one that is not known, or not unambiguous.

        Args:
            class_name: Of the video; "" for the folder in `text`.
        """
        found = self.matching(text, class_name)
        return found[0] if len(found) == 1 else None

    def matching(self, text: str, class_name: str = "") -> list[str]:
        """All ids that a name may mean."""
        path = PurePosixPath(text.strip().replace("\\", "/"))
        folder = class_name or path.parent.name
        plain = plain_name(folder)
        is_class = folder in self._classes or plain in self._plain_classes
        meant = folder if folder in self._classes else self._spelled.get(plain)
        for name in (path.name, without_suffix(text).name):  # an id has no suffix, but may have dots
            for ids in (self._exact.get(name, []), self._folded.get(name.casefold(), [])):
                if found := [id_ for id_ in ids if not is_class or PurePosixPath(id_).parent.name == meant]:
                    return found
        return []
