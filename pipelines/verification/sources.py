"""Whether the video an artifact was made from is still what it was."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.verification.depth import Depth
from pipelines.video.sources import is_pictures


class Sources:
    """Looks at the sources of one video's artifacts, at each file once."""

    def __init__(self, depth: Depth) -> None:
        self.depth = depth
        self.absent = False
        """Whether a source is no longer there, and could not be compared."""
        self._sha256: dict[Path, str] = {}

    def change(self, attributes: Mapping[str, Any]) -> str:
        """How the source differs from what the artifact with these attributes was made from; "" where it does not, is
        not there, or is a series of pictures that was imported."""
        path = Path(str(attributes.get("source", "")))
        if not path.is_file():
            self.absent |= not is_pictures(str(path))
            return ""
        try:
            size = path.stat().st_size
            if size != attributes.get("source_bytes", size):
                return f"{path} has {size} bytes, where it had {attributes['source_bytes']}"
            if self.depth != "quick" and self._hash(path) != attributes.get("source_sha256"):
                return f"{path} has other content than it had (its SHA-256 differs)"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        return ""

    def _hash(self, path: Path) -> str:
        if path not in self._sha256:
            with path.open("rb") as file:
                self._sha256[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._sha256[path]
