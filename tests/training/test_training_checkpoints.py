"""Checkpoints load whole or raise; nothing in them is executed."""

import os
import pickle

import pytest
import torch

from pipelines.errors import MissingError
from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA, load, save


def test_what_was_saved_is_loaded(tmp_path):
    file = tmp_path / "weights.pt"
    save(file, WEIGHTS_SCHEMA, {"model": {"a": torch.arange(3)}, "seconds": 1.5})
    content = load(file, WEIGHTS_SCHEMA)
    assert torch.equal(content["model"]["a"], torch.arange(3))
    assert content["seconds"] == 1.5
    assert os.listdir(tmp_path) == ["weights.pt"]


def test_a_missing_checkpoint_names_the_command(tmp_path):
    with pytest.raises(MissingError, match="stres train"):
        load(tmp_path / "none.pt", WEIGHTS_SCHEMA)


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_half_a_checkpoint_is_refused(tmp_path, keep):
    file = tmp_path / "weights.pt"
    save(file, WEIGHTS_SCHEMA, {"model": torch.zeros(1000)})
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(MissingError, match="does not load"):
        load(file, WEIGHTS_SCHEMA)


def test_another_kind_of_file_is_refused(tmp_path):
    file = tmp_path / "weights.pt"
    save(file, CHECKPOINT_SCHEMA, {"model": torch.zeros(10)})
    with pytest.raises(MissingError, match="schema 'stres/checkpoint/1', not 'stres/weights/1'"):
        load(file, WEIGHTS_SCHEMA)


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    file = tmp_path / "weights.pt"
    trap = tmp_path / "trap"
    torch.save({"schema": WEIGHTS_SCHEMA, "model": _Bomb(str(trap))}, file)
    with pytest.raises(MissingError, match="does not load"):
        load(file, WEIGHTS_SCHEMA)
    file.write_bytes(pickle.dumps(_Bomb(str(trap))))
    with pytest.raises(MissingError, match="does not load"):
        load(file, WEIGHTS_SCHEMA)
    assert not trap.exists()
