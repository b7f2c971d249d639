"""Files of a training step: what continues it (`checkpoint.pt`) and what it leaves (`weights.pt`).

Both hold plain tensors, numbers and strings, and load with `weights_only=True`: nothing in them is executed.
"""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from pipelines.errors import MissingError
from pipelines.interface.wording import DIVERGED
from pipelines.storage.atomic import atomic_file, storage_errors
from pipelines.storage.hdf5_guards import DeferredErrorFile
from pipelines.storage.provenance import made_by
from pipelines.storage.tensor_file import (
    NEGATIVE_VARIANCE,
    TensorFileError,
    negative_variance,
    not_finite,
    read_tensors,
)
from pipelines.training.run_config import with_current_names

CHECKPOINT_SCHEMA = "stres/checkpoint/1"
WEIGHTS_SCHEMA = "stres/weights/1"


def save(path: Path, schema: str, content: dict[str, Any]) -> None:
    """Writes `content` whole or not at all. Raises `StorageError`."""
    with atomic_file(path) as temporary, storage_errors(path), contextlib.closing(DeferredErrorFile(temporary)) as file:
        whole = made_by(schema, "numpy", "torch") | content
        torch.save(whole, cast("IO[bytes]", file))  # its zip writer hides why a write failed
        file.check()


def size(schema: str, content: dict[str, Any]) -> int:
    """The bytes of the file that `save` would write."""
    counter = _Counter()
    torch.save(made_by(schema, "numpy", "torch") | content, cast("IO[bytes]", counter))
    return counter.bytes


def load(path: Path, schema: str) -> dict[str, Any]:
    """Reads what `save` wrote, on the CPU.

    Args:
        schema: What it has to be.

    Raises:
        MissingError: The file is absent, damaged, of another schema, or holds weights that are not finite, or variances
            below zero.
    """
    try:
        content = read_tensors(path)
    except FileNotFoundError:
        raise MissingError(f"{path} is missing: run `stres train` first") from None
    except TensorFileError as error:
        advice = error.advice or "delete it, and the step starts over"
        raise MissingError(f"{path} does not load ({error}): {advice}") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != schema:
        raise MissingError(
            f"{path} has the schema {found!r}, not {schema!r}: it is not a file of this version of stres"
        )
    model = content.get("model")
    broken = not_finite(model) if isinstance(model, Mapping) else ""
    if broken:
        raise MissingError(f"{path} holds NaN or infinity in {broken}: {DIVERGED}")
    if isinstance(model, Mapping) and (broken := negative_variance(model)):
        raise MissingError(f"{path} holds a negative variance in {broken}: {NEGATIVE_VARIANCE}")
    return cast("dict[str, Any]", with_current_names(content))


class _Counter(io.RawIOBase):
    """Counts what is written to it, and keeps nothing."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.bytes += size
        return size
