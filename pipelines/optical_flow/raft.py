"""RAFT (Teed and Deng, ECCV 2020), torchvision's networks and weights. The most accurate; wants a GPU.

Letters: N pairs of frames, H W pixels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.error import URLError

import torch
from torch import nn
from torch.nn.functional import pad
from torchvision.models import optical_flow

from pipelines.errors import MissingError
from pipelines.interface.wording import first_line
from pipelines.optical_flow.grey import check_frames
from pipelines.optical_flow.methods import as_options, parse_options, require
from pipelines.storage.tensor_file import TensorFileError, read_tensors, require_tensors, while_the_server_answers

_NETWORKS = {
    "raft_large": (optical_flow.raft_large, optical_flow.Raft_Large_Weights.DEFAULT),
    "raft_small": (optical_flow.raft_small, optical_flow.Raft_Small_Weights.DEFAULT),
}
_STRIDE = 8  # of its features, at which the flow is found
_SMALLEST_SIDE = 128  # its four correlation levels need 16 features a side


@dataclass(frozen=True)
class RAFTParameters:
    model: str = "raft_large"
    """raft_large or raft_small."""
    weights: str = "default"
    """`default`: torchvision's, fetched on first use; or the path of a file with the network's state dict."""
    updates: int = 12
    """Iterations of the refinement."""

    def __post_init__(self) -> None:
        require(
            self,
            model=(self.model in _NETWORKS, f"one of {', '.join(_NETWORKS)}"),
            weights=(self.weights != "", "`default` or a file"),
            updates=(1 <= self.updates <= 1000, "1..1000"),
        )


class RAFT:
    input: ClassVar[Literal["rgb"]] = "rgb"
    batch_invariant: ClassVar[bool] = False  # cuDNN chooses algorithms by the size of a batch
    engine: ClassVar[str] = "torch"
    uses_device: ClassVar[bool] = True

    def __init__(self, settings: RAFTParameters, device: str) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.batch_size = 1 if self.device.type == "cpu" else 8
        state, identity = _load_weights(settings)
        self.parameters: dict[str, Any] = {**as_options(settings), "weights": identity}
        network = _NETWORKS[settings.model][0](weights=None, progress=False)
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise MissingError(
                f"--method-option weights={settings.weights}: not weights of {settings.model} "
                f"({first_line(error)[:200]}); --method-option model=... names another of {', '.join(_NETWORKS)}"
            ) from error
        self.network: nn.Module = network.eval().requires_grad_(False)

    @torch.inference_mode()
    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        check_frames(frame0, frame1, channels=3)
        # Moved only when it is used: a process that merely looks at the parameters opens no GPU.
        network = self.network.to(self.device)
        height, width = frame0.shape[-2:]
        top, bottom = _margins(height)
        left, right = _margins(width)
        before, after = (
            pad(frame.to(self.device).float() / 127.5 - 1, (left, right, top, bottom), mode="replicate")
            for frame in (frame0, frame1)
        )
        flow = network(before, after, num_flow_updates=self.settings.updates)[-1]
        return flow[..., top : top + height, left : left + width].float().to(frame0.device)


def make(options: Mapping[str, str | float], device: str) -> RAFT:
    return RAFT(parse_options("raft", RAFTParameters, options), device)


def _margins(side: int) -> tuple[int, int]:
    """What to add before and after, so that a side is a multiple of 8 and at least 128."""
    wanted = max(_SMALLEST_SIDE, -(-side // _STRIDE) * _STRIDE)
    before = (wanted - side) // 2
    return before, wanted - side - before


def _load_weights(settings: RAFTParameters) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict, and what identifies these weights whatever their path: a name or the file's hash."""
    if settings.weights == "default":
        weights = _NETWORKS[settings.model][1]
        try:
            with while_the_server_answers():
                return dict(weights.get_state_dict(progress=False, check_hash=True)), f"torchvision:{weights}"
        except (URLError, OSError, RuntimeError) as error:
            raise MissingError(
                f"RAFT's weights cannot be fetched ({first_line(error)[:200]}): fetch {weights.url} elsewhere and put "
                f"it into {_weights_file(weights).parent}, or name the file with --method-option weights=FILE"
            ) from error
    path = Path(settings.weights)
    try:
        identity = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        return dict(require_tensors(read_tensors(path), str(path))), identity
    except OSError as error:
        raise MissingError(f"--method-option weights={path}: cannot be read ({error.strerror})") from error
    except TensorFileError as error:
        advice = error.advice or "give a state dict of torchvision's RAFT"
        raise MissingError(f"--method-option weights={path}: not a PyTorch state dict ({error}): {advice}") from error


def are_weights_here(stated: Mapping[str, Any]) -> bool:
    """Whether the weights that a flow file's parameters state are torchvision's, and on this machine already."""
    weights = _NETWORKS[stated["model"]][1] if stated.get("model") in _NETWORKS else None
    return (
        weights is not None and stated.get("weights") == f"torchvision:{weights}" and _weights_file(weights).is_file()
    )


def _weights_file(weights: Any) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
