"""Pretrained ResNets of both forms and of other programs: each gives the features that its own network gives.

The reference is written from the papers' description with torch's functions alone, layer by layer.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import MissingError, UsageError
from pipelines.models import STResNet
from pipelines.models.backbones import Backbone, backbone_of, from_matconvnet, from_onnx, recalibrate
from pipelines.models.normalise import Normalise
from pipelines.models.stream import BLOCKS, Stream

OPEN_NSFW = Path(__file__).parents[3] / "shared" / "data" / "weights" / "opennsfw_resnet50_w32.pth"
FORMS = ("v1", "v1.5")


def reference_features(state: dict[str, Tensor], x: Tensor, form: str) -> Tensor:
    """[N, 3, H, W] normalised -> what average pooling gives the classifier, in the precision of `x`."""

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias, mean, var = (
            state[f"{name}.{key}"].to(x) for key in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / torch.sqrt(var + 1e-5)
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"].to(x)
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = norm(convolve(x, "conv1", 2), "bn1").relu()
    around = (0, 1, 0, 1) if form == "v1" else (1, 1, 1, 1)
    x = F.max_pool2d(F.pad(x, around, value=float("-inf")), 3, 2)
    for stage in (1, 2, 3, 4):
        for block in range(99):
            name = f"layer{stage}.{block}"
            if f"{name}.conv1.weight" not in state:
                break
            stride = 2 if block == 0 and stage > 1 else 1
            first, second = (stride, 1) if form == "v1" else (1, stride)
            y = norm(convolve(x, f"{name}.conv1", first), f"{name}.bn1").relu()
            y = norm(convolve(y, f"{name}.conv2", second), f"{name}.bn2").relu()
            y = norm(convolve(y, f"{name}.conv3"), f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = norm(convolve(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = (x + y).relu()
    return x.mean((2, 3))


def features(backbone: Backbone, pictures: Tensor, *, form: str | None = None) -> Tensor:
    """uint8 [N, 3, H, W] -> the network's pooled features, in double precision."""
    network = STResNet(
        2, backbone.depth, backbone.width, streams=("appearance",), temporal_kernels=False,
        resnet=form or backbone.form, stem_width=backbone.stem_width,
        rgb_mean=backbone.rgb_mean, rgb_deviation=backbone.rgb_deviation,
    )  # fmt: skip
    stream = network.appearance
    stream.load_state_dict(dict(backbone.state), strict=False)
    network.double().eval()
    with torch.no_grad():
        x = stream.stem(network.normalise().double()(pictures[:, None], None)[0])
        for stage in stream.stages:
            x = stage.from_block_b(stage.block_a(x, 1), None, 1)
    return x.mean((2, 3))


