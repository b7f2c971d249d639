"""Which videos a command's VIDEOS argument means, and the class each one stands under.

VIDEOS is a folder of class folders, a list file, one video or a glob; a video without a class is `unlabelled`.
"""

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import MissingError, UsageError
from pipelines.video.webp import is_animated_webp
from pipelines.workspace import is_plain_name

UNLABELLED = "unlabelled"
_LONGEST_NAME = 255 - len(".h5")  # bytes
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avi", "divx", "mov", "mp4", "m4v", "3gp", "3g2", "mkv", "webm", "mpg", "mpeg", "mpe", "m2v", "vob"),
        *("ts", "mts", "m2ts", "wmv", "asf", "flv", "ogv", "gif", "apng"),
    )
)
PICTURE_SUFFIXES = frozenset((".png", ".webp"))
"""Of pictures that may be animated, which are videos then."""
_BEFORE_PIXELS = 4096  # bytes of a picture in which it says whether it is animated


@dataclass(frozen=True)
class VideoSource:
    """One video to process. `video` is its file's name without the last suffix; `path` is absolute."""

    class_name: str
    video: str
    path: Path

    @property
    def id(self) -> str:
        return f"{self.class_name}/{self.video}"


@dataclass(frozen=True)
class VideoProblem:
    """A video that was named but cannot be processed, known before any is opened: becomes a row of `failures.csv`."""

    class_name: str
    video: str
    path: Path
    reason: str


@dataclass(frozen=True)
class VideoList:
    """What VIDEOS means: the videos in order of class and name, the files passed over, and the videos refused."""

    videos: list[VideoSource]
    ignored: int = 0
    problems: list[VideoProblem] = field(default_factory=list)


