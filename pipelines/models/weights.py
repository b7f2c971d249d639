"""Filling a network from elsewhere: torchvision's ImageNet weights, a file, a trained base stream.

A load succeeds or raises: every tensor of the network except the classifiers is filled, and every tensor given is used,
of a file that holds a ResNet as a part of another model those of the ResNet.
"""

import contextlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pipelines.errors import MissingError, UsageError
from pipelines.interface.options import ResNetForm, StreamName
from pipelines.models.backbones import BACKBONE_SCHEMA, Backbone, backbone_of
from pipelines.models.st_resnet import STResNet
from pipelines.models.stream import Stream
from pipelines.models.temporal import TemporalConv
from pipelines.storage.atomic import read_json
from pipelines.storage.provenance import sha256_of
from pipelines.storage.tensor_file import TensorFileError, read_tensors, require_tensors, while_the_server_answers

IMAGENET_DEPTHS = (50, 101, 152)
IMAGENET_WIDTH = 64
_CLASSIFIER = ("fc.weight", "fc.bias")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs save a state dict beside other things."""
_SAME_SIZE = "use weights of a ResNet of the same depth and width"
_FETCH_OR_SAVE = "fetch it again, or save only a state dict into it"


def load_pretrained(model: STResNet, source: str | Path, *, download: bool = True) -> None:
    """Fills every stream of `model`, except its classifiers.

    Args:
        model: The network to fill.
        source: `imagenet` for torchvision's IMAGENET1K_V1 weights of the model's depth (docs/recipe.md says why not
            V2), which are downloaded once to the torch hub's folder; `none` for nothing; else the path of a torchvision
            ResNet's state dict as `torch.save` writes it, plain or under one of the keys `_WRAPPERS`, with or without
            a prefix such as `module.` before its own, or of a `Backbone`.
        download: False loads nothing where the ImageNet weights would have to be downloaded.

    Raises:
        UsageError: There are no ImageNet weights of that depth and width, or the weights are known to be of another
            form than the model.
        MissingError: The file is absent, holds anything but finite tensors, or does not fit.
    """
    path = _file_of(model.depth, model.width, source, download)
    if path is None:
        return
    state, content = _read(path)
    form = "v1.5" if str(source) == "imagenet" else _form(content, path)
    if form not in (None, model.resnet):
        raise UsageError(f"the weights {source} are of a ResNet {form}, the network is of form {model.resnet}")
    for stream in model.streams.values():
        _load_torchvision(stream, state, f"the weights {source}")


def read_pretrained(depth: int, width: int, source: str | Path, *, download: bool = True) -> dict[str, Tensor] | None:
    """Reads what `load_pretrained` would fill a network with; None for nothing.

    Raises as that does, except for tensors that do not fit.
    """
    path = _file_of(depth, width, source, download)
    return None if path is None else read_state_dict(path)


def _file_of(depth: int, width: int, source: str | Path, download: bool) -> Path | None:
    """The file to read; of ImageNet the torch hub's copy, downloaded where it is not there yet (else None)."""
    if str(source) != "imagenet":
        return None if str(source) == "none" else Path(source)
    import torchvision

    if depth not in IMAGENET_DEPTHS or width != IMAGENET_WIDTH:
        raise UsageError(
            f"there are no ImageNet weights for depth {depth} and width {width}, only for depth "
            f"{', '.join(map(str, IMAGENET_DEPTHS))} and width {IMAGENET_WIDTH}: give --weights a file, or none"
        )
    url = torchvision.models.get_model_weights(f"resnet{depth}")["IMAGENET1K_V1"].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        if not download:
            return None
        _download(url, path)
    return path


def read_backbone(path: Path) -> Backbone:
    """The ResNet of a weights file, with its form where the file tells it: a `Backbone` does, and torchvision's own are
    known by name and content. Raises `MissingError` as `read_state_dict`, and for other networks."""
    state, content = _read(path)
    backbone = backbone_of(content, state, str(path))
    _require_resnet(backbone, path)
    return replace(backbone, form=_form(content, path))


