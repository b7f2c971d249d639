"""A flow field as a picture: the frame, the flow in colours with their key, its magnitude, and the two stored planes.

    frame          flow in colours   magnitude
    x as stored    y as stored       key of the colours

Everything shows the flow as it is stored, so that a bound too small (clipping) or too large (coarse steps) is visible.
Letters: H W pixels of a field or frame.
"""

from functools import cached_property

import matplotlib
import numpy as np

from pipelines.drawing.colour import flow_to_colour, wheel_key
from pipelines.drawing.text import Align, Colour, draw_text, shortened
from pipelines.storage.quantise import GREYS, LEVELS, MAX_LEVEL, NO_MOTION, dequantise

_SURFACE, _TEXT, _MUTED, _LINE = (255, 255, 255), (31, 35, 40), (89, 99, 110), (208, 213, 219)
_PANEL_SIDE = 340  # about what the longer side of a small video is enlarged to
_NARROWEST, _LOWEST = 320, 200  # of a cell, which holds captions and the key
_COLUMNS = 3
_WIDEST_WITH_SMALL_LETTERS = 460  # pixels of a cell; letters grow with cells that are wider


def motion_of_levels(bound: float) -> np.ndarray:
    """The flow in pixels that each level is shown as: `dequantise`, but `NO_MOTION` as 0."""
    values = np.arange(LEVELS)
    return np.where(values == NO_MOTION, np.float32(0), dequantise(values, bound))


