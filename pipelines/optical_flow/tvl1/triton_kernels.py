# mypy: ignore-errors
# ruff: noqa: RUF005 (Triton knows no starred tuples)
"""The GPU kernels of TV-L1, each for many pairs at once. What they compute is defined in reference.py.

Letters: N pairs the buffers hold, H W pixels of a level, S floats from row to row (the stride, W rounded up).

A field is a plane [H, S] of float32. Of the flow u and of the dual variable p there are two buffers, [2, N, 2, H, S]
and [2, N, 4, H, S]: an iteration reads one and writes the other, as a pixel's update needs its neighbours' old values.
Pairs stop at different times, so `u_at` and `p_at` [N] say in which of the two each pair is. The columns from W to S
are there for aligned access; they hold what has no meaning and reaches no other.

Everything about a pair that decides when it stops lies in [N] vectors on the device: `done`, `count` (iterations of
this warp) and `credit` (mode cuda). `active` lists the pairs that were not done when it was last made.
"""

import inspect

import triton
import triton.language as tl

# Triton compiles anew for an integer that is 1 or a multiple of 16, unless told that it does not matter. It does for
# the stride, which lets values be loaded 16 bytes at a time and is such a multiple always. So there is one compilation
# for all sizes of frames and numbers of pairs.
_VARYING = ("pairs", "capacity", "height", "width", "tiles_x", "tiles")
_VARYING_IN_RESIZE = ("source_plane", "source_stride", "target_height", "target_width", "tiles_x")


def _for_all_sizes(kernel):
    names = _VARYING_IN_RESIZE if kernel.__name__ == "resize" else _VARYING
    return triton.jit(
        kernel, do_not_specialize=[name for name in names if name in inspect.signature(kernel).parameters]
    )


# ------------------------------------------------------------------ the iteration


