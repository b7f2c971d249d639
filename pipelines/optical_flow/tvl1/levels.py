"""The image pyramid's sizes, which every engine must agree on."""

_SMALLEST_SIDE = 16  # pixels; OpenCV's


def level_sizes(height: int, width: int, nscales: int, scale_step: float) -> list[tuple[int, int]]:
    """(height, width) of each level, the full size first.

    Each level is `scale_step` times the one before, rounded half to even. The pyramid ends before the first level with
    a side below 16 pixels; the full size always counts, however small.
    """
    sizes = [(height, width)]
    while len(sizes) < nscales:
        height, width = round(height * scale_step), round(width * scale_step)
        if min(height, width) < _SMALLEST_SIDE:
            break
        sizes.append((height, width))
    return sizes