def _require_resnet(backbone: Backbone, path: Path) -> None:
    """Raises `MissingError` where another tensor of the file than the classifier's does not fit the ResNet that its
    first ones tell of, as of a file that lacks some."""
    with torch.device("meta"):
        network = STResNet(
            1, backbone.depth, backbone.width, temporal_kernels=False, streams=("appearance",),
            stem_width=backbone.stem_width,
        )  # fmt: skip
    stream = _stream(network, "appearance")
    source = f"{path}, taken as a ResNet-{backbone.depth} of width {backbone.width},"
    _adapted(stream, _with_classifier_of(stream, backbone.state), source, "use weights of a whole, plain ResNet")


def _form(content: Mapping[str, Any], path: Path) -> ResNetForm | None:
    """The form of the ResNet of a weights file; None where the file does not tell it. v1.5 for one that torchvision
    published: its name ends with the beginning of its SHA-256."""
    import torchvision

    if content.get("schema") == BACKBONE_SCHEMA:
        return cast("ResNetForm | None", content.get("resnet"))
    found = re.fullmatch(r"(\w*resnet\d+\w*)-([0-9a-f]{8})\.pth", path.name)
    if found is None or found[1] not in torchvision.models.list_models():
        return None
    return "v1.5" if sha256_of(path).startswith(found[2]) else None


def load_torchvision_state(
    target: STResNet | Stream, state_dict: Mapping[str, Tensor], stream: StreamName = "appearance"
) -> None:
    """Fills a stream from the state dict of a torchvision bottleneck ResNet, of any number of classes.

    1x1 weights become temporal kernels as the network's `temporal_init` says (paper.md 2.2), an RGB first layer becomes
    one of more channels (2.5), and the classifier stays as it is (2.6).

    Args:
        target: The stream, or a network that has it.
        state_dict: With torchvision's keys.
        stream: Which stream of a network.

    Raises:
        MissingError: Names the first tensors that do not fit; nothing has been changed.
        UsageError: The network lacks that stream.
    """
    _load_torchvision(_stream(target, stream) if isinstance(target, STResNet) else target, state_dict, "the state dict")