def normalised(backbone: Backbone, pictures: Tensor) -> Tensor:
    mean, deviation = (
        torch.tensor(values, dtype=torch.float64)[:, None, None]
        for values in (backbone.rgb_mean, backbone.rgb_deviation)
    )
    return (pictures.double() / 255 - mean) / deviation


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def pictures(count: int = 3, height: int = 66, width: int = 75) -> Tensor:
    """Odd sizes, at which the two forms of max pooling see different pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 3, height // 5 + 1, width // 5 + 1), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(5, 2).repeat(5, 3)[:, :, :height, :width].copy())


def random_state(depth: int = 26, width: int = 4, stem_width: int = 6) -> dict[str, Tensor]:
    """A state dict without classifier, no number of which is a default."""
    torch.manual_seed(0)
    stream = Stream(
        3, 1, depth=depth, width=width, stem_width=stem_width, form="v1", temporal=None, temporal_pool=None, dropout=0.0
    )
    state = {key: value for key, value in stream.state_dict().items() if not key.startswith("fc.")}
    for key, value in state.items():
        if key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif value.ndim == 1:
            value.normal_(std=0.2)
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_that_of_its_paper(form):
    backbone = Backbone(random_state(), form)
    expected = reference_features(backbone.state, normalised(backbone, pictures()), form)
    assert (backbone.depth, backbone.width, backbone.stem_width) == (26, 4, 6)
    assert relative(features(backbone, pictures()), expected) < 1e-6
    other = next(one for one in FORMS if one != form)
    assert relative(features(backbone, pictures(), form=other), expected) > 0.05


@pytest.mark.skipif(not OPEN_NSFW.exists(), reason="no pretrained weights")
def test_real_weights_of_form_v1_give_the_features_of_their_network_and_far_from_it_in_the_other_form():
    state = torch.load(OPEN_NSFW, weights_only=True)
    backbone = Backbone(state, "v1")
    assert (backbone.depth, backbone.width, backbone.stem_width) == (50, 32, 64)
    shown = pictures(2, 224, 224)
    expected = reference_features(state, normalised(backbone, shown), "v1")
    assert relative(features(backbone, shown), expected) < 1e-6
    assert relative(features(backbone, shown, form="v1.5"), expected) > 0.3


def test_a_written_backbone_is_read_with_its_form_its_normalisation_and_its_source(tmp_path):
    backbone = Backbone(random_state(), "v1", (0.4, 0.5, 0.6), (0.2, 0.2, 0.2), "a test")
    torch.save(backbone.document(), tmp_path / "b.pth")
    document = torch.load(tmp_path / "b.pth", weights_only=True)
    found = backbone_of(document, document["state_dict"], "b.pth")
    assert (found.form, found.rgb_mean, found.rgb_deviation, found.source) == (
        "v1", (0.4, 0.5, 0.6), (0.2, 0.2, 0.2), "a test",
    )  # fmt: skip
    with pytest.raises(MissingError, match="form or its normalisation"):
        backbone_of(document | {"resnet": "v3"}, document["state_dict"], "b.pth")


WIDE = {"conv1": (128, 64, 1, 1), "conv2": (128, 128, 3, 3), "conv3": (256, 128, 1, 1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.conv3.weight"), r"no layer1\.0\.conv3\.weight"),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(4, 1, 7, 7)}),
            r"for grey pictures, of 1 channel: give",
        ),
        (lambda state: state.update({"conv1.weight": torch.zeros(4, 20, 7, 7)}), r"for other pictures, of 20 channels"),
        (
            lambda state: state.update({"layer1.0.conv2.weight": torch.zeros(128, 4, 3, 3)}),
            r"of a ResNeXt \(32 groups of 4 channels\): give the weights of a plain ResNet",
        ),
        (
            lambda state: state.update({f"layer1.0.{k}.weight": torch.zeros(v) for k, v in WIDE.items()}),
            r"of a Wide ResNet \(first blocks of 128 channels that give 256\)",
        ),
        (lambda state: state.update({"layer1.0.se.fc1.weight": torch.zeros(1)}), "of a SE-ResNet"),
        (lambda state: state.update({"layer2.2.conv1.weight": torch.zeros(1)}), "2, 3, 2, 2 blocks: known are depths"),
    ],
)
def test_other_networks_are_refused_by_what_they_lack(change, message):
    state = random_state()
    change(state)
    with pytest.raises(UsageError, match=message):
        Backbone(state)


# ------------------------------------------------------------------ MatConvNet

AVERAGE = (123.7, 116.8, 103.9)


def write_matconvnet(path: Path, state: dict[str, Tensor], *, drop: str = "") -> None:
    """`state` laid out as MatConvNet's imagenet-resnet-50-dag.mat: params, layers, meta."""
    params, layers = [], []

    def add(name: str, value: Tensor) -> None:
        if name != drop:
            params.append({"name": name, "value": value.numpy().astype(np.float32)})

    for key, weight in state.items():
        if weight.ndim != 4:
            continue
        found = re.fullmatch(r"layer(\d)\.(\d+)\.(?:conv(\d)|downsample\.0)\.weight", key)
        if found is None:
            convolution, norm, ours, stride = "conv1", "bn_conv1", "bn1", 2
        else:
            stage, block, number = found.groups()
            branch = f"{int(stage) + 1}{'abcdef'[int(block)]}_branch" + (
                "1" if number is None else f"2{'abc'[int(number) - 1]}"
            )
            convolution, norm = f"res{branch}", f"bn{branch}"
            place = key.removesuffix(".weight").rpartition(".")[0]
            ours = f"{place}.1" if number is None else f"{place}.bn{number}"
            stride = 2 if int(stage) > 1 and block == "0" and number in (None, "1") else 1
        add(f"{convolution}_filter", weight.permute(2, 3, 1, 0))
        bias = torch.zeros(len(weight))
        if found is None:  # Caffe's first layer had a bias
            bias = torch.arange(len(weight)) / 10
            add("conv1_bias", bias)
        add(f"{norm}_mult", state[f"{ours}.weight"])
        add(f"{norm}_bias", state[f"{ours}.bias"])
        deviation = torch.sqrt(state[f"{ours}.running_var"] + 1e-5)
        add(f"{norm}_moments", torch.stack([state[f"{ours}.running_mean"] + bias, deviation], 1))
        layers.append(
            {
                "name": convolution,
                "type": "dagnn.Conv",
                "params": np.array([f"{convolution}_filter"], dtype=object),
                "block": {"stride": np.array([[stride, stride]])},
            }
        )
    add("fc1000_filter", torch.zeros(1, 1, 8, 10))
    structs = {
        "params": np.array([tuple(one.values()) for one in params], dtype=[("name", object), ("value", object)]),
        "layers": np.array(
            [tuple(one.values()) for one in layers],
            dtype=[("name", object), ("type", object), ("params", object), ("block", object)],
        ),
        "meta": {"normalization": {"averageImage": np.broadcast_to(np.float32(AVERAGE), (4, 4, 3))}},
    }
    scipy.io.savemat(path, structs)


