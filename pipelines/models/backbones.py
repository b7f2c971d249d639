"""Pretrained image ResNets as they come, and one file that says all of them: `Backbone`.

Letters: C channels.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from pipelines.errors import MissingError, UsageError
from pipelines.interface.options import Depth, ResNetForm
from pipelines.interface.wording import plural
from pipelines.models.blocks import EXPANSION
from pipelines.models.moments import Moments
from pipelines.models.normalise import RGB_DEVIATION, RGB_MEAN
from pipelines.models.st_resnet import STResNet
from pipelines.models.stream import BLOCKS

BACKBONE_SCHEMA = "stres/backbone/1"
FORM_UNKNOWN = (
    "does not tell the form of its ResNet: add --resnet v1.5 (torchvision's and timm's) or --resnet v1 (He et al.'s "
    "own, Caffe's, MatConvNet's)"
)
"""What is said of a file that does not; its name goes before."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained ResNet of bottleneck blocks, under torchvision's names. Raises `UsageError` for others."""

    state: Mapping[str, Tensor]
    form: ResNetForm | None = None
    """None where nothing tells it."""
    rgb_mean: tuple[float, ...] = RGB_MEAN
    """Of red, green and blue on a scale of 0..1, and so `rgb_deviation`: what its pictures are normalised with."""
    rgb_deviation: tuple[float, ...] = RGB_DEVIATION
    source: str = ""
    """Where it came from, in words."""

    def __post_init__(self) -> None:
        for key in ("conv1.weight", "bn1.running_var", "layer1.0.conv3.weight"):
            if key not in self.state:
                raise UsageError(
                    f"there is no {key}: this is not a ResNet of bottleneck blocks under torchvision's names"
                )
        if kind := _other_kind(self.state):
            raise UsageError(f"{kind}: give the weights of a plain ResNet that takes red, green and blue")
        if self._blocks not in BLOCKS.values():
            raise UsageError(
                f"its stages have {', '.join(map(str, self._blocks))} blocks: "
                f"known are depths {', '.join(map(str, BLOCKS))}"
            )

    @property
    def _blocks(self) -> tuple[int, ...]:
        found = (re.match(r"layer(\d)\.(\d+)\.conv1\.weight", key) for key in self.state)
        indices = [(int(one[1]), int(one[2])) for one in found if one]
        return tuple(1 + max((block for stage, block in indices if stage == n), default=-1) for n in (1, 2, 3, 4))

    @property
    def depth(self) -> Depth:
        """Layers, as a ResNet is named."""
        return next(depth for depth, blocks in BLOCKS.items() if blocks == self._blocks)

    @property
    def stem_width(self) -> int:
        return self.state["conv1.weight"].shape[0]

    @property
    def width(self) -> int:
        return self.state["layer1.0.conv1.weight"].shape[0]

    @property
    def has_default_normalisation(self) -> bool:
        return (self.rgb_mean, self.rgb_deviation) == (RGB_MEAN, RGB_DEVIATION)

    def document(self) -> dict[str, Any]:
        """What `torch.save` writes; `read_backbone` reads it again."""
        assert self.form is not None
        return {
            "schema": BACKBONE_SCHEMA,
            "resnet": self.form,
            "rgb_mean": list(self.rgb_mean),
            "rgb_deviation": list(self.rgb_deviation),
            "source": self.source,
            "state_dict": dict(self.state),
        }


def _other_kind(state: Mapping[str, Tensor]) -> str:
    """In words, what else than a plain ResNet of bottleneck blocks a state dict is of, as its names and shapes tell."""
    if any(".se." in key or ".se_module." in key for key in state):
        return "these are the weights of a SE-ResNet"
    layers = ("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.conv3")
    shapes = [state[f"{name}.weight"].shape for name in layers if f"{name}.weight" in state]
    if len(shapes) < len(layers) or any(len(shape) != 4 for shape in shapes):
        return ""
    stem, first, middle, last = shapes
    if stem[1] != 3:
        pictures = "grey pictures" if stem[1] == 1 else "other pictures"
        return f"the first layer is one for {pictures}, of {plural(stem[1], 'channel')}"
    if middle[1] < middle[0] and middle[0] % middle[1] == 0:
        return f"these are the weights of a ResNeXt ({middle[0] // middle[1]} groups of {plural(middle[1], 'channel')})"
    if last[0] < EXPANSION * first[0]:
        return f"these are the weights of a Wide ResNet (first blocks of {first[0]} channels that give {last[0]})"
    return ""


