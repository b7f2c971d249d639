"""What files record about the programs and sources that they were made by and from."""

import functools
import hashlib
import importlib
from pathlib import Path
from typing import Any

from pipelines import __version__

_MODULES = {"av": "av", "h5py": "h5py", "numpy": "numpy", "opencv": "cv2", "torch": "torch"}


def made_by(schema: str, *libraries: str) -> dict[str, Any]:
    """`schema`, `stres_version` and `library_versions`, by the names of `_MODULES`."""
    return {"schema": schema, "stres_version": __version__, "library_versions": library_versions(*libraries)}


def library_versions(*libraries: str) -> dict[str, str]:
    """The versions of the libraries that decide what is in a file."""
    return {name: str(importlib.import_module(_MODULES[name]).__version__) for name in libraries}


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=64)
def file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """The SHA-256 of a file, which this process reads once as long as `size` and `mtime_ns` are what they were: a video
    may have hundreds of segments. Raises `OSError`."""
    return sha256_of(path)


def is_pictures(source: str) -> bool:
    """Whether an artifact's source is a series of pictures in a folder: `folder/frame*.jpg`."""
    return "*" in source.rpartition("/")[2]


def origin_of(source_sha256: str, flow_sha256: str) -> str:
    """What a video of the workspace was made from, in one text: the SHA-256 of its source, and after a `+` that of its
    flow's where that is another, as of imported pictures."""
    return f"{source_sha256}+{flow_sha256}" if flow_sha256 else source_sha256


def same_origin(before: str, now: str) -> bool:
    """Whether two origins are one; stres 0.1 kept none of imported flow."""
    return before in (now, now.partition("+")[0])
