"""SGD with the paper's rates and decays by kind of parameter (paper.md 3.1)."""

import torch
from torch import nn

from pipelines.training.recipes import Step

# kind of parameter: (factor of the learning rate, whether weight decay applies)
RATES = {
    "filter": (1.0, True),
    "bias": (2.0, False),
    "norm scale": (2.0, False),
    "norm shift": (1.0, False),
}


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
    """One parameter group a kind; `set_learning_rate` gives each its share of the scheduled rate.

    `may_skip`: a gradient scaler will leave out updates. The fused kernel would take the momentum of a first update
    that was left out from memory that nothing was written to.
    """
    kinds = parameter_kinds(model)
    groups = [
        {
            "params": [parameter for name, parameter in model.named_parameters() if kinds[name] == kind],
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