def test_a_dag_of_matconvnet_gives_the_features_of_its_network(tmp_path):
    state = random_state(50, 4, 4)
    write_matconvnet(tmp_path / "imagenet-resnet-50-dag.mat", state)
    backbone = from_matconvnet(tmp_path / "imagenet-resnet-50-dag.mat")
    assert (backbone.form, backbone.depth, backbone.width) == ("v1", 50, 4)
    assert backbone.rgb_mean == pytest.approx([value / 255 for value in AVERAGE])
    expected = reference_features(state, pictures().double() - torch.tensor(AVERAGE)[:, None, None], "v1")
    assert relative(features(backbone, pictures()), expected) < 1e-5


def test_what_a_file_of_matlab_lacks_is_named(tmp_path):
    write_matconvnet(tmp_path / "a.mat", random_state(50, 2, 2), drop="bn3a_branch2b_mult")
    with pytest.raises(MissingError, match="bn3a_branch2b_mult"):
        from_matconvnet(tmp_path / "a.mat")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(MissingError, match="cannot be read as a DagNN"):
        from_matconvnet(tmp_path / "a.mat")


# ------------------------------------------------------------------ ONNX


def write_onnx(path: Path, state: dict[str, Tensor], form: str, *, fold: bool) -> None:
    """The graph of a ResNet of Caffe, converted: batch norms folded into convolutions that have a bias, or kept."""
    onnx = pytest.importorskip("onnx")
    nodes, values = [], []

    def constant(name: str, value: Tensor) -> str:
        values.append(onnx.numpy_helper.from_array(value.numpy(), name))
        return name

    def convolve(x: str, key: str, norm: str, stride: int) -> str:
        weight = state[f"{key}.weight"]
        pad = weight.shape[-1] // 2
        attributes = {"strides": [stride, stride], "pads": [pad] * 4, "kernel_shape": list(weight.shape[2:])}
        scale, shift, mean, var = (
            state[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        )
        if fold:
            factor = scale / torch.sqrt(var + 1e-5)
            inputs = [
                x,
                constant(f"{key}.w", weight * factor[:, None, None, None]),
                constant(f"{key}.b", shift - mean * factor),
            ]
            nodes.append(onnx.helper.make_node("Conv", inputs, [f"{key}.out"], **attributes))
            return f"{key}.out"
        nodes.append(onnx.helper.make_node("Conv", [x, constant(f"{key}.w", weight)], [f"{key}.raw"], **attributes))
        parts = [constant(f"{norm}.{i}", part) for i, part in enumerate((scale, shift, mean, var))]
        nodes.append(onnx.helper.make_node("BatchNormalization", [f"{key}.raw", *parts], [f"{key}.out"], epsilon=1e-5))
        return f"{key}.out"

    def relu(x: str) -> str:
        nodes.append(onnx.helper.make_node("Relu", [x], [f"{x}.relu"]))
        return f"{x}.relu"

    x = relu(convolve("data", "conv1", "bn1", 2))
    pool = {"pads": [0, 0, 0, 0], "ceil_mode": 1} if form == "v1" else {"pads": [1, 1, 1, 1]}
    nodes.append(onnx.helper.make_node("MaxPool", [x], ["pool"], kernel_shape=[3, 3], strides=[2, 2], **pool))
    x = "pool"
    for stage, blocks in enumerate(BLOCKS[26], 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            strides = (stride, 1, 1) if form == "v1" else (1, stride, 1)
            # Caffe's prototxts list the shortcut first.
            shortcut = convolve(x, f"{name}.downsample.0", f"{name}.downsample.1", stride) if block == 0 else x
            for number in (1, 2, 3):
                x = convolve(x, f"{name}.conv{number}", f"{name}.bn{number}", strides[number - 1])
                x = relu(x) if number < 3 else x
            nodes.append(onnx.helper.make_node("Add", [shortcut, x], [f"{name}.sum"]))
            x = relu(f"{name}.sum")
    pictures = onnx.helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, [1, 3, 64, 64])
    outcome = onnx.helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, None)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "resnet", [pictures], [outcome], values)), str(path))


