"""Weights from torchvision, from files and from base runs: a load succeeds whole, or raises and changes nothing."""

import contextlib
import gzip
import io
import os
import pickle
import socket
import urllib.error
import zipfile

import pytest
import torch
import torchvision
from torchvision.models.resnet import Bottleneck, ResNet

from pipelines.errors import MissingError, UsageError
from pipelines.models import STResNet, load_pretrained, load_streams, load_torchvision_state
from pipelines.models.weights import _download, read_state_dict
from pipelines.storage.tensor_file import while_the_server_answers


@pytest.fixture
def resnet26(randomised):
    return randomised(ResNet(Bottleneck, [2, 2, 2, 2], num_classes=11)).state_dict()


def net26(**settings):
    return STResNet(5, **{"depth": 26, "flow_channels": 4, **settings})


def snapshot(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("stream", ["appearance", "motion"])
def test_every_tensor_of_torchvisions_state_dict_lands_where_it_belongs(resnet26, stream):
    net = net26()
    before = snapshot(net)
    load_torchvision_state(net, resnet26, stream)
    for key, value in net.state_dict().items():
        name, inner = key.split(".", 1)
        given = resnet26[inner]
        if name != stream or inner.startswith("fc."):
            assert torch.equal(value, before[key]), key
        elif value.ndim == 5:
            assert torch.equal(value, torch.stack([given / 3] * 3, dim=2)), key
        elif key == "motion.conv1.weight":
            torch.testing.assert_close(value, torch.stack([given.sum(dim=1) / 3] * 4, dim=1))
        else:
            assert torch.equal(value, given), key


def test_temporal_kernels_start_as_the_network_says(resnet26):
    net = net26(temporal_init="center", streams=("appearance",))
    load_torchvision_state(net.appearance, resnet26)
    weight = net.appearance.layer3[1].conv1.weight
    assert torch.equal(weight[:, :, 1], resnet26["layer3.1.conv1.weight"])
    assert not weight[:, :, ::2].any()


def test_files_without_batch_counters_load_as_in_torch(resnet26):
    old = {key: value for key, value in resnet26.items() if "num_batches_tracked" not in key}
    load_torchvision_state(net26(), old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("layer2.0.conv2.weight"),
            r"layer2.0.conv2.weight is missing \(the network's is \[128, 128, 3, 3\]",
        ),
        (lambda s: s.update(extra=torch.zeros(2)), r"extra \[2\] is not in the network"),
        (
            lambda s: s.update({"layer1.1.conv1.weight": torch.zeros(64, 256, 3, 3)}),
            r"layer1.1.conv1.weight is \[64, 256, 3, 3\], the network's \[64, 256, 3, 1, 1\]",
        ),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 4, 7, 7)}), r"conv1.weight is \[64, 4, 7, 7\]"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(resnet26, change, message):
    net = net26()
    before = snapshot(net)
    change(resnet26)
    with pytest.raises(MissingError, match=message):
        load_torchvision_state(net, resnet26)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_weights_of_another_depth_are_refused(resnet26):
    with pytest.raises(MissingError, match=r"layer1.2.conv1.weight is missing.*and \d+ more"):
        load_torchvision_state(STResNet(5, depth=50, streams=("appearance",)), resnet26)


def test_a_stream_that_is_not_there_is_named(resnet26):
    with pytest.raises(UsageError, match="no motion stream, only appearance"):
        load_torchvision_state(net26(streams=("appearance",)), resnet26, "motion")


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"backbone.{k}": v for k, v in s.items()} | {"head.fc.weight": torch.zeros(2)}},
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {}},
    ],
)
def test_a_file_fills_every_stream_the_network_has(tmp_path, wrap, small_net, randomised):
    narrow = STResNet(1000, depth=26, width=4, streams=("appearance",), temporal_kernels=False)
    state = {k.removeprefix("appearance."): v for k, v in randomised(narrow).state_dict().items()}
    path = tmp_path / "weights.pth"
    torch.save(wrap(state), path)
    net = small_net()
    load_pretrained(net, path)
    for stream in net.streams.values():
        assert torch.equal(stream.layer4[0].conv2.weight, state["layer4.0.conv2.weight"])


