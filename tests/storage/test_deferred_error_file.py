"""A file whose owner alone hears of trouble: HDF5 and PyTorch can neither catch it nor let go of what they hold."""

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pipelines.storage.hdf5_guards import DeferredErrorFile


def test_hdf5_that_writes_after_its_file_was_closed_has_nothing_to_complain_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when Ctrl-C arrives inside of h5py: the exception holds the open file, and is freed long after.
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    path = tmp_path / "scores.h5"
    disk = DeferredErrorFile(path)
    file = h5py.File(disk, "w")
    file["late"] = np.arange(1000)
    disk.close()
    size = path.stat().st_size
    del file
    assert complaints == []
    assert path.stat().st_size == size
    disk.check()


def test_pytorch_that_writes_after_its_file_was_closed_does_not_fail(tmp_path: Path) -> None:
    disk: Any = DeferredErrorFile(tmp_path / "last.pt")
    disk.close()
    torch.save({"weights": torch.zeros(10)}, disk)
    assert (tmp_path / "last.pt").read_bytes() == b""