MEAN, DEVIATION = (0.4, 0.45, 0.5), (1 / 255,) * 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fold", [True, False])
def test_a_resnet_as_onnx_gives_the_features_of_its_network(tmp_path, form, fold):
    state = random_state()
    write_onnx(tmp_path / "net.onnx", state, form, fold=fold)
    backbone, folded = from_onnx(tmp_path / "net.onnx", MEAN, DEVIATION)
    assert (backbone.form, backbone.depth, folded) == (form, 26, fold)
    expected = reference_features(state, normalised(backbone, pictures()), form)
    assert relative(features(backbone, pictures()), expected) < 1e-5


def test_a_network_that_takes_blue_first_takes_red_first_then(tmp_path):
    state = random_state()
    write_onnx(tmp_path / "net.onnx", state, "v1", fold=False)
    backbone, _ = from_onnx(tmp_path / "net.onnx", MEAN, DEVIATION, bgr=True)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    blue_first = ((pictures().double() / 255 - mean) / deviation).flip(1)
    assert relative(features(backbone, pictures()), reference_features(state, blue_first, "v1")) < 1e-5


# ------------------------------------------------------------------ batch norm


def test_recalibrated_batch_norms_have_the_statistics_of_the_pictures_and_change_nothing_in_testing():
    state = random_state()
    for key in state:
        if key.endswith("running_mean"):
            state[key].zero_()
        elif key.endswith("running_var"):
            state[key].fill_(1 - 1e-5)
    backbone = Backbone(state, "v1")
    shown = pictures(11)
    calibrated = recalibrate(backbone, shown)
    assert relative(features(calibrated, shown), features(backbone, shown)) < 1e-5
    x = F.conv2d(Normalise()(shown, None)[0].double(), state["conv1.weight"].double(), stride=2, padding=3)
    torch.testing.assert_close(calibrated.state["bn1.running_mean"].double(), x.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        calibrated.state["bn1.running_var"].double(), x.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-5
    )