def backbone_of(document: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> Backbone:
    """The backbone of a file's content, of which `state` is the state dict.

    Raises:
        MissingError: It claims to be one of ours and is not, or is another network.
    """
    try:
        if document.get("schema") != BACKBONE_SCHEMA:
            return Backbone(state)
        form, mean, deviation = document.get("resnet"), document.get("rgb_mean"), document.get("rgb_deviation")
        numbers = [*mean, *deviation] if isinstance(mean, list) and isinstance(deviation, list) else []
        finite = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        if form not in get_args(ResNetForm) or len(numbers) != 6 or not finite:
            raise UsageError("its form or its normalisation is missing")
        assert isinstance(mean, list)
        assert isinstance(deviation, list)
        return Backbone(state, form, tuple(mean), tuple(deviation), str(document.get("source", "")))
    except UsageError as error:
        raise MissingError(f"{name}: {error}") from error


def _batch_norm_of(convolution: str) -> str:
    """torchvision's name of the batch norm behind a convolution: of `layer1.0.conv2` `layer1.0.bn2`, of
    `layer1.0.downsample.0` `layer1.0.downsample.1`."""
    return re.sub(r"\b0$", "1", re.sub(r"\bconv(\d)$", r"bn\1", convolution))


# ------------------------------------------------------------------ MatConvNet


def from_matconvnet(path: Path) -> Backbone:
    """A `DagNN` of MatConvNet, as `imagenet-resnet-50-dag.mat` is, the file the paper's authors started from.

    Its filters are [height, width, in, out]; its batch norms keep the square root of variance + epsilon; the bias of
    the first convolution enters its batch norm's mean. Pictures are RGB on a scale of 0..255, less the average.

    Raises:
        MissingError: The file is damaged, or holds another network.
    """
    import scipy.io

    try:
        content = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)
        given = {str(one.name): torch.as_tensor(one.value, dtype=torch.float32) for one in content["params"].flat}
        average = (
            torch.as_tensor(content["meta"].normalization.averageImage, dtype=torch.float64).reshape(-1, 3).mean(0)
        )
        strides = {
            str(layer.params.flat[0] if hasattr(layer.params, "flat") else layer.params): int(
                torch.as_tensor(layer.block.stride).max()
            )
            for layer in content["layers"].flat
            if "Conv" in str(layer.type)
        }
    except Exception as error:  # scipy raises anything for a damaged file
        raise MissingError(f"{path} cannot be read as a DagNN of MatConvNet ({error})") from error
    state: dict[str, Tensor] = {}
    for key, (filters, norm) in _matconvnet_names(given):
        batch_norm = _batch_norm_of(key)
        try:
            weight, moments = given[f"{filters}_filter"], given[f"{norm}_moments"].reshape(-1, 2)
            bias = given.get(f"{filters}_bias", torch.zeros(()))
            # [h, w, in, out], from which MATLAB drops trailing ones, and SciPy all ones.
            weight = weight[None, None] if weight.ndim == 2 else weight
            state[f"{key}.weight"] = weight.permute(3, 2, 0, 1).contiguous()
            state[f"{batch_norm}.weight"] = given[f"{norm}_mult"].reshape(-1)
            state[f"{batch_norm}.bias"] = given[f"{norm}_bias"].reshape(-1)
            state[f"{batch_norm}.running_mean"] = moments[:, 0] - bias.reshape(-1)
            state[f"{batch_norm}.running_var"] = moments[:, 1] ** 2 - 1e-5
        except KeyError as error:
            raise MissingError(f"{path} is no ResNet of MatConvNet: it has no {error.args[0]}") from error
    form: ResNetForm = "v1" if strides.get("res3a_branch2a_filter", 1) == 2 else "v1.5"
    mean = tuple((average / 255).tolist())
    return Backbone(state, form, mean, (1 / 255,) * 3, f"MatConvNet, {path.name}")


