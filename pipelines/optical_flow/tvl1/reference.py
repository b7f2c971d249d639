"""TV-L1 in plain PyTorch: the definition that the fast engines are compared with. On any device, one pair at a time.

C. Zach, T. Pock, H. Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007; J. Sánchez Pérez,
E. Meinhardt-Llopis, G. Facciolo, "TV-L1 optical flow estimation", IPOL 2013. Everything those leave open (borders,
pyramid, interpolation, when to stop) is as in OpenCV's two classes, `mode` saying which; docs/tvl1.md lists it.

Letters: N pairs, H W pixels of a level, K planes. The flow is u [2, H, W], x then y; the dual variable p [2, 2, H, W]
holds for each of them its x and its y part.
"""

import math

import torch
from torch.nn.functional import pad

from pipelines.optical_flow.tvl1.parameters import TVL1Parameters, level_sizes


@torch.no_grad()
def compute_flow(
    frame0: torch.Tensor,
    frame1: torch.Tensor,
    parameters: TVL1Parameters,
    *,
    dtype: torch.dtype = torch.float32,
    counts: list[int] | None = None,
) -> torch.Tensor:
    """uint8 [N, H, W] twice to `dtype` [N, 2, H, W]; float64 shows what rounding does to the other engines.

    `counts` gets how many iterations each warp took: pair by pair, and of each pair from the coarsest level on.
    """
    counts = [] if counts is None else counts
    pairs = zip(frame0.to(dtype), frame1.to(dtype), strict=True)
    return torch.stack([_pair_flow(before, after, parameters, counts) for before, after in pairs])


def _pair_flow(
    frame0: torch.Tensor, frame1: torch.Tensor, parameters: TVL1Parameters, counts: list[int]
) -> torch.Tensor:
    """From the coarsest level, where the flow starts at zero, to the full size."""
    pyramid = image_pyramid(torch.stack([frame0, frame1]), parameters)
    flow = frame0.new_zeros((2, *pyramid[-1].shape[1:]))
    for image0, image1 in reversed(pyramid):
        if flow.shape[1:] != image0.shape:
            flow = enlarge(flow, image0.shape, parameters)
        flow = _level_flow(image0, image1, flow, parameters, counts)
    return flow


def _level_flow(
    image0: torch.Tensor, image1: torch.Tensor, u: torch.Tensor, parameters: TVL1Parameters, counts: list[int]
) -> torch.Tensor:
    """Improves the flow of one level. The dual variable is carried from warp to warp."""
    planes = torch.cat([image1[None], centered_gradient(image1)])
    p = u.new_zeros((2, 2, *image0.shape))
    solve = _solve_as_cuda_class if parameters.mode == "cuda" else _solve_as_cpu_class
    for _ in range(parameters.warps):
        warped, *gradient = _warp(planes, u, parameters)
        grad = torch.stack(gradient)
        residual = warped - (grad * u).sum(0) - image0  # of the linearised brightness constancy, less its part in u
        u, p, count = solve(grad, residual, u, p, parameters)
        counts.append(count)
    return u


# ------------------------------------------------------------------ one warp