def test_none_loads_nothing(small_net):
    net = small_net()
    before = snapshot(net)
    load_pretrained(net, "none")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, small_net):
    torch.save({"conv1.weight": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pth")
    with pytest.raises(MissingError, match=r"bomb.pth cannot be read as a file of plain tensors"):
        load_pretrained(small_net(), tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused(tmp_path, small_net, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(MissingError, match=r"bad.pth cannot be read"):
        load_pretrained(small_net(), tmp_path / "bad.pth")


def test_a_file_with_a_hole_is_refused_where_it_has_checksums(tmp_path):
    path = tmp_path / "hole.pth"
    torch.save({"weight": torch.ones(5000)}, path)
    content = bytearray(path.read_bytes())
    content[9000:11000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(MissingError, match=r"hole/data/0 does not match its checksum"):
        read_state_dict(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(5000)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_state_dict(path)["weight"].sum() == 5000


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def saved(content: object, **how: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


TENSORS = {"weight": torch.arange(1000.0)}
OTHER_FILES = {
    "page": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 102530333\n",
        "Git LFS pointer.*git lfs",
    ),
    "json": (b'{"message": "Not Found"}', "JSON"),
    "empty": (b"", "empty"),
    "text": (b"no such model\n", "text"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5 .*Keras"),
    "safetensors": ((64).to_bytes(8, "little") + b'{"__metadata__":{}}' + bytes(100), "safetensors.*torch.save"),
    "onnx": (b"\x08\x0a\x12\x07pytorch" + bytes(100), "ONNX"),
    "gzip": (gzip.compress(b"weights"), "archive.*unpack"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(500), "archive.*unpack"),
    "zip": (zipped({"readme.txt": b"x"}), "zip archive.*unpack"),
    "script": (zipped({"model/data.pkl": b"x", "model/constants.pkl": b"x"}), "TorchScript.*state_dict"),
    "npz": (zipped({"a.npy": b"x"}), "NumPy"),
    "cut": (saved(TENSORS)[:1500], "cut off"),
    "cut, older form": (saved(TENSORS, _use_new_zipfile_serialization=False)[:1500], "cut off"),
    "module": (
        saved(torch.nn.Conv2d(3, 3, 3)),
        r"Python objects \(torch\.nn\.modules\.conv\.Conv2d\).*model\.state_dict",
    ),
    "pickle": (pickle.dumps({"weight": 1}), "pickle that torch.save did not write"),
    "noise": (bytes(range(200, 256)) * 9, "did not write it, or it is damaged"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_what_people_take_for_weights_is_named_without_advice_to_trust_it(tmp_path, kind):
    content, message = OTHER_FILES[kind]
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(
        MissingError, match=rf"weights\.pth cannot be read as a file of plain tensors \(.*{message}"
    ) as told:
        read_state_dict(tmp_path / "weights.pth")
    text = str(told.value)
    assert text.isprintable()
    assert "weights_only" not in text
    assert "trust" not in text


def test_a_folder_is_no_weights_file(tmp_path):
    with pytest.raises(MissingError, match="it is a folder"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_the_tensors_name(tmp_path, value):
    torch.save({"conv1.weight": torch.zeros(3), "bn1.running_var": torch.tensor([1.0, value])}, tmp_path / "bad.pth")
    with pytest.raises(MissingError, match=r"bad\.pth holds NaN or infinity in bn1\.running_var"):
        read_state_dict(tmp_path / "bad.pth")


def test_a_variance_below_zero_is_refused_by_the_tensors_name(tmp_path):
    for variance, told in ((-1e-5, True), (-1e-8, False)):
        torch.save({"bn1.running_var": torch.tensor([1.0, variance])}, tmp_path / "bad.pth")
        expected = pytest.raises(
            MissingError, match=r"bad\.pth holds a negative variance in bn1\.running_var: no training"
        )
        with expected if told else contextlib.nullcontext():
            read_state_dict(tmp_path / "bad.pth")


def test_weights_of_whole_numbers_are_refused(tmp_path):
    torch.save({"bn1.num_batches_tracked": torch.tensor(3), "conv1.weight": torch.ones(3).char()}, tmp_path / "q.pth")
    with pytest.raises(MissingError, match=r"whole numbers \(int8\) under 'conv1\.weight'.*: give the weights that"):
        read_state_dict(tmp_path / "q.pth")


@pytest.mark.parametrize(
    ("content", "message"), [({"epoch": 3}, "holds int under 'epoch'"), ({}, "no state dict"), ([1], "no state dict")]
)
def test_a_file_without_tensors_by_name_is_refused(tmp_path, small_net, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(MissingError, match=message):
        load_pretrained(small_net(), str(tmp_path / "other.pth"))


def test_an_absent_file_is_named_with_the_other_choices(tmp_path, small_net):
    with pytest.raises(MissingError, match=r"no weights file .*absent.pth: .*imagenet.*none"):
        load_pretrained(small_net(), tmp_path / "absent.pth")


# ------------------------------------------------------------------ ImageNet


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub folder, and no network."""

    def refuse(url, *arguments, **settings):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub"


def test_without_a_network_the_message_names_the_file_and_where_to_put_it(hub):
    with torch.device("meta"):
        net = STResNet(5, depth=101)
    url = torchvision.models.ResNet101_Weights.IMAGENET1K_V1.url
    with pytest.raises(MissingError) as raised:
        load_pretrained(net, "imagenet")
    assert url in str(raised.value)
    assert str(hub / "checkpoints") in str(raised.value)


def test_the_download_is_checked_against_the_hash_in_its_name_and_keeps_silent(hub, monkeypatch, capsys):
    calls = []

    def download(url, destination, hash_prefix, progress):
        calls.append((url, hash_prefix, progress))
        torch.save({"fc.bias": torch.zeros(1)}, destination)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with torch.device("meta"):
        net = STResNet(5, depth=152)
    with pytest.raises(MissingError, match="does not fit"):
        load_pretrained(net, "imagenet")
    url = torchvision.models.ResNet152_Weights.IMAGENET1K_V1.url
    assert calls == [(url, url.rsplit("-", 1)[1].removesuffix(".pth"), False)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("settings", [{"depth": 26, "width": 64}, {"depth": 50, "width": 4}])
def test_there_are_no_imagenet_weights_for_other_sizes(hub, small_net, settings):
    with torch.device("meta"):
        net = STResNet(5, **settings)
    with pytest.raises(UsageError, match=f"depth {settings['depth']} and width {settings['width']}, only for depth 50"):
        load_pretrained(net, "imagenet")


# ------------------------------------------------------------------ base runs


def test_base_streams_are_connected_with_their_classifiers_and_grown_kernels(small_net):
    joint = small_net()
    bases = {name: small_net(streams=(name,), temporal_kernels=False) for name in ("appearance", "motion")}
    for name, base in bases.items():
        assert load_streams(joint, base.state_dict()) == (name,)
    for key, value in joint.state_dict().items():
        given = bases[key.split(".")[0]].state_dict()[key]
        assert torch.equal(value, torch.stack([given / 3] * 3, dim=2) if value.ndim == 5 else given), key


def test_a_joint_networks_kernels_are_copied_as_they_are(small_net):
    first, second = small_net(temporal_init="random"), small_net(temporal_pool=(2, 1), temporal_init="random")
    assert load_streams(second, first.state_dict()) == ("appearance", "motion")
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("motion.fc.bias"), MissingError, r"motion stream.*fc.bias is missing"),
        (
            lambda s: s.update({"motion.fc.bias": torch.zeros(9)}),
            MissingError,
            r"fc.bias is \[9\], the network's \[5\]",
        ),
        (lambda s: s.update(fc=torch.zeros(9)), MissingError, "fc is not a tensor of a stream"),
        (lambda s: s.clear(), MissingError, "empty"),
        (lambda s: s.update({"appearance.fc.bias": torch.zeros(5)}), UsageError, "no appearance stream, only motion"),
    ],
)
def test_a_base_run_that_does_not_fit_raises(small_net, change, error, message):
    net = small_net(streams=("motion",))
    state = dict(net.state_dict())
    change(state)
    with pytest.raises(error, match=message):
        load_streams(net, state)


def test_a_download_from_a_server_that_falls_silent_ends_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(while_the_server_answers.__wrapped__, "__defaults__", (0.2,))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the connection and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/resnet50-0676ba61.pth"
        with pytest.raises(MissingError, match=r"could not be downloaded \(timed out\): fetch http"):
            _download(url, tmp_path / "resnet50-0676ba61.pth")
    assert socket.getdefaulttimeout() is None
