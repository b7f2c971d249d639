"""Files of tensors as `torch.save` writes them, from anybody: nothing is executed, and no claim is believed."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class TensorFileError(Exception):
    """The file cannot be read; the text says why, in one line."""


def read_tensors(path: Path, *, verify: bool = False) -> Any:
    """What the file holds, on the CPU. `verify`: its checksums too, which not every program writes.

    Raises `FileNotFoundError`, and `TensorFileError` where it is damaged or holds anything but plain data.
    """
    try:
        with warnings.catch_warnings():  # torch warns of foreign pickles before it refuses them
            warnings.simplefilter("ignore")
            if zipfile.is_zipfile(path):
                _check_archive(path, verify)
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged pickle can make its reader raise anything
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise TensorFileError(f"{type(error).__name__}: {first_line}"[:300]) from error


def require_tensors(state: Any, name: str) -> Mapping[str, Tensor]:
    """`state` if it holds nothing but tensors by name, each with all of its numbers. Raises `TensorFileError`."""
    if not isinstance(state, Mapping) or not state:
        raise TensorFileError(f"{name} holds no tensors by name")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TensorFileError(f"{name} holds {type(value).__name__} under {key!r}, not only tensors by name")
        # One number in the file can stand for any number of them.
        if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise TensorFileError(f"{name} claims {list(value.shape)} under {key!r}, which is not in the file")
    return state


def _check_archive(path: Path, verify: bool) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its parts are compressed, which torch.save does not do")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its parts claim more bytes than it has")
        damaged = archive.testzip() if verify else None
        if damaged is not None:
            raise ValueError(f"{damaged} does not match its checksum")
