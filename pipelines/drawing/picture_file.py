"""Pictures and videos of flow as files, each of which notes the video that it shows."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from pipelines.interface.wording import numbered
from pipelines.storage.atomic import write_bytes
from pipelines.video.encoding import comment_of

_KEY = "Source"  # of a PNG's chunk of text


def write_png(path: Path, picture: np.ndarray, source: str) -> None:
    """Writes RGB uint8 [H, W, 3], with a note of the `source`. Raises `StorageError`."""
    content, notes = io.BytesIO(), PngImagePlugin.PngInfo()
    notes.add_text(_KEY, source)
    Image.fromarray(picture).save(content, "png", pnginfo=notes)
    write_bytes(path, content.getvalue())


def free_path(place: Path, ending: str, source: str) -> Path:
    """`place` with `ending` added, with a number in between if that file exists and shows another video."""
    paths = (place.with_name(f"{name}{ending}") for name in numbered(place.name))
    return next(path for path in paths if _source_noted(path) in ("", source))


def _source_noted(path: Path) -> str:
    """The video that a picture or video shows; "" if the file is absent or does not say."""
    if path.suffix != ".png":
        return comment_of(path) if path.exists() else ""
    try:
        with Image.open(path) as picture:
            return str(picture.info.get(_KEY, ""))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # absent, or no PNG
        return ""