def load_streams(model: STResNet, state_dict: Mapping[str, Tensor], *, classifiers: bool = True) -> tuple[str, ...]:
    """Fills streams of a network from the state dict of another one.

    The streams that `state_dict` has are filled whole: a base run's is one of them, a joint network's both. 1x1 weights
    become temporal kernels as the network's `temporal_init` says.

    Args:
        model: The network to fill.
        state_dict: Of an `STResNet`.
        classifiers: False leaves the classifiers of `model` as they are; the others may be of any number of classes.

    Returns:
        The names of the streams that were filled.

    Raises:
        MissingError: Names the first tensors that do not fit; nothing has been changed.
        UsageError: The network lacks such a stream; nothing has been changed.
    """
    by_stream: dict[str, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        name, _, inner = key.partition(".")
        if name not in ("appearance", "motion"):
            raise MissingError(f"{key} is not a tensor of a stream: keys start with appearance. or motion.")
        by_stream.setdefault(name, {})[inner] = value
    if not by_stream:
        raise MissingError("the state dict to load streams from is empty")
    adapted = {}
    for name, state in by_stream.items():
        stream = _stream(model, name)
        kept = state if classifiers else _with_classifier_of(stream, state)
        adapted[name] = _adapted(stream, kept, f"the {name} stream's state dict")
    for name, state in adapted.items():
        _stream(model, name).load_state_dict(state)
    return tuple(adapted)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file that `torch.save` wrote, on the CPU. Nothing in the file is executed.

    Raises:
        MissingError: The file is absent, damaged, of another kind, or holds anything but finite tensors by name.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The state dict of a file, and all of its content."""
    if not path.exists():
        raise MissingError(
            f"there is no weights file {path}: give the path of one, or `imagenet`, `run:NAME` or `none`"
        )
    if path.is_dir() and (_is_run(path) or ((path / "weights.pt").is_file() and _is_run(path.parent))):
        raise MissingError(f"{path} is the folder of a run: give --weights {shlex.quote(f'run:{path}')} instead")
    try:
        content = read_tensors(path)
    except TensorFileError as error:
        raise MissingError(
            f"{path} cannot be read as a file of plain tensors ({error}): {error.advice or _FETCH_OR_SAVE}"
        ) from error
    return _unwrapped(content, path), content


def _is_run(folder: Path) -> bool:
    with contextlib.suppress(MissingError):
        config = read_json(folder / "config.json")
        return isinstance(config, dict) and str(config.get("schema")).startswith("stres/run/")
    return False


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in a file's content; of one ResNet below a prefix its tensors alone. Raises `MissingError`."""
    ours = str(content.get("schema")) if isinstance(content, Mapping) else ""
    if ours.startswith("stres/") and ours != BACKBONE_SCHEMA:
        raise MissingError(
            f"{path} belongs to a run, whose classes and network stand beside it: "
            f"give --weights run:{path.resolve().parent} instead"
        )
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise MissingError(f"{path} holds no state dict: save one with torch.save(model.state_dict(), ...)")
    try:
        require_tensors(content, str(path))
    except TensorFileError as error:
        raise MissingError(f"{error}: {error.advice or _FETCH_OR_SAVE}") from None
    # `module.` of DistributedDataParallel, `backbone.`, `model.`; of two nobody can choose.
    stems = (key.removesuffix("conv1.weight") for key in content if key.endswith("conv1.weight"))
    prefixes = [stem for stem in stems if f"{stem}layer1.0.conv1.weight" in content]
    prefix = prefixes[0] if len(prefixes) == 1 else ""
    return {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}


def _download(url: str, path: Path) -> None:
    # Not torch.hub.load_state_dict_from_url, which writes a line to stdout, where --json has its document.
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with while_the_server_answers():
            torch.hub.download_url_to_file(url, str(path), digest.group(1) if digest else None, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no room; or another file than its name promises
        raise MissingError(
            f"the ImageNet weights could not be downloaded ({error}): fetch {url} on a machine that can and put it "
            f"into {path.parent}, or give --weights a file, or none"
        ) from error


# ------------------------------------------------------------------ fitting


def _stream(model: STResNet, name: str) -> Stream:
    streams = model.streams
    if name not in streams:
        raise UsageError(f"the network has no {name} stream, only {', '.join(streams)}")
    return streams[name]


def _load_torchvision(stream: Stream, state: Mapping[str, Tensor], source: str) -> None:
    body = _with_classifier_of(stream, state)
    first = body.get("conv1.weight")
    channels = stream.conv1.weight.shape[1]
    if channels != 3 and first is not None and first.ndim == 4 and first.shape[1] == 3:
        # The mean over RGB, repeated (paper.md 2.5).
        body["conv1.weight"] = first.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    stream.load_state_dict(_adapted(stream, body, source))


def _with_classifier_of(stream: Stream, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the classifier that `stream` has already."""
    own = stream.state_dict()
    return {key: value for key, value in state.items() if key not in _CLASSIFIER} | {
        key: own[key] for key in _CLASSIFIER
    }


def _adapted(stream: Stream, state: Mapping[str, Tensor], source: str, advice: str = _SAME_SIZE) -> dict[str, Tensor]:
    """`state` with its 1x1 weights grown into temporal kernels. Raises `MissingError` where it does not fit."""
    own = stream.state_dict()
    adapted = dict(state)
    for name, layer in stream.named_modules():
        given = adapted.get(f"{name}.weight")
        if isinstance(layer, TemporalConv) and given is not None and given.shape[2:] == (1, 1):
            adapted[f"{name}.weight"] = layer.inflate(given)
    for key in own.keys() - adapted.keys():
        if key.endswith("num_batches_tracked"):  # not in files older than torch 0.4.1; nothing reads this counter
            adapted[key] = own[key]
    _require_fit(own, adapted, source, advice)
    return adapted


def _require_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, advice: str) -> None:
    misfits = [
        f"{key} is missing (the network's is {list(value.shape)})"
        if key not in given
        else f"{key} is {list(given[key].shape)}, the network's {list(value.shape)}"
        for key, value in own.items()
        if key not in given or given[key].shape != value.shape
    ]
    misfits += [f"{key} {list(value.shape)} is not in the network" for key, value in given.items() if key not in own]
    if misfits:
        more = f"; and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise MissingError(f"{source} does not fit the network: {'; '.join(misfits[:3])}{more}: {advice}")
