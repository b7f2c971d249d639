"""Checkpoints load whole or raise; nothing in them is executed."""

import contextlib
import json
import os
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipelines.errors import MissingError, StorageError
from pipelines.training.checkpoints import CHECKPOINT_SCHEMA, WEIGHTS_SCHEMA, load, save
from pipelines.training.metrics_log import MetricsLog


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


@pytest.mark.parametrize("schema", [WEIGHTS_SCHEMA, CHECKPOINT_SCHEMA])
def test_weights_that_are_not_finite_are_refused_by_the_tensors_name(tmp_path, schema):
    file = tmp_path / "weights.pt"
    save(file, schema, {"model": {"bn1.num_batches_tracked": torch.ones(1).long(), "fc.bias": torch.tensor([np.nan])}})
    with pytest.raises(MissingError, match=r"weights\.pt holds NaN or infinity in fc\.bias: the training diverged"):
        load(file, schema)


def test_a_variance_below_zero_is_not_said_to_come_of_a_divergence(tmp_path):
    file = tmp_path / "weights.pt"
    save(file, WEIGHTS_SCHEMA, {"model": {"bn1.running_var": torch.tensor([1.0, -0.5])}})
    with pytest.raises(MissingError, match=r"weights\.pt holds a negative variance in bn1\.running_var: no training"):
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


@contextlib.contextmanager
def largest_file(size):
    """Writing beyond so many bytes fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room", [0, 1000, 20_000])
def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(tmp_path, room):
    path = tmp_path / "checkpoint.pt"
    save(path, CHECKPOINT_SCHEMA, {"iteration": 1})

    with largest_file(room), pytest.raises(StorageError, match=r"checkpoint\.pt: the file would grow too large"):
        save(path, CHECKPOINT_SCHEMA, {"iteration": 2, "model": {"weight": torch.rand(100, 100)}})

    assert load(path, CHECKPOINT_SCHEMA)["iteration"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_by_the_log_and_the_half_line_goes(tmp_path):
    log = MetricsLog(tmp_path, "motion", begin=0)
    log.write(10, {"loss": 1.0})

    with largest_file(log.path.stat().st_size + 5):
        with pytest.raises(StorageError, match=r"metrics\.jsonl: the file would"):
            log.write(20, {"loss": 0.5})
        log.close()

    assert not log.path.read_bytes().endswith(b"\n")
    MetricsLog(tmp_path, "motion", begin=10).close()
    assert [json.loads(line)["iteration"] for line in log.path.read_text().splitlines()] == [10]


def test_tensorboard_has_every_point_at_once_and_forgets_those_after_the_checkpoint(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    killed, again = (MetricsLog(tmp_path, "motion", begin) for begin in (0, 10))
    killed.write(10, {"loss": 1.0})
    killed.write(20, {"loss": 0.5})  # and nothing is closed
    again.write(20, {"loss": 0.25})

    files = sorted((tmp_path / "tensorboard" / "motion").iterdir())
    first, second = ([*loader.EventFileLoader(str(file)).Load()] for file in files)
    points = [(event.step, value.tag) for event in first for value in event.summary.value]
    assert points == [(10, "training_loss"), (20, "training_loss")]
    assert [event.step for event in second if event.HasField("session_log")] == [11]
    killed.close()
    again.close()


FULL = """
import resource, signal, sys
from pathlib import Path
from pipelines.errors import StorageError
from pipelines.training.metrics_log import TensorBoardLog

log = TensorBoardLog(Path(sys.argv[1]), 0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
try:
    for line in range(100):
        log.write(line, {"loss": 0.5})
except StorageError as error:
    print(error)
log.close()
"""


def test_curves_that_cannot_be_written_end_in_a_sentence(tmp_path):
    pytest.importorskip("tensorboard")
    ended = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(f"cannot write {tmp_path}: the file would grow too large")
    assert ended.stderr == ""
