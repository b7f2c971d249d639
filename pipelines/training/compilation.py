"""`torch.compile` for training: whether to, and with what."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.errors import MissingError
from pipelines.runtime.devices import missing_to_compile
from pipelines.training.recipes import Step

if TYPE_CHECKING:
    import torch
    from torch import nn

BACKEND = "inductor"
_SIZES = 64  # of micro-batches in a step: every number of damaged videos in one makes another; beyond, uncompiled
WORTHWHILE = 1000  # updates of a step: compiling takes a minute or more, once for each size of a micro-batch


def compiles(asked: bool | None, device: "torch.device") -> bool:
    """Whether a run compiles its network: as asked; by default on a GPU, where the machine has what that needs.

    Raises `MissingError` where it is asked for and cannot be.
    """
    missing = missing_to_compile(device) if asked is not False else ""
    if asked and missing:
        raise MissingError(f"--compile needs {missing}: install it, or train with --no-compile")
    return bool(asked) or (asked is None and device.type == "cuda" and not missing)


def worthwhile(asked: bool | None, step: Step, videos: int) -> bool:
    """Whether a step of a run that compiles is long enough for it; always where it was asked for."""
    return bool(asked) or step.updates(videos) >= WORTHWHILE


def compiled(network: "nn.Module") -> "Callable[..., Any]":
    """The same function, compiled at its first call and again for every other size of input; the weights stay those of
    `network`. Sizes are constants, since kernels for any size are slower and a step has few.

    What was compiled before is forgotten: a step's code must not depend on the steps that this process trained."""
    import torch

    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = _SIZES
    return torch.compile(network, dynamic=False, backend=BACKEND)
