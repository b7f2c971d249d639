"""The network of paper.md 2.1 to 2.3 once more, as plain functions of a state dict, to compare with.

Written independently of `pipelines.models`: everything is a 3-D operation on [B, C, T, H, W], with conv3d for every
convolution and batch norm over all of B, T, H and W.
"""

import torch
import torch.nn.functional as F

BLOCKS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def reference_logits(
    state,
    rgb,
    flow,
    *,
    depth=26,
    fusion="add",
    direction="motion-to-appearance",
    temporal_pool=None,
    training=False,
    moments=None,
):
    """The logits of both streams, each [B, T', classes].

    `moments`: a dictionary to which the mean and the unbiased variance of every batch norm's input are added.
    """
    a = _Functions(_part(state, "appearance"), training, "appearance", moments)
    m = _Functions(_part(state, "motion"), training, "motion", moments)
    xa, xm = a.stem(rgb.transpose(1, 2)), m.stem(flow.transpose(1, 2))
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        xa, xm = a.block(f"layer{stage}.0", xa, xa), m.block(f"layer{stage}.0", xm, xm)
        fa, fm = F.relu(xa), F.relu(xm)
        into_a, into_m = fa, fm
        if fusion != "none" and direction in ("motion-to-appearance", "both"):
            into_a = xa + fm if fusion == "add" else xa * fm
        if fusion != "none" and direction in ("appearance-to-motion", "both"):
            into_m = xm + fa if fusion == "add" else xm * fa
        xa, xm = F.relu(a.block(f"layer{stage}.1", fa, into_a)), F.relu(m.block(f"layer{stage}.1", fm, into_m))
        for block in range(2, blocks):
            xa = F.relu(a.block(f"layer{stage}.{block}", xa, xa))
            xm = F.relu(m.block(f"layer{stage}.{block}", xm, xm))
        if stage < 4:
            continue
        if temporal_pool is not None:
            xa, xm = _naive_maximum(xa, *temporal_pool), _naive_maximum(xm, *temporal_pool)
    return a.classify(xa), m.classify(xm)


def _naive_maximum(x, size, stride):
    starts = range(0, x.shape[2] - size + 1, stride)
    return torch.stack([x[:, :, start : start + size].max(dim=2).values for start in starts], dim=2)


def _part(state, stream):
    return {key.removeprefix(f"{stream}."): value for key, value in state.items() if key.startswith(f"{stream}.")}


class _Functions:
    def __init__(self, state, training, stream, moments):
        self.state = state
        self.training = training
        self.stream = stream
        self.moments = moments

    def stem(self, x):
        return F.max_pool3d(F.relu(self.bn("bn1", self.conv("conv1", x, 2))), (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def block(self, name, shortcut, residual):
        """shortcut(x) + F(residual), before the last ReLU."""
        stride = 2 if name.endswith(".0") and not name.startswith("layer1") else 1
        y = F.relu(self.bn(f"{name}.bn1", self.conv(f"{name}.conv1", residual, 1)))
        y = F.relu(self.bn(f"{name}.bn2", self.conv(f"{name}.conv2", y, stride)))
        y = self.bn(f"{name}.bn3", self.conv(f"{name}.conv3", y, 1))
        if f"{name}.downsample.0.weight" in self.state:
            shortcut = self.bn(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", shortcut, stride))
        return shortcut + y

    def conv(self, name, x, stride):
        weight = self.state[f"{name}.weight"]
        if weight.ndim == 4:
            weight = weight.unsqueeze(2)
        padding = tuple(size // 2 for size in weight.shape[2:])
        return F.conv3d(x, weight, stride=(1, stride, stride), padding=padding)

    def bn(self, name, x):
        if self.moments is not None:
            values = x.detach().transpose(0, 1).flatten(1)
            self.moments[f"{self.stream}.{name}"] = values.mean(1), values.var(1, correction=1)
        mean, var = self.state[f"{name}.running_mean"].clone(), self.state[f"{name}.running_var"].clone()
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.batch_norm(x, mean, var, weight, bias, training=self.training, momentum=0.05, eps=1e-5)

    def classify(self, x):
        return x.mean(dim=(3, 4)).transpose(1, 2) @ self.state["fc.weight"].T + self.state["fc.bias"]
