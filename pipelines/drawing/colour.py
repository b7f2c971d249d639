"""The colour wheel of optical flow: direction is hue, speed is saturation, rest is white.

After Baker, Scharstein, Lewis, Roth, Black and Szeliski, "A database and evaluation methodology for optical flow",
IJCV 2011: 55 hues, more of them where the eye tells more apart. Letters: H W pixels.
"""

import numpy as np

# From each pure colour to the next, the number of hues between: red, yellow, green, cyan, blue, magenta, red.
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
_STEPS = (15, 6, 4, 11, 13, 6)
HUES = sum(_STEPS)
_BEYOND = 0.75  # brightness of flow longer than the scale reaches, whose saturation is full already
_UNKNOWN = 0  # black


def colour_wheel() -> np.ndarray:
    """The hues in order of their angle, clockwise on the screen from motion to the right (red): float32 [55, 3].

    Components are 0..1 in whole 255ths, the moving one rounded down, as in the authors' program.
    """
    hues = []
    for index, steps in enumerate(_STEPS):
        start, end = np.array(_CORNERS[index]), np.array(_CORNERS[(index + 1) % len(_CORNERS)])
        share = np.floor(255 * np.arange(steps) / steps)[:, None] / 255
        # Falling components are 255 minus the floor, not the floor of the difference.
        hues.append(start + (end - start) * share)
    return (np.concatenate(hues) / 255).astype(np.float32)


def flow_to_colour(flow: np.ndarray, max_flow: float) -> np.ndarray:
    """Flow as colours: saturation grows linearly from white (no motion) to full; longer flow is darker by a quarter.

    Args:
        flow: Pixels, x then y, float [..., 2, H, W]; unknown flow (NaN, infinite) becomes black.
        max_flow: Pixels at which saturation is full.

    Returns:
        RGB uint8 [..., H, W, 3].

    Raises:
        ValueError: `max_flow` is not above 0.
    """
    if not 0 < max_flow < float("inf"):
        raise ValueError(f"max_flow must be a positive number of pixels, not {max_flow}")
    flow = np.asarray(flow, np.float64)
    known = np.isfinite(flow).all(axis=-3)
    x, y = np.moveaxis(np.where(known[..., None, :, :], flow, 0.0) / max_flow, -3, 0)
    length = np.hypot(x, y)[..., None]
    wheel = colour_wheel()
    y = y + 0.0  # no negative zero, which would be at the far side of the step at "right"
    # Between neighbouring hues in proportion. The full turn spans the 54 intervals from the first hue to the last, as
    # in the authors' program, so that pictures agree with those of others; it leaves a step of one hue between motion
    # slightly below and above "right".
    place = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (HUES - 1)
    before = np.floor(place).astype(np.intp)
    share = (place - before)[..., None]
    hue = (1 - share) * wheel[before] + share * wheel[(before + 1) % HUES]
    colour = np.where(length <= 1, 1 - length * (1 - hue), _BEYOND * hue)
    return np.where(known[..., None], np.floor(255 * colour), _UNKNOWN).astype(np.uint8)


def wheel_key(diameter: int) -> tuple[np.ndarray, np.ndarray]:
    """The key to the colours: a disc with each motion's colour at the place that it leads to from the center.

    Returns:
        RGB uint8 [diameter, diameter, 3], the rim at full saturation; and the disc's coverage of each pixel, float
        [diameter, diameter] in 0..1.
    """
    radius = diameter / 2
    along = (np.arange(diameter) + 0.5 - radius) / (radius - 0.5)
    flow = np.stack(np.meshgrid(along, along))
    length = np.hypot(*flow)
    coverage = np.clip((1 - length) * radius + 0.5, 0, 1)
    return flow_to_colour(flow / np.maximum(length, 1), 1 + 1e-9), coverage  # rounding must not darken the rim
