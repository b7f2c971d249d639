"""Checkpoints and weights from strangers: nothing in them is executed, and what they only claim takes no memory."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from pipelines.errors import MissingError
from pipelines.models.weights import read_state_dict
from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA, load, save
from pipelines.training.runs import Run, load_network


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def write_bomb(path: Path, target: Path, how: str) -> None:
    content = {"schema": CHECKPOINT_SCHEMA, "model": Bomb(target)}
    if how == "torch":
        torch.save(content, path)
    elif how == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_a_pickle_bomb_is_refused_wherever_it_stands(tmp_path: Path, target: Path, how: str) -> None:
    bomb = tmp_path / "bomb.pt"
    write_bomb(bomb, target, how)
    for read in (lambda: load(bomb, CHECKPOINT_SCHEMA), lambda: read_state_dict(bomb)):
        with pytest.raises(MissingError, match=r"bomb\.pt"):
            read()
    assert not target.exists()
    if how == "torch":
        torch.load(bomb, weights_only=False)
        assert target.exists()  # it is one


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path: Path) -> None:
    plain, small = tmp_path / "plain.pt", tmp_path / "small.pt"
    torch.save({"weight": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    assert small.stat().st_size < plain.stat().st_size / 100
    with pytest.raises(MissingError, match="compressed"):
        read_state_dict(small)


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stretched.pt"
    torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(MissingError, match=r"claims \[1000000, 1000000\]"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"width": 10**6}, "weights, the file"),
        ({"num_classes": 10**9}, "weights, the file"),
        ({"num_classes": 3}, "3 classes, config.json 2"),
        ({"depth": "../../x"}, "holds no network"),
        ({"code": "x"}, "holds no network"),
    ],
)
def test_a_network_larger_than_its_weights_is_not_built(
    trained_on_videos, tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    original = Run(trained_on_videos.workspace.runs / "split1")
    run = Run(tmp_path / "split1")
    content = load(original.weights_file("appearance"), WEIGHTS_SCHEMA)
    if settings.get("num_classes") == 3:
        model = content["model"]
        model |= {key: torch.zeros(3, *value.shape[1:]) for key, value in model.items() if ".fc." in key}
    content["network"] |= settings
    run.weights_file("appearance").parent.mkdir(parents=True)
    run.config_file.write_bytes(original.config_file.read_bytes())
    save(run.weights_file("appearance"), WEIGHTS_SCHEMA, {k: v for k, v in content.items() if k != "schema"})
    with pytest.raises(MissingError, match=reason):
        load_network(run, "appearance")


def test_a_flipped_bit_of_a_weight_is_found(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save(path, WEIGHTS_SCHEMA, {"model": {"weight": torch.full((1000,), 0.25)}})
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), 0.25).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingError, match="checksum"):
        load(path, WEIGHTS_SCHEMA)
