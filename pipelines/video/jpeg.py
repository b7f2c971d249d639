"""The JPEGs that frames are stored as.

Letters: H W pixels.
"""

import cv2
import numpy as np

from pipelines.artifacts import JPEG_QUALITY, MOST_PIXELS
from pipelines.errors import VideoError

_HEAD = 1 << 16  # bytes; OpenCV's and FFmpeg's headers take a few hundred
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1


def encode_jpeg(picture: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] to uint8 [bytes]. Raises `VideoError` for a picture too large for a JPEG."""
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        height, width = picture.shape[:2]
        raise VideoError(f"frames of {width}x{height} cannot be stored as JPEG")
    return jpeg.reshape(-1)


def decode_jpeg(jpeg: np.ndarray) -> np.ndarray | None:
    """uint8 [bytes] to RGB uint8 [H, W, 3]; None for what is no JPEG, or one that claims to be larger than any here."""
    # OpenCV would look for every format it knows, and allocate gigabytes on a header's word.
    if not 1 <= _claimed_pixels(bytes(jpeg[:_HEAD])) <= MOST_PIXELS:
        return None
    try:
        picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    except cv2.error:  # of an empty or an absurdly large one
        return None
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _claimed_pixels(head: bytes) -> int:
    """H * W by the header of a JPEG; 0 for what has none."""
    at = 2 if head[:2] == b"\xff\xd8" else len(head)
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4])
        if marker in _START_OF_FRAME:
            return int.from_bytes(head[at + 5 : at + 7]) * int.from_bytes(head[at + 7 : at + 9])
        at += 2 + length
    return 0


def as_stored(picture: np.ndarray) -> np.ndarray:
    """The picture as it comes back once it has been stored: what networks are trained on."""
    decoded = decode_jpeg(encode_jpeg(picture))
    assert decoded is not None
    return decoded
