"""Animated WebP, which FFmpeg does not decode: read by Pillow and encoded losslessly for FFmpeg.

Letters: H W pixels.
"""

import os
import struct
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import IO

from pipelines.errors import VideoError
from pipelines.storage.jpeg import MOST_PIXELS

_IN_MEMORY = 1 << 26  # bytes of the video; a longer one goes to a temporary file
_HEAD = 30  # bytes up to the end of the size


def is_animated_webp(head: bytes) -> bool:
    """Whether a file with these first bytes is animated WebP."""
    is_extended = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) >= _HEAD
    return is_extended and bool(head[20] & 0x02)


def webp_as_matroska(path: Path) -> IO[bytes]:
    """The animation as FFV1 in Matroska, with its times; transparency is not kept. Raises `VideoError`."""
    import av
    from PIL import Image

    with open(path, "rb") as file:
        head = file.read(_HEAD)
    (length,) = struct.unpack_from("<I", head, 4)
    width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
    if width * height > MOST_PIXELS:
        raise VideoError(f"its pictures of {width}x{height} have more than {MOST_PIXELS} pixels: unsupported")
    if length + 8 > (size := os.path.getsize(path)):
        raise VideoError(f"truncated: its header says {length + 8} bytes, of which {size} are there")
    video: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  (whoever reads the video closes it)
    try:
        with Image.open(path, formats=["WEBP"]) as picture, av.open(video, "w", format="matroska") as container:
            stream = container.add_stream("ffv1", rate=1000)
            stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "bgr0"
            stream.codec_context.time_base = Fraction(1, 1000)
            for number in range(getattr(picture, "n_frames", 1)):
                picture.seek(number)
                frame = av.VideoFrame.from_image(picture.convert("RGB"))
                frame.pts, frame.time_base = picture.info.get("timestamp", 0), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except (Image.DecompressionBombError, OSError, EOFError, ValueError) as error:
        video.close()
        raise VideoError("its WebP animation cannot be decoded") from error
    except BaseException:
        video.close()
        raise
    video.seek(0)
    return video