def _matconvnet_names(given: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[str, str]]]:
    """torchvision's name of each convolution, and MatConvNet's of its filters and its batch norm."""
    yield "conv1", ("conv1", "bn_conv1")
    for name in given:
        found = re.fullmatch(r"res(\d)([a-z]\d*)_branch(1|2[abc])_filter", name)
        if found is None:
            continue
        stage, block, branch = found.groups()
        # Blocks are a, b, c, ...; in the deeper networks a, b1, b2, ...
        number = int(block[1:]) if len(block) > 1 else ord(block) - ord("a")
        place = "downsample.0" if branch == "1" else f"conv{'abc'.index(branch[1]) + 1}"
        yield (
            f"layer{int(stage) - 1}.{number}.{place}",
            (f"res{stage}{block}_branch{branch}", f"bn{stage}{block}_branch{branch}"),
        )


# ------------------------------------------------------------------ ONNX


@dataclass
class _Convolution:
    """One convolution of a graph, and the batch norm behind it where there is one."""

    weight: Tensor
    bias: Tensor
    stride: int
    source: str
    """The tensor it takes, as the convolution before left it."""
    norm: tuple[Tensor, ...] = ()
    """Weight, bias, mean, variance + epsilon."""


def from_onnx(
    path: Path, mean: tuple[float, ...], deviation: tuple[float, ...], *, bgr: bool = False
) -> tuple[Backbone, bool]:
    """A ResNet as ONNX, as Caffe's are converted, and whether its batch norms are folded into its convolutions.

    Folded ones come back as batch norms of mean 0 and variance 1, which give the same in testing but are nothing to
    train with: `recalibrate` first. bgr: its pictures are blue, green, red.

    Raises:
        MissingError: The file is damaged, holds another network, or the `onnx` package is not installed.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingError("ONNX files need onnx: pip install '.[export]' in the checkout of stres") from error
    try:
        graph = onnx.load(str(path)).graph
        values = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
        convolutions, pool = _convolutions(graph, values)
    except Exception as error:  # protobuf raises its own kinds
        raise MissingError(f"{path} cannot be read as an ONNX network ({error})") from error
    try:
        named, form = _named(convolutions, pool)
    except (StopIteration, LookupError, ValueError) as error:
        raise MissingError(f"{path} is no ResNet of bottleneck blocks ({error or 'its graph is another'})") from error
    state: dict[str, Tensor] = {}
    for key, one in named.items():
        norm_name = _batch_norm_of(key)
        ones, zeros = torch.ones(len(one.weight)), torch.zeros(len(one.weight))
        scale, shift, center, variance = one.norm or (ones, zeros, zeros, ones)
        state[f"{key}.weight"] = one.weight.flip(1) if bgr and key == "conv1" else one.weight
        state[f"{norm_name}.weight"], state[f"{norm_name}.bias"] = scale, shift
        state[f"{norm_name}.running_mean"] = center - one.bias
        state[f"{norm_name}.running_var"] = variance - 1e-5
    folded = not any(one.norm for one in named.values())
    return Backbone(state, form, mean, deviation, f"ONNX, {path.name}"), folded


def _convolutions(graph: Any, values: Mapping[str, Tensor]) -> tuple[dict[str, _Convolution], str]:
    """The convolutions by the tensor they give, in the graph's order, and the form that the max pooling tells."""
    found: dict[str, _Convolution] = {}
    # Of a tensor: what the last convolution or addition gave, through all that is pointwise.
    origin: dict[str, str] = {}
    pool = ""
    for node in graph.node:
        attributes: dict[str, Any] = {one.name: list(one.ints) or one.i or one.f for one in node.attribute}
        source = origin.get(node.input[0], node.input[0]) if node.input else ""
        gives = node.output[0]
        if node.op_type == "Conv":
            weight = values[node.input[1]]
            bias = values[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
            found[gives] = _Convolution(weight, bias, max(attributes.get("strides", [1])), source)
            origin[gives] = gives
        elif node.op_type == "BatchNormalization":
            scale, shift, center, variance = (values[name] for name in node.input[1:5])
            found[source].norm = (scale, shift, center, variance + attributes.get("epsilon", 1e-5))
            origin[gives] = source
        elif node.op_type in ("Relu", "Identity", "Dropout", "MaxPool", "Pad"):
            origin[gives] = source
            if node.op_type == "MaxPool" and not pool:
                pads = attributes.get("pads") or [0, 0, 0, 0]
                pool = "v1.5" if pads[:2] == [1, 1] else "v1"
        else:
            origin[gives] = gives
    return found, pool


def _named(convolutions: Mapping[str, _Convolution], pool: str) -> tuple[dict[str, _Convolution], ResNetForm]:
    """The convolutions by torchvision's names, and the form of the network."""
    taking: dict[str, list[_Convolution]] = {}
    for one in convolutions.values():
        taking.setdefault(one.source, []).append(one)
    named = {"conv1": next(one for one in convolutions.values() if one.weight.shape[2:] == (7, 7))}
    forms, stage, block, channels = set(), 0, 0, 0
    for gives, middle in convolutions.items():
        if middle.weight.shape[2:] != (3, 3):
            continue
        first = convolutions[middle.source]
        (last,) = taking[gives]
        stage, block = (stage + 1, 0) if len(middle.weight) != channels else (stage, block + 1)
        channels = len(middle.weight)
        if len(last.weight) != EXPANSION * channels:
            raise ValueError("its blocks do not end with four times their channels")
        place = f"layer{stage}.{block}"
        named |= {f"{place}.conv1": first, f"{place}.conv2": middle, f"{place}.conv3": last}
        if block == 0:
            shortcut = next(one for one in taking[first.source] if one is not first)
            named[f"{place}.downsample.0"] = shortcut
            if shortcut.stride > 1:
                forms.add("v1" if first.stride > 1 else "v1.5")
    if forms != {pool}:
        raise ValueError(f"its strides are of form {', '.join(sorted(forms))}, its max pooling of {pool or 'none'}")
    return named, "v1" if pool == "v1" else "v1.5"


# ------------------------------------------------------------------ batch norm


@torch.no_grad()
def recalibrate(backbone: Backbone, pictures: Tensor) -> Backbone:
    """The same function of pictures in testing, with batch norms whose statistics are those of these pictures.

    pictures: uint8 [N, 3, H, W], enough of them: the statistics are what training starts from.
    """
    assert backbone.form is not None
    network = STResNet(
        1,
        backbone.depth,
        backbone.width,
        temporal_kernels=False,
        streams=("appearance",),
        resnet=backbone.form,
        stem_width=backbone.stem_width,
        rgb_mean=backbone.rgb_mean,
        rgb_deviation=backbone.rgb_deviation,
    )
    stream = network.appearance
    assert stream is not None
    # The classifier may be of any number of classes, and takes no part.
    body = {key: value for key, value in backbone.state.items() if not key.startswith("fc.")}
    missing, unexpected = stream.load_state_dict(body, strict=False)
    assert not unexpected, unexpected
    assert all(key.startswith("fc.") or key.endswith("num_batches_tracked") for key in missing), missing
    network.eval()
    norms = {name: one for name, one in stream.named_modules() if isinstance(one, torch.nn.BatchNorm2d)}
    moments = {name: Moments() for name in norms}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, inputs, moment=moments[name]: moment.add(inputs[0]))
    normalise = network.normalise()
    for part in pictures.split(8):
        network(*normalise(part[:, None], None))
    state = dict(backbone.state)
    for name, norm in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = moments[name].mean, moments[name].squares / moments[name].count
        slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        state[f"{name}.weight"] = (slope * (variance + norm.eps).sqrt()).float()
        state[f"{name}.bias"] = (norm.bias.double() + slope * (mean - norm.running_mean.double())).float()
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = mean.float(), variance.float()
    return replace(backbone, state=state)
