"""Untrusted files of tensors, as `torch.save` writes them: nothing in them is executed, and all claims are checked."""

import contextlib
import re
import socket
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.storage.placeholders import placeholder

NEGATIVE_VARIANCE = "no training leaves that, so its numbers were changed: give the weights as they were trained"
"""What to do about weights with a variance below zero."""
EPSILON = 1e-5
"""What batch norms add to a variance, before its root."""


class TensorFileError(Exception):
    """The file cannot be read. The text says why, in one line; `advice`, where known, what to do about it."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


@contextlib.contextmanager
def while_the_server_answers(patience: float = 60.0) -> Iterator[None]:
    """Makes a download in the block, for which torch sets no timeout, raise `TimeoutError` once the server has been
    silent for `patience` seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(patience)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_tensors(path: Path) -> Any:
    """Loads a file on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        TensorFileError: It is damaged, another kind of file, or holds anything but plain data.
    """
    if path.is_dir():
        raise TensorFileError("it is a folder", "name a file in it")
    try:
        with warnings.catch_warnings():  # torch warns of foreign pickles before it refuses them
            warnings.simplefilter("ignore")
            _require_no_other_kind(path)
            if zipfile.is_zipfile(path):
                _check_archive(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, TensorFileError):
        raise
    except Exception as error:  # a damaged pickle can make its reader raise anything
        raise _explained(error, path) from error


def require_tensors(state: Any, name: str) -> Mapping[str, Tensor]:
    """Returns `state`. Raises `TensorFileError` unless it holds only tensors by name, complete and finite, and no
    variance below zero."""
    if not isinstance(state, Mapping) or not state:
        raise TensorFileError(f"{name} holds no tensors by name")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TensorFileError(f"{name} holds {type(value).__name__} under {key!r}, not only tensors by name")
        # A stride of 0 makes one number in the file as many as one likes.
        if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise TensorFileError(f"{name} claims {list(value.shape)} under {key!r}, which is not in the file")
        if not value.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise TensorFileError(
                f"{name} holds whole numbers ({str(value.dtype).removeprefix('torch.')}) under {key!r}, as a quantised "
                "network does",
                "give the weights that it was made from",
            )
    broken = not_finite(state)
    if broken:
        raise TensorFileError(
            f"{name} holds NaN or infinity in {broken}",
            "it was left by a training that diverged: train again with a lower learning rate, or give other weights",
        )
    if broken := negative_variance(state):
        raise TensorFileError(f"{name} holds a negative variance in {broken}", NEGATIVE_VARIANCE)
    return state


def not_finite(state: Mapping[str, Tensor]) -> str:
    """The name of the first tensor that holds NaN or infinity; empty where all numbers are finite."""
    floats = [(name, value) for name, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()]
    return next((name for name, value in floats if not bool(torch.isfinite(value).all())), "")


def negative_variance(state: Mapping[str, Tensor]) -> str:
    """The name of the first variance of a batch norm whose root would be NaN, though `EPSILON` is added; empty for
    none. Rounding makes those of other programs, from which it was subtracted, smaller than zero by less."""
    variances = [(name, value) for name, value in state.items() if name.endswith("running_var")]
    return next(
        (name for name, value in variances if isinstance(value, Tensor) and bool((value <= -EPSILON).any())), ""
    )


# ------------------------------------------------------------------ other files

_WHOLE = "fetch the file again, whole"
_UNPACK = "unpack it and name the file inside"
_TORCHVISIONS = "give a state dict as torch.save writes it"
_STATE_DICT = "save only a state dict: torch.save(model.state_dict(), ...)"


def _require_no_other_kind(path: Path) -> None:
    """Raises `TensorFileError` where the first bytes are those of a kind of file that people take for weights."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise TensorFileError("it is empty", _WHOLE)
    if (found := placeholder(head)) is not None:
        raise TensorFileError(*found)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise TensorFileError("it is an HDF5 file, as Keras and TensorFlow write weights", _TORCHVISIONS)
    if (
        head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf"))
        or head[257:262] == b"ustar"
    ):
        raise TensorFileError("it is a packed archive (tar, gzip or alike)", _UNPACK)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        advice = "torch.save(safetensors.torch.load_file(FILE), 'weights.pth') makes one that is read"
        raise TensorFileError("it is a safetensors file, which is not read", advice)
    if head.startswith(b"\x93NUMPY"):
        raise TensorFileError("it is a NumPy array", _TORCHVISIONS)
    if head[:1] == b"\x08" and 0 < head[1] < 32 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        raise TensorFileError("it is an ONNX model", _TORCHVISIONS)
    if text.startswith((b"{", b"[")) and _is_text(head):
        raise TensorFileError("it is JSON text", _TORCHVISIONS)
    if _is_text(head):
        raise TensorFileError("it is text, not a file of torch.save", _WHOLE)
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        raise TensorFileError("it is cut off", _WHOLE)


def _is_text(head: bytes) -> bool:
    # Pickles of protocol 0 are text too, but torch has never written any.
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(name.endswith(("/constants.pkl", "archive_format", ".code.py", "model.json")) for name in names):
            raise TensorFileError("it is a program (TorchScript or torch.export)", _STATE_DICT)
        if not any(name.endswith("data.pkl") for name in names):
            if names and all(name.endswith(".npy") for name in names):
                raise TensorFileError("it holds NumPy arrays (npz)", _TORCHVISIONS)
            if any(name.endswith(".weights.h5") for name in names):
                raise TensorFileError("it is a Keras model", _TORCHVISIONS)
            raise TensorFileError("it is a zip archive that torch.save did not write", _UNPACK)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its parts are compressed, which torch.save does not do")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its parts claim more bytes than it has")
        archive.filelist = [entry for entry in entries if entry.CRC]  # others have no checksum, as torch allows
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} does not match its checksum")


def _explained(error: Exception, path: Path) -> TensorFileError:
    """The error for what torch raised, without its advice to trust the file."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error)).strip()
    held = re.search(r"(?:GLOBAL|global|class|function)\s+([A-Za-z_][\w.]*\.\w+)", text)
    if "weights_only" in text and held:
        return TensorFileError(f"it holds Python objects ({held[1]}), not only tensors", _STATE_DICT)
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"
    if "weights_only" in text and is_pickle:
        return TensorFileError("it is a Python pickle that torch.save did not write", _STATE_DICT)
    if "weights_only" in text:
        return TensorFileError("torch.save did not write it, or it is damaged", _WHOLE)
    if isinstance(error, EOFError) or "unexpected EOF" in text:
        return TensorFileError("it is cut off", _WHOLE)
    first_line = (text.splitlines() or [""])[0]
    return TensorFileError(f"{type(error).__name__}: {first_line}"[:300])