def find_videos(argument: str | Path, *, to_store: bool = True) -> VideoList:
    """Resolves VIDEOS. An existing path always wins over a reading as a glob (names may hold `[`).

    Unless something is to be stored for each, videos of one class and name may lie in several places.
    Raises `MissingError` if there is no such path or no video in it, `UsageError` naming the line if a list file
    gives a label that cannot be a folder's name.
    """
    path = Path(argument)
    if path.is_dir():
        found, ignored = _in_class_folders(path)
    elif path.is_file():
        found, ignored = ([_source(UNLABELLED, path)] if is_video(path) else list(listed_videos(path))), 0
    elif not os.path.lexists(path) and glob.has_magic(str(argument)):
        found, ignored = _matching(str(argument))
    else:
        raise MissingError(
            f"there is no {path}: VIDEOS is a folder of class folders, a list file (`path label`), one video or a glob"
        )
    if not found:
        raise MissingError(
            f"no videos in {path} ({ignored} other files): VIDEOS is a folder of class folders, a list file "
            f"(`path label`), one video or a glob; known are {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    if not to_store:
        return VideoList(found, ignored)
    videos, problems = refuse_unusable(found)
    return VideoList(videos, ignored, problems)


def _source(class_name: str, path: Path) -> VideoSource:
    absolute = Path(os.path.abspath(path))
    return VideoSource(class_name, absolute.stem, absolute)


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name, or an animation by its first bytes."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix in PICTURE_SUFFIXES and _is_animated(path))


def _is_animated(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(_BEFORE_PIXELS)
    except OSError:
        return False
    return is_animated_webp(head) or (head.startswith(b"\x89PNG") and b"acTL" in head.partition(b"IDAT")[0])


def is_pictures(source: str) -> bool:
    """Whether an artifact's source is a series of pictures in a folder: `folder/frame*.jpg`."""
    return "*" in source.rpartition("/")[2]


# ------------------------------------------------------------------ class folders


def _in_class_folders(folder: Path) -> tuple[list[VideoSource], int]:
    """The class is the first folder below `folder`; videos may lie deeper (class/group/clip.avi)."""
    found, ignored = [], 0
    for path in _visible_files(folder):
        if not is_video(path):
            ignored += 1
            continue
        below = path.relative_to(folder).parts
        found.append(_source(below[0] if len(below) > 1 else UNLABELLED, path))
    return found, ignored


def _visible_files(folder: Path) -> Iterator[Path]:
    """All files below `folder` but hidden ones. Follows links to folders (data sets are often linked together)."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


# ------------------------------------------------------------------ list files


def listed_videos(list_file: Path) -> Iterator[VideoSource]:
    """The videos of a list file (`path label` a line), which need not exist; relative paths are relative to its folder.

    Raises `MissingError` where it cannot be read, `UsageError` for one that is none and a label that names no folder.
    """
    try:
        text = list_file.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise MissingError(f"{list_file} cannot be read ({error.strerror}): check its permissions") from error
    if "\0" in text:
        raise UsageError(
            f"{list_file} is neither a list file (`path label`) nor named as a video; "
            f"known are {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    folder = list_file.parent
    for number, line in enumerate(text.split("\n"), start=1):
        if not (entry := line.strip()):
            continue
        without_label = _exists(folder, entry) or len(entry.split()) == 1
        path, label = (entry, UNLABELLED) if without_label else entry.rsplit(maxsplit=1)
        # Names may begin with "#" (HMDB51 has some): only "# " begins a comment, and only if no such file exists.
        if not _is_comment(entry) or _exists(folder, path):
            require_class_name(label, f"{list_file}, line {number}")
            yield _source(label, folder / path)


def _is_comment(entry: str) -> bool:
    return entry == "#" or entry.startswith(("# ", "#\t"))


def _exists(folder: Path, name: str) -> bool:
    try:
        return os.path.isfile(folder / name)
    except ValueError:
        return False


def require_class_name(label: str, where: str) -> None:
    """Raises `UsageError` for a label that cannot be the name of a class's folder."""
    if not is_plain_name(label) or len(os.fsencode(label)) > 200:
        raise UsageError(
            f"{where}: the label {label!r} cannot be a folder's name: a line is `path label`, "
            "the label without '/' and at most 200 bytes long"
        )


# ------------------------------------------------------------------ globs


def _matching(pattern: str) -> tuple[list[VideoSource], int]:
    """Files that match; the class is the folder's name where the pattern leaves the folder open (`videos/*/*.avi`)."""
    by_folder = glob.has_magic(os.path.dirname(pattern))
    matches = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(name)]
    found = [
        _source(Path(os.path.abspath(path)).parent.name if by_folder else UNLABELLED, path)
        for path in matches
        if is_video(path)
    ]
    return found, len(matches) - len(found)


# ------------------------------------------------------------------ refusing


def refuse_unusable(found: Iterable[VideoSource]) -> tuple[list[VideoSource], list[VideoProblem]]:
    """Parts the videos from those that would overwrite one another or whose name cannot be stored."""
    by_id: dict[tuple[str, str], set[Path]] = defaultdict(set)
    for source in found:
        by_id[source.class_name, source.video].add(source.path)
    videos, problems = [], []
    for (class_name, video), paths in sorted(by_id.items()):
        first, *others = sorted(paths)
        if others:
            names = " and ".join(str(path) for path in (first, *others))
            reason = f"two sources of one name: {names} would both be stored as {class_name}/{video}: rename one"
            problems.append(VideoProblem(class_name, video, first, reason))
        elif not _is_utf8(str(first)) or not _is_utf8(class_name):
            reason = "the path or label is not valid UTF-8: rename the file"
            problems.append(VideoProblem(class_name, video, first, reason))
        elif len(video.encode()) > _LONGEST_NAME:
            reason = f"the name has more than {_LONGEST_NAME} bytes, too many for a file name with .h5: rename it"
            problems.append(VideoProblem(class_name, video, first, reason))
        else:
            videos.append(VideoSource(class_name, video, first))
    return videos, problems


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
