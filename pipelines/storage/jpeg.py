"""The JPEGs that frames are stored as.

Letters: H W pixels.
"""

from typing import TYPE_CHECKING

from pipelines.errors import VideoError

if TYPE_CHECKING:
    import numpy as np

# Start-of-frame markers, which hold the size; C4, C8 and CC among these numbers mean other things (ITU-T T.81, B.1).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


def encode_jpeg(picture: "np.ndarray") -> "np.ndarray":
    """RGB uint8 [H, W, 3] to uint8 [bytes]. Raises `VideoError` for a picture too large for a JPEG."""
    import cv2

    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        height, width = picture.shape[:2]
        raise VideoError(f"frames of {width}x{height} cannot be stored as JPEG")
    return jpeg.reshape(-1)


def decode_jpeg(jpeg: "np.ndarray", long_side: int | None = None) -> "np.ndarray | None":
    """uint8 [bytes] to RGB uint8 [H, W, 3]; None for what is not a JPEG, or claims more than `MOST_PIXELS`.

    With `long_side` the picture is a half, a quarter or an eighth as large, in less time, where its longer side then
    still has as many pixels as that.
    """
    # OpenCV would try every format it knows, and allocate gigabytes if a header says so.
    size = jpeg_size(bytes(jpeg))
    if size is None or not 1 <= size[0] * size[1] <= MOST_PIXELS:
        return None
    fitting = (share for share in (8, 4, 2) if long_side is not None and max(size) >= share * long_side)
    return decode_picture(jpeg, next(fitting, 1))


def decode_picture(data: "np.ndarray", share: int = 1) -> "np.ndarray | None":
    """uint8 [bytes] of any format that OpenCV reads to RGB uint8 [H, W, 3], or a `share`-th of that (2, 4 or 8); None
    where it cannot."""
    import cv2

    whole, half, quarter = cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4
    modes = {1: whole, 2: half, 4: quarter, 8: cv2.IMREAD_REDUCED_COLOR_8}
    try:
        picture = cv2.imdecode(data, modes[share])
    except cv2.error:  # of an empty or an absurdly large one
        return None
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) by the header of a JPEG; None for what has none."""
    at = 2 if is_jpeg(data) else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG's do."""
    return data.startswith(b"\xff\xd8\xff")


def as_stored(picture: "np.ndarray") -> "np.ndarray":
    """The picture encoded and decoded again: what networks are trained on."""
    decoded = decode_jpeg(encode_jpeg(picture))
    assert decoded is not None
    return decoded


JPEG_QUALITY = 95  # the paper's frames are JPEGs too (paper.md 1.1)

MOST_PIXELS = 1 << 26  # of a picture: 8192x8192; 8K video has half as many