@_for_all_sizes
def iterate(
    data, u, p, changes, u_at, p_at, done, active, active_count,
    pairs, height, width, stride, tiles_x, tiles, limit, theta, dual_step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One iteration of the active pairs: u, p, and of each tile the sum of the squared changes of u.

    A fixed number of programs share the tiles, so that a launch costs little once most pairs are done. Neighbouring
    tiles are worked on together and find their common pixels in the cache.
    """
    plane = (height * stride).to(tl.int64)
    for work in range(tl.program_id(0), tl.load(active_count) * tiles, tl.num_programs(0)):
        pair = tl.load(active + work // tiles).to(tl.int64)
        if tl.load(done + pair) == 0:
            tile = work % tiles
            from_u = tl.load(u_at + pair)
            from_p = tl.load(p_at + pair)
            change = _iterate_tile(
                data + pair * 4 * plane,
                u + (from_u * pairs + pair) * 2 * plane, u + ((1 - from_u) * pairs + pair) * 2 * plane,
                p + (from_p * pairs + pair) * 4 * plane, p + ((1 - from_p) * pairs + pair) * 4 * plane,
                plane, tile // tiles_x * ROWS, tile % tiles_x * COLUMNS,
                height, width, stride, limit, theta, dual_step, ROWS, COLUMNS,
            )  # fmt: skip
            tl.store(changes + pair * tiles + tile, change)


@triton.jit
def _iterate_tile(
    data, u, new_u, p, new_p, plane, top, left, height, width, stride, limit, theta, dual_step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """u and p of one tile. Its pixels' dual needs the new flow right of and below them, which is computed anew here."""
    x = left + tl.arange(0, COLUMNS)[None, :]
    y = top + tl.arange(0, ROWS)[:, None]
    at = y * stride + x
    inside = (y < height) & (x < stride)
    has_left = inside & (x > 0)
    has_above = inside & (y > 0)
    has_right = inside & (x + 1 < width)
    has_below = (y + 1 < height) & (x < stride)

    p11, p12, p21, p22 = _load4(p, plane, at, inside)
    left11 = tl.load(p + at - 1, has_left, 0.0)
    left21 = tl.load(p + 2 * plane + at - 1, has_left, 0.0)
    above12 = tl.load(p + plane + at - stride, has_above, 0.0)
    above22 = tl.load(p + 3 * plane + at - stride, has_above, 0.0)
    before1 = tl.load(u + at, inside, 0.0)
    before2 = tl.load(u + plane + at, inside, 0.0)
    divergence1 = (p11 - left11) + (p12 - above12)
    divergence2 = (p21 - left21) + (p22 - above22)
    u1, u2 = _new_flow(data, plane, at, inside, before1, before2, divergence1, divergence2, limit, theta)

    right11, right12, right21, right22 = _load4(p, plane, at + 1, has_right)
    right_above12 = tl.load(p + plane + at + 1 - stride, has_right & (y > 0), 0.0)
    right_above22 = tl.load(p + 3 * plane + at + 1 - stride, has_right & (y > 0), 0.0)
    right1 = tl.load(u + at + 1, has_right, 0.0)
    right2 = tl.load(u + plane + at + 1, has_right, 0.0)
    divergence1 = (right11 - p11) + (right12 - right_above12)
    divergence2 = (right21 - p21) + (right22 - right_above22)
    right1, right2 = _new_flow(data, plane, at + 1, has_right, right1, right2, divergence1, divergence2, limit, theta)

    below11, below12, below21, below22 = _load4(p, plane, at + stride, has_below)
    below_left11 = tl.load(p + at + stride - 1, has_below & (x > 0), 0.0)
    below_left21 = tl.load(p + 2 * plane + at + stride - 1, has_below & (x > 0), 0.0)
    below1 = tl.load(u + at + stride, has_below, 0.0)
    below2 = tl.load(u + plane + at + stride, has_below, 0.0)
    divergence1 = (below11 - below_left11) + (below12 - p12)
    divergence2 = (below21 - below_left21) + (below22 - p22)
    below1, below2 = _new_flow(
        data, plane, at + stride, has_below, below1, below2, divergence1, divergence2, limit, theta
    )

    slope11, slope12 = tl.where(has_right, right1 - u1, 0.0), tl.where(has_below, below1 - u1, 0.0)
    slope21, slope22 = tl.where(has_right, right2 - u2, 0.0), tl.where(has_below, below2 - u2, 0.0)
    # p = (p + tau/theta grad u) / (1 + tau/theta |grad u|), Zach eq. 11. The two divisions share one reciprocal.
    norm1 = 1.0 + dual_step * tl.sqrt(slope11 * slope11 + slope12 * slope12)
    norm2 = 1.0 + dual_step * tl.sqrt(slope21 * slope21 + slope22 * slope22)
    reciprocal = 1.0 / (norm1 * norm2)
    scale1, scale2 = reciprocal * norm2, reciprocal * norm1

    tl.store(new_u + at, u1, inside)
    tl.store(new_u + plane + at, u2, inside)
    tl.store(new_p + at, (p11 + dual_step * slope11) * scale1, inside)
    tl.store(new_p + plane + at, (p12 + dual_step * slope12) * scale1, inside)
    tl.store(new_p + 2 * plane + at, (p21 + dual_step * slope21) * scale2, inside)
    tl.store(new_p + 3 * plane + at, (p22 + dual_step * slope22) * scale2, inside)

    change = (u1 - before1) * (u1 - before1) + (u2 - before2) * (u2 - before2)
    return tl.sum(tl.sum(tl.where(inside & (x < width), change, 0.0), 1), 0)


@triton.jit
def _new_flow(data, plane, at, mask, u1, u2, divergence1, divergence2, limit, theta):
    """u = v + theta div p (Zach eq. 9), where v is the data term's minimum (eq. 15), one clamped division."""
    grad_x, grad_y, inverse_norm, residual = _load4(data, plane, at, mask)
    rho = residual + (grad_x * u1 + grad_y * u2)
    step = tl.minimum(tl.maximum(-rho * inverse_norm, -limit), limit)
    return (u1 + step * grad_x) + theta * divergence1, (u2 + step * grad_y) + theta * divergence2


@triton.jit
def _load4(planes, plane, at, mask):
    return (
        tl.load(planes + at, mask, 0.0),
        tl.load(planes + plane + at, mask, 0.0),
        tl.load(planes + 2 * plane + at, mask, 0.0),
        tl.load(planes + 3 * plane + at, mask, 0.0),
    )


# ------------------------------------------------------------------ when to stop


@_for_all_sizes
def begin_warp(done, count, credit, active, active_count, pairs, capacity, BLOCK: tl.constexpr):
    """Only the first `pairs` of the buffers' pairs exist; none of them is done."""
    index = tl.arange(0, BLOCK)
    held = index < capacity
    tl.store(done + index, (index >= pairs).to(tl.int32), held)
    tl.store(count + index, tl.zeros([BLOCK], tl.int32), held)
    tl.store(credit + index, tl.zeros([BLOCK], tl.float64), held)
    tl.store(active + index, index, held)
    tl.store(active_count, pairs)


@_for_all_sizes
def finish_iteration(
    changes, threshold, done, count, credit, u_at, p_at, tiles, LIKE_CUDA: tl.constexpr, BLOCK: tl.constexpr
):
    """Turns a pair to the buffers just written, and decides from its change whether it is done.

    The sum is in double precision and in a fixed order, so that it is the same in whatever order tiles were computed.
    """
    pair = tl.program_id(0)
    if tl.load(done + pair) == 0:
        tl.store(u_at + pair, 1 - tl.load(u_at + pair))
        tl.store(p_at + pair, 1 - tl.load(p_at + pair))
        sums = tl.zeros([BLOCK], tl.float64)
        for start in range(0, tiles, BLOCK):
            index = start + tl.arange(0, BLOCK)
            sums += tl.load(changes + pair.to(tl.int64) * tiles + index, index < tiles, 0.0).to(tl.float64)
        change = tl.sum(sums, 0)
        bound = tl.load(threshold)
        if LIKE_CUDA:
            # The larger the change was, the longer the next look waits.
            n = tl.load(count + pair)
            left = tl.load(credit + pair)
            look = (bound > 0) & (n % 2 == 1) & (left < bound)
            tl.store(done + pair, (look & (change <= bound)).to(tl.int32))
            tl.store(credit + pair, tl.where(look, change, left - bound))
            tl.store(count + pair, n + 1)
        else:
            tl.store(done + pair, (change <= bound).to(tl.int32))


@_for_all_sizes
def list_active(done, active, active_count, capacity, BLOCK: tl.constexpr):
    """The pairs that are not done, in order."""
    index = tl.arange(0, BLOCK)
    going = (tl.load(done + index, index < capacity, 1) == 0).to(tl.int32)
    tl.store(active + tl.cumsum(going, 0) - 1, index, going == 1)
    tl.store(active_count, tl.sum(going, 0))


# ------------------------------------------------------------------ median filter


@_for_all_sizes
def median_filter(
    u, u_at, done, active, active_count, pairs, height, width, stride, tiles_x, tiles,
    SORT: tl.constexpr, SORT_LENGTH: tl.constexpr, SELECT: tl.constexpr, SELECT_LENGTH: tl.constexpr,
    MEDIAN_AT: tl.constexpr, SIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Filters both components of the active pairs' flow into its other buffer, the border repeated outwards."""
    plane = (height * stride).to(tl.int64)
    for work in range(tl.program_id(0), tl.load(active_count) * tiles * 2, tl.num_programs(0)):
        pair = tl.load(active + work // (tiles * 2)).to(tl.int64)
        if tl.load(done + pair) == 0:
            component = work // tiles % 2
            tile = work % tiles
            source = tl.load(u_at + pair)
            before = u + ((source * pairs + pair) * 2 + component) * plane
            after = u + (((1 - source) * pairs + pair) * 2 + component) * plane
            x = tile % tiles_x * COLUMNS + tl.arange(0, COLUMNS)[None, :]
            y = tile // tiles_x * ROWS + tl.arange(0, ROWS)[:, None]
            columns = ()
            for i in tl.static_range(SIDE):
                column = ()
                for j in tl.static_range(SIDE):
                    near_x = tl.minimum(tl.maximum(x + i - SIDE // 2, 0), width - 1)
                    near_y = tl.minimum(tl.maximum(y + j - SIDE // 2, 0), height - 1)
                    column = column + (tl.load(before + near_y * stride + near_x),)
                columns = columns + _exchanged(column, SORT, SORT_LENGTH)
            lines = ()  # value i of sorted column j is number SIDE * i + j
            for i in tl.static_range(SIDE):
                for j in tl.static_range(SIDE):
                    lines = lines + (columns[SIDE * j + i],)
            lines = _exchanged(lines, SELECT, SELECT_LENGTH)
            tl.store(after + y * stride + x, lines[MEDIAN_AT], (y < height) & (x < width))


@_for_all_sizes
def turn_flow(u_at, done, capacity, BLOCK: tl.constexpr):
    """To the buffer that the median filter has written."""
    index = tl.arange(0, BLOCK)
    at = tl.load(u_at + index, index < capacity, 0)
    going = tl.load(done + index, index < capacity, 1) == 0
    tl.store(u_at + index, 1 - at, going & (index < capacity))


@triton.jit
def _exchanged(values, NETWORK: tl.constexpr, LENGTH: tl.constexpr):
    """Carries out a network; the compiler leaves out what its result does not depend on."""
    for k in tl.static_range(LENGTH):
        smaller = tl.minimum(values[NETWORK[k][0]], values[NETWORK[k][1]])
        larger = tl.maximum(values[NETWORK[k][0]], values[NETWORK[k][1]])
        values = values[: NETWORK[k][0]] + (smaller,) + values[NETWORK[k][0] + 1 :]
        values = values[: NETWORK[k][1]] + (larger,) + values[NETWORK[k][1] + 1 :]
    return values


# ------------------------------------------------------------------ one warp's data


@_for_all_sizes
def image_and_gradient(image, planes, height, width, stride, tiles_x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[N, H, S] to [N, 3, H, S]: the image and its centered gradient, the border repeated outwards."""
    plane = (height * stride).to(tl.int64)
    pair = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) % tiles_x * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    y = tl.program_id(0) // tiles_x * ROWS + tl.arange(0, ROWS)[:, None]
    inside = (y < height) & (x < width)
    image += pair * plane
    planes += pair * 3 * plane
    at = y * stride + x
    row = y * stride
    before = tl.load(image + row + tl.maximum(x - 1, 0), inside)
    after = tl.load(image + row + tl.minimum(x + 1, width - 1), inside)
    above = tl.load(image + tl.maximum(y - 1, 0) * stride + x, inside)
    below = tl.load(image + tl.minimum(y + 1, height - 1) * stride + x, inside)
    tl.store(planes + at, tl.load(image + at, inside), inside)
    tl.store(planes + plane + at, 0.5 * (after - before), inside)
    tl.store(planes + 2 * plane + at, 0.5 * (below - above), inside)


@_for_all_sizes
def linearise(
    planes, image0, u, u_at, data, pairs, height, width, stride, tiles_x,
    LIKE_CUDA: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`data` [N, 4, H, S]: gradient at (x, y) + u, reciprocal of its squared norm (0 where that is 0), residual.

    Bicubic. Pixels outside count as 0, or, LIKE_CUDA, as the nearest inside, with the weights' sum divided out.
    """
    plane = (height * stride).to(tl.int64)
    pair = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) % tiles_x * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    y = tl.program_id(0) // tiles_x * ROWS + tl.arange(0, ROWS)[:, None]
    inside = (y < height) & (x < width)
    at = y * stride + x
    planes += pair * 3 * plane
    u += (tl.load(u_at + pair) * pairs + pair) * 2 * plane
    data += pair * 4 * plane
    u1 = tl.load(u + at, inside, 0.0)
    u2 = tl.load(u + plane + at, inside, 0.0)
    position_x = x.to(tl.float32) + u1
    position_y = y.to(tl.float32) + u2
    floor_x, floor_y = tl.floor(position_x), tl.floor(position_y)
    left, top = floor_x.to(tl.int32) - 1, floor_y.to(tl.int32) - 1
    weights_x = _cubic_weights(position_x - floor_x, LIKE_CUDA)
    weights_y = _cubic_weights(position_y - floor_y, LIKE_CUDA)
    value = tl.zeros([ROWS, COLUMNS], tl.float32)
    grad_x = tl.zeros([ROWS, COLUMNS], tl.float32)
    grad_y = tl.zeros([ROWS, COLUMNS], tl.float32)
    for j in tl.static_range(4):
        for i in tl.static_range(4):
            weight = weights_y[j] * weights_x[i]
            tap_x, tap_y = left + i, top + j
            known = inside
            if LIKE_CUDA:
                tap_x = tl.minimum(tl.maximum(tap_x, 0), width - 1)
                tap_y = tl.minimum(tl.maximum(tap_y, 0), height - 1)
            else:
                known = inside & (tap_x >= 0) & (tap_x < width) & (tap_y >= 0) & (tap_y < height)
            tap = tap_y * stride + tap_x
            value += weight * tl.load(planes + tap, known, 0.0)
            grad_x += weight * tl.load(planes + plane + tap, known, 0.0)
            grad_y += weight * tl.load(planes + 2 * plane + tap, known, 0.0)
    if LIKE_CUDA:
        total = ((weights_x[0] + weights_x[1]) + weights_x[2]) + weights_x[3]
        total *= ((weights_y[0] + weights_y[1]) + weights_y[2]) + weights_y[3]
        value, grad_x, grad_y = value / total, grad_x / total, grad_y / total
    norm = grad_x * grad_x + grad_y * grad_y
    residual = value - (grad_x * u1 + grad_y * u2) - tl.load(image0 + pair * plane + at, inside, 0.0)
    stored = (y < height) & (x < stride)
    tl.store(data + at, grad_x, stored)
    tl.store(data + plane + at, grad_y, stored)
    tl.store(data + 2 * plane + at, tl.where(norm > 0, 1.0 / tl.maximum(norm, 1e-30), 0.0), stored)
    tl.store(data + 3 * plane + at, residual, stored)


@triton.jit
def _cubic_weights(f, LIKE_CUDA: tl.constexpr):
    """Keys' cubic kernel for the pixels at -1, 0, 1, 2 of a point at f in 0..1."""
    A: tl.constexpr = -0.5 if LIKE_CUDA else -0.75
    return _far(1.0 + f, A), _near(f, A), _near(1.0 - f, A), _far(2.0 - f, A)


@triton.jit
def _near(d, A: tl.constexpr):
    return ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0


@triton.jit
def _far(d, A: tl.constexpr):
    return ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A


# ------------------------------------------------------------------ from level to level


@_for_all_sizes
def resize(
    source, target, source_plane, source_stride, target_plane, target_height, target_width, target_stride, tiles_x,
    low_x, high_x, weight_x, low_y, high_y, weight_y, factor,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Bilinear, times `factor`, one plane a program of the grid's second axis; the samples are given by tables."""
    k = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) % tiles_x * COLUMNS + tl.arange(0, COLUMNS)
    y = tl.program_id(0) // tiles_x * ROWS + tl.arange(0, ROWS)
    has_x, has_y = x < target_width, y < target_height
    left, right = tl.load(low_x + x, has_x, 0)[None, :], tl.load(high_x + x, has_x, 0)[None, :]
    above, below = tl.load(low_y + y, has_y, 0)[:, None], tl.load(high_y + y, has_y, 0)[:, None]
    along, down = tl.load(weight_x + x, has_x, 0.0)[None, :], tl.load(weight_y + y, has_y, 0.0)[:, None]
    inside = has_y[:, None] & has_x[None, :]
    source += k * source_plane
    above, below = above * source_stride, below * source_stride
    upper = tl.load(source + above + left, inside) * (1.0 - along) + tl.load(source + above + right, inside) * along
    lower = tl.load(source + below + left, inside) * (1.0 - along) + tl.load(source + below + right, inside) * along
    value = (upper * (1.0 - down) + lower * down) * factor
    tl.store(target + k * target_plane + y[:, None] * target_stride + x[None, :], value, inside)


@_for_all_sizes
def collect_flow(u, u_at, flow, pairs, height, width, stride, tiles_x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The pairs' flow from whichever buffer it is in: to [N, 2, H, W], without the stride's columns."""
    k = tl.program_id(1).to(tl.int64)
    x = tl.program_id(0) % tiles_x * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    y = tl.program_id(0) // tiles_x * ROWS + tl.arange(0, ROWS)[:, None]
    inside = (y < height) & (x < width)
    source = tl.load(u_at + k // 2)
    plane = (height * stride).to(tl.int64)
    value = tl.load(u + (source * pairs * 2 + k) * plane + y * stride + x, inside)
    tl.store(flow + k * (height * width) + y * width + x, value, inside)
