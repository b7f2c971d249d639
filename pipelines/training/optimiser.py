"""SGD with the paper's rates and decays by kind of parameter (paper.md 3.1)."""

import math

import torch
from torch import nn

from pipelines.training.recipes import Step

RATES = {
    "filter": (1.0, True),
    "bias": (2.0, False),
    "norm scale": (2.0, False),
    "norm shift": (1.0, False),
}
"""By kind of parameter: the factor of the learning rate, and whether weight decay applies."""


def parameter_kinds(model: nn.Module) -> dict[str, str]:
    """Name of every parameter -> its kind, a key of `RATES`."""
    kinds = {}
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if isinstance(module, nn.modules.batchnorm._NormBase):
                kind = "norm scale" if name == "weight" else "norm shift"
            else:
                kind = "bias" if name == "bias" else "filter"
            kinds[f"{prefix}.{name}" if prefix else name] = kind
    return kinds


def make_optimiser(model: nn.Module, step: Step, *, may_skip: bool = False) -> torch.optim.SGD:
    """SGD with one parameter group for each kind of parameter, whose rate `set_learning_rate` sets.

    Args:
        model: Whose parameters these are; those without gradients take no part.
        step: Momentum and weight decay.
        may_skip: Whether a gradient scaler may skip updates. If it skips the first one, the fused kernel would read its
            momentum buffer uninitialised.
    """
    kinds = parameter_kinds(model)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for name, parameter in trained if kinds[name] == kind],
            "weight_decay": step.weight_decay if decays else 0.0,
            "rate": factor,
        }
        for kind, (factor, decays) in RATES.items()
    ]
    return torch.optim.SGD(groups, lr=step.lr, momentum=step.momentum, nesterov=step.nesterov, fused=not may_skip)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Sets every group's rate to its factor times `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate"]


WARM_UP = 0.05  # of all iterations, for the cosine schedule


def learning_rate(step: Step, iteration: int, total: int) -> float:
    """The learning rate of the convolution filters.

    A list of factors is spread evenly: with as many epochs as factors, one factor an epoch (paper.md 3.3).

    Args:
        iteration: The update, from 0.
        total: Updates of the step.
    """
    if step.schedule == "cosine":
        warm_up = max(1, round(WARM_UP * total))
        if iteration < warm_up:
            return step.lr * (iteration + 1) / warm_up
        return step.lr * 0.5 * (1 + math.cos(math.pi * (iteration - warm_up) / max(1, total - warm_up)))
    return step.lr * step.schedule[iteration * len(step.schedule) // total]