class FlowPicture:
    """Draws the fields of one video, all in one layout and one scale.

    Args:
        width: Of the fields, W.
        height: H.
        bound: Pixels: stored flow is clipped to -bound..bound.
        max_flow: Pixels at which colours and magnitude are full.
        title: The first line.
        details: A second line: how the flow was made.
    """

    def __init__(self, width: int, height: int, bound: float, max_flow: float, title: str, details: str) -> None:
        self.width, self.height, self.bound, self.max_flow = width, height, bound, max_flow
        self.title, self.details = title, details
        self._enlargement = max(1, round(_PANEL_SIDE / max(width, height)))
        self._cell_width = max(width * self._enlargement, _NARROWEST)
        self._cell_height = max(height * self._enlargement, _LOWEST)
        self._unit = max(1.0, self._cell_width / _WIDEST_WITH_SMALL_LETTERS)  # how much larger letters and gaps are
        self._margin, self._legend = round(16 * self._unit), round(40 * self._unit)
        right, bottom = self._cell(2 * _COLUMNS - 1)
        self.size = _even(right + self._cell_width + self._margin), _even(bottom + self._cell_height + self._legend)
        """Width and height of the pictures, both even as video codecs want them."""

    def draw(self, frame: np.ndarray | None, field: np.ndarray, index: int, step: int = 1) -> np.ndarray:
        """Draws one field.

        Args:
            frame: RGB uint8 [H, W, 3]; None if it is not stored.
            field: Levels [2, H, W].
            index: The number of the frame.
            step: Frames to the one that the flow leads to.

        Returns:
            RGB uint8, of `size`.
        """
        canvas = self._background.copy()
        x, y = field
        grey = np.repeat(GREYS[field][..., None], 3, axis=-1)
        colours, magnitudes = self._tables
        panels = (frame, colours[x, y], magnitudes[x, y], grey[0], grey[1])
        captions = (
            f"Frame {index}" + ("" if frame is not None else " (not stored)"),
            f"Flow to frame {index + step}",
            "Magnitude",
            "x as stored: brighter is right",
            "y as stored: brighter is down",
        )
        for place, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
            left, top = self._cell(place)
            self._write(canvas, left, top - 7 * self._unit, caption, 13, _TEXT, bold=True)
            if panel is not None:
                self._paste(canvas, panel, left, top)
        return canvas

    def _cell(self, place: int) -> tuple[int, int]:
        """Left and top of a cell's panel, counted row by row; its caption stands above, its legend below."""
        row, column = divmod(place, _COLUMNS)
        left = self._margin + column * (self._cell_width + self._margin)
        first, caption = round(88 * self._unit), round(32 * self._unit)
        return left, first + row * (self._cell_height + self._legend + caption)

    # -------------------------------------------------------------- what all pictures have in common

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Colour of the flow and of its magnitude by stored x and y: RGB uint8 [LEVELS, LEVELS, 3] each."""
        motion = motion_of_levels(self.bound)
        flow = np.stack(np.meshgrid(motion, motion, indexing="ij"))
        levels = np.clip(np.hypot(*flow) / self.max_flow, 0, 1)
        return flow_to_colour(flow, self.max_flow), _magnitude_colours()[np.rint(255 * levels).astype(np.uint8)]

    @cached_property
    def _background(self) -> np.ndarray:
        width, height = self.size
        canvas = np.full((height, width, 3), _SURFACE, np.uint8)
        room = width - 2 * self._margin
        self._write(canvas, self._margin, 30 * self._unit, self.title, 16, _TEXT, bold=True, room=room)
        self._write(canvas, self._margin, 50 * self._unit, self.details, 12, _MUTED, room=room)
        for place in range(5):
            left, top = self._cell(place)
            self._paste(canvas, np.full((self.height, self.width, 3), _LINE, np.uint8), left, top)
        self._note(canvas, 0, f"{self.width}x{self.height} pixels")
        self._note(canvas, 1, "hue: direction; strength: speed; white: no motion")
        self._ramp(canvas, 2, _magnitude_colours(), ("0", _pixels(self.max_flow / 2), f"{_pixels(self.max_flow)} px"))
        greys = np.repeat(GREYS[:, None], 3, axis=1)
        ends = (f"0: -{_pixels(self.bound)} px", f"{NO_MOTION}: no motion", f"{MAX_LEVEL}: +{_pixels(self.bound)} px")
        self._ramp(canvas, 3, greys, ends)
        self._ramp(canvas, 4, greys, ends)
        self._key(canvas, 5)
        return canvas

    def _note(self, canvas: np.ndarray, place: int, text: str) -> None:
        left, top = self._cell(place)
        self._write(canvas, left, top + self._cell_height + 17 * self._unit, text, 11, _MUTED)

    def _ramp(self, canvas: np.ndarray, place: int, colours: np.ndarray, labels: tuple[str, str, str]) -> None:
        """A bar of `colours` [n, 3] below a cell, with the values at its ends and middle."""
        left, top = self._cell(place)
        top += self._cell_height + round(6 * self._unit)
        bottom = top + round(8 * self._unit)
        right = left + self._cell_width
        canvas[top:bottom, left:right] = colours[np.linspace(0, len(colours) - 1, right - left).round().astype(np.intp)]
        places: tuple[tuple[float, Align], ...] = ((left, "left"), ((left + right) / 2, "center"), (right, "right"))
        for label, (x, align) in zip(labels, places, strict=True):
            self._write(canvas, x, bottom + 14 * self._unit, label, 11, _MUTED, align)

    def _key(self, canvas: np.ndarray, place: int) -> None:
        """The colour wheel in the middle of a cell, and what its size means."""
        left, top = self._cell(place)
        self._write(canvas, left, top - 7 * self._unit, "Key of the flow's colours", 13, _TEXT, bold=True)
        diameter = round(min(self._cell_height - 44 * self._unit, 0.6 * self._cell_width))
        wheel, coverage = wheel_key(diameter)
        middle = left + self._cell_width // 2
        rows = slice(top + round(8 * self._unit), top + round(8 * self._unit) + diameter)
        columns = slice(middle - diameter // 2, middle - diameter // 2 + diameter)
        shown = canvas[rows, columns]
        shown[:] = np.rint(shown + (wheel.astype(float) - shown) * coverage[..., None]).astype(np.uint8)
        radius = f"{_pixels(self.max_flow)} px"
        across = (rows.start + rows.stop) // 2
        canvas[across, middle : columns.stop] = _TEXT
        self._write(canvas, columns.stop + 5 * self._unit, across + 4 * self._unit, radius, 12, _TEXT)
        below = rows.stop + 18 * self._unit
        self._write(canvas, middle, below, "motion from the center to there", 11, _MUTED, "center")
        self._write(canvas, middle, below + 15 * self._unit, f"darker: more than {radius}", 11, _MUTED, "center")

    # -------------------------------------------------------------- drawing

    def _paste(self, canvas: np.ndarray, panel: np.ndarray, left: int, top: int) -> None:
        """A panel [H, W, 3] into its cell: in the middle, enlarged by repeating pixels."""
        enlarged = panel.repeat(self._enlargement, axis=0).repeat(self._enlargement, axis=1)
        height, width = enlarged.shape[:2]
        top += (self._cell_height - height) // 2
        left += (self._cell_width - width) // 2
        canvas[top - 1 : top + height + 1, left - 1 : left + width + 1] = _LINE  # white flow needs an edge
        canvas[top : top + height, left : left + width] = enlarged

    def _write(
        self, canvas: np.ndarray, x: float, baseline: float, text: str, size: float, colour: Colour,
        align: Align = "left", *, bold: bool = False, room: int | None = None,
    ) -> None:  # fmt: skip
        size *= self._unit
        text = shortened(text, self._cell_width if room is None else room, size, bold=bold)
        draw_text(canvas, x, baseline, text, size, colour, align, bold=bold)


def _magnitude_colours() -> np.ndarray:
    """Black to light yellow, evenly brighter to the eye: RGB uint8 [256, 3]."""
    return matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3]


def _pixels(value: float) -> str:
    return f"{value:.3g}"


def _even(value: int) -> int:
    return value + value % 2
