"""Text onto pictures, in the font that comes with matplotlib, measured so that it can be made to fit.

Letters: H W pixels.
"""

import math
from bisect import bisect_left
from functools import lru_cache
from typing import Literal

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from pipelines.interface.wording import printable

Align = Literal["left", "center", "right"]
Colour = tuple[int, int, int]
_BELOW_BASELINE = 0.3  # of the size: room for letters that hang below the line


def draw_text(
    canvas: np.ndarray, x: float, baseline: float, text: str, size: float, colour: Colour, align: Align = "left",
    *, bold: bool = False,
) -> None:  # fmt: skip
    """Writes one line onto `canvas`; what lies outside it is cut off.

    Args:
        canvas: RGB uint8 [H, W, 3], changed in place.
        x: The left end, middle or right end of the text, as `align` says.
        baseline: Row that the letters stand on.
        text: Control characters are replaced.
        size: Pixels.
        colour: RGB.
        align: What of the text is at `x`.
        bold: Whether to use the bold font.
    """
    mask = _mask(printable(text), size, bold)
    height, width = mask.shape
    left = round(x - {"left": 0.0, "center": 0.5, "right": 1.0}[align] * width)
    top = round(baseline) - height + round(_BELOW_BASELINE * size)
    rows = slice(max(top, 0), max(top + height, 0))
    columns = slice(max(left, 0), max(left + width, 0))
    place = canvas[rows, columns]
    mask = mask[rows.start - top :, columns.start - left :][: place.shape[0], : place.shape[1], None]
    place[:] = np.rint(place + (np.array(colour) - place) * mask).astype(np.uint8)


def text_width(text: str, size: float, *, bold: bool = False) -> int:
    """The width in pixels at which `draw_text` writes it."""
    return _mask(printable(text), size, bold).shape[1]


def shortened(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """`text`, its middle left out as far as needed to be at most `width` pixels wide."""
    if text_width(text, size, bold=bold) <= width:
        return text

    def without_middle(kept: int) -> str:
        return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"

    kept = bisect_left(  # the place of the first that is too wide, which is one letter more
        range(1, len(text)), True, key=lambda count: text_width(without_middle(count), size, bold=bold) > width
    )
    return without_middle(kept)


@lru_cache(maxsize=512)
def _mask(text: str, size: float, bold: bool) -> np.ndarray:
    """How much of each pixel the text covers: float32 [H, W] in 0..1, read-only; H depends on the size alone."""
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf", size)
    below = round(_BELOW_BASELINE * size)
    picture = Image.new("L", (max(1, math.ceil(font.getlength(text))), round(1.1 * size) + below))
    ImageDraw.Draw(picture).text((0, picture.height - below), text, fill=255, font=font, anchor="ls")
    mask = np.asarray(picture, np.float32) / 255
    mask.setflags(write=False)
    return mask