def _solve_as_cpu_class(
    grad: torch.Tensor, residual: torch.Tensor, u: torch.Tensor, p: torch.Tensor, parameters: TVL1Parameters
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Iterations in rounds that start with a median filter, until the flow hardly changes."""
    threshold = parameters.epsilon**2 * residual.numel()
    change, count = math.inf, 0
    for _ in range(parameters.outer_iterations):
        if change <= threshold:
            break
        u = _median(u, parameters.median_filtering)
        for _ in range(parameters.inner_iterations):
            u, p, change = _iterate(grad, residual, u, p, parameters)
            count += 1
            if change <= threshold:
                break
    return u, p, count


def _solve_as_cuda_class(
    grad: torch.Tensor, residual: torch.Tensor, u: torch.Tensor, p: torch.Tensor, parameters: TVL1Parameters
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Iterations whose change is checked now and then: the larger it was, the later the next check."""
    threshold = parameters.epsilon**2 * residual.numel()
    credit, n = 0.0, 0  # credit: the last change seen, lowered by the threshold at every iteration since
    for n in range(parameters.outer_iterations * parameters.inner_iterations):
        look = threshold > 0 and n % 2 == 1 and credit < threshold
        u, p, change = _iterate(grad, residual, u, p, parameters)
        if look and change <= threshold:
            break
        credit = change if look else credit - threshold
    return u, p, n + 1


def _iterate(
    grad: torch.Tensor, residual: torch.Tensor, u: torch.Tensor, p: torch.Tensor, parameters: TVL1Parameters
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """One iteration; returns u, p and the sum over the pixels of the squared change of u."""
    # The data term's minimum (Zach eq. 15): its three cases are one clamped division.
    limit = parameters.lambda_ * parameters.theta
    norm = (grad * grad).sum(0)
    rho = residual + (grad * u).sum(0)
    v = u + torch.where(norm > 0, (-rho / norm.clamp(min=1e-30)).clamp(-limit, limit), 0) * grad
    # The smoothness term (Zach eq. 9-11), by one step of its dual.
    previous = u
    u = v + parameters.theta * _divergence(p)
    step = parameters.tau / parameters.theta
    slope = _forward_gradient(u)
    p = (p + step * slope) / (1 + step * slope.pow(2).sum(1, keepdim=True).sqrt())
    return u, p, float((u - previous).double().pow(2).sum())


def _divergence(p: torch.Tensor) -> torch.Tensor:
    """Backward differences, the missing neighbour 0: [2, 2, H, W] to [2, H, W]."""
    along_x, along_y = p[:, 0], p[:, 1]
    return along_x - pad(along_x, (1, 0))[..., :-1] + (along_y - pad(along_y, (0, 0, 1, 0))[..., :-1, :])


def _forward_gradient(u: torch.Tensor) -> torch.Tensor:
    """Forward differences, 0 in the last column or row: [2, H, W] to [2, 2, H, W]."""
    return torch.stack([pad(u.diff(dim=-1), (0, 1)), pad(u.diff(dim=-2), (0, 0, 0, 1))], dim=1)


def _median(u: torch.Tensor, side: int) -> torch.Tensor:
    """Of each plane alone, its border repeated outwards."""
    if side == 1:
        return u
    around = pad(u, [side // 2] * 4, mode="replicate")
    return around.unfold(-2, side, 1).unfold(-2, side, 1).flatten(-2).median(-1).values


# ------------------------------------------------------------------ pyramid


def image_pyramid(images: torch.Tensor, parameters: TVL1Parameters) -> list[torch.Tensor]:
    """[K, H, W] at every level, the full size first; no smoothing anywhere."""
    height, width = images.shape[1:]
    sizes = level_sizes(height, width, parameters.nscales, parameters.scale_step)
    scale = 1 / parameters.scale_step
    pyramid = [images]
    for size in sizes[1:]:
        pyramid.append(_resize(pyramid[-1], size, (scale, scale), parameters.mode))
    return pyramid


def enlarge(flow: torch.Tensor, size: torch.Size, parameters: TVL1Parameters) -> torch.Tensor:
    """Flow [K, H, W] on the next finer level: sampled by the ratio of sizes, values scaled by the nominal step."""
    ratios = (flow.shape[1] / size[0], flow.shape[2] / size[1])
    return _resize(flow, (size[0], size[1]), ratios, parameters.mode) * (1 / parameters.scale_step)


def _resize(planes: torch.Tensor, size: tuple[int, int], scales: tuple[float, float], mode: str) -> torch.Tensor:
    """Bilinear, [K, H, W] to [K, *size]; `scales` are source pixels per target pixel."""
    low, high, weight = (t.to(planes.device) for t in resize_samples(planes.shape[2], size[1], scales[1], mode))
    weight = weight.to(planes.dtype)
    planes = planes[..., low] * (1 - weight) + planes[..., high] * weight
    low, high, weight = (t.to(planes.device) for t in resize_samples(planes.shape[1], size[0], scales[0], mode))
    weight = weight.to(planes.dtype)[:, None]
    return planes[..., low, :] * (1 - weight) + planes[..., high, :] * weight


def resize_samples(
    source: int, target: int, scale: float, mode: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each target pixel along one axis: the two source pixels, and the weight of the second.

    Mode cpu aligns the pixels' areas, mode cuda their first centers: its levels drift by up to .1 pixel each.
    """
    index = torch.arange(target, dtype=torch.float64)
    position = (index * scale if mode == "cuda" else (index + 0.5) * scale - 0.5).float()
    low = position.floor()
    weight = torch.where((low < 0) | (low >= source - 1), 0, position - low)
    low = low.long().clamp(0, source - 1)
    return low, (low + 1).clamp(max=source - 1), weight


# ------------------------------------------------------------------ gradient and warp


def centered_gradient(image: torch.Tensor) -> torch.Tensor:
    """Half the difference of the neighbours, the border repeated outwards: [..., H, W] to [2, ..., H, W], x then y."""
    around = pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    along_x = around[..., 1:-1, 2:] - around[..., 1:-1, :-2]
    along_y = around[..., 2:, 1:-1] - around[..., :-2, 1:-1]
    return 0.5 * torch.stack([along_x, along_y])


def _warp(planes: torch.Tensor, u: torch.Tensor, parameters: TVL1Parameters) -> torch.Tensor:
    """Bicubic samples of [K, H, W] at (x, y) + u.

    Mode cpu takes pixels outside as 0; mode cuda takes the nearest inside, and divides by the sum of the weights.
    """
    height, width = planes.shape[1:]
    x = torch.arange(width, device=u.device) + u[0]
    y = torch.arange(height, device=u.device)[:, None] + u[1]
    weights_x, weights_y = (_cubic_weights(position - position.floor(), parameters.mode) for position in (x, y))
    left, top = x.floor().long() - 1, y.floor().long() - 1
    total = torch.zeros_like(planes)
    for j, weight_y in enumerate(weights_y):
        for i, weight_x in enumerate(weights_x):
            total += weight_y * weight_x * _pixels(planes, top + j, left + i, parameters.mode)
    return total if parameters.mode == "cpu" else total / (sum(weights_x) * sum(weights_y))


def _pixels(planes: torch.Tensor, y: torch.Tensor, x: torch.Tensor, mode: str) -> torch.Tensor:
    height, width = planes.shape[1:]
    nearest = planes[:, y.clamp(0, height - 1), x.clamp(0, width - 1)]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return nearest if mode == "cuda" else torch.where(inside, nearest, 0)


def _cubic_weights(f: torch.Tensor, mode: str) -> list[torch.Tensor]:
    """Keys' cubic kernel for the pixels at -1, 0, 1, 2 of a point at f in 0..1; a is -.5 in mode cuda, else -.75."""
    a = -0.5 if mode == "cuda" else -0.75

    def near(d: torch.Tensor) -> torch.Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: torch.Tensor) -> torch.Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    w0, w1, w2 = far(1 + f), near(f), near(1 - f)
    return [w0, w1, w2, 1 - w0 - w1 - w2]
