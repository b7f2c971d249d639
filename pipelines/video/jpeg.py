"""The JPEGs that frames are stored as.

Letters: H W pixels.
"""

import cv2
import numpy as np

from pipelines.artifacts import JPEG_QUALITY
from pipelines.errors import VideoError


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
    """uint8 [bytes] to RGB uint8 [H, W, 3]; None for what is no JPEG."""
    try:
        picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    except cv2.error:  # of an empty or an absurdly large one
        return None
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def as_stored(picture: np.ndarray) -> np.ndarray:
    """The picture as it comes back once it has been stored: what networks are trained on."""
    decoded = decode_jpeg(encode_jpeg(picture))
    assert decoded is not None
    return decoded
