"""The scores of a run: one row of logits a video and stream, as they stand in `scores/<run>/<protocol>/scores.h5`.

Letters: V videos, C classes.

`videos`: UTF-8 [V], `<class>/<video>`; `labels`: int64 [V], indices into the attribute `classes`; `appearance`,
`motion`, `fused`: float32 [V, C], mean logits (before softmax); `sources`: text [V], SHA-256 of the file that each
video was stored from, and after a `+` that of its flow's pictures where these were imported (since 0.2.0). A stream
that was not evaluated has no data set.
Of a file name that is not valid UTF-8 the offending bytes are stored as `\\udcff`.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pipelines.errors import MissingError
from pipelines.interface.options import StreamName
from pipelines.interface.wording import DIVERGED, plural
from pipelines.runtime.signals import stop_requests
from pipelines.storage.atomic import json_text, storage_errors
from pipelines.storage.hdf5 import ArtifactError, damaged, new_file, open_file, read_attributes, require_own_data
from pipelines.storage.provenance import made_by

if TYPE_CHECKING:
    import h5py

SCORES_SCHEMA = "stres/scores/1"
Stream = Literal[StreamName, "fused"]
STREAMS: tuple[Stream, ...] = get_args(Stream)


@dataclass(frozen=True)
class Scores:
    """Mean logits of V videos over C classes, float32 [V, C] a stream; `labels`: int64 [V].

    Raises `ValueError` where the parts do not fit each other, `MissingError` where there is nothing to measure: no
    video, no stream, or logits that are not finite (a diverged training).
    """

    videos: list[str]
    labels: np.ndarray
    classes: list[str]
    appearance: np.ndarray | None = None
    motion: np.ndarray | None = None
    fused: np.ndarray | None = None
    sources: list[str] | None = None

    def __post_init__(self) -> None:
        if not self.videos:
            raise MissingError(
                "no video was scored: failures.csv in the workspace says why, `stres evaluate` tries again"
            )
        if not self.streams:
            raise MissingError("no stream was scored: run `stres evaluate` again")
        if len(set(self.videos)) != len(self.videos):
            raise ValueError("a video stands twice in the scores")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class stands twice in the scores")
        if self.labels.shape != (len(self.videos),) or self.labels.dtype != np.int64:
            raise ValueError(f"labels are {self.labels.dtype} {self.labels.shape}, not int64 ({len(self.videos)},)")
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise ValueError(f"labels reach {self.labels.min()}..{self.labels.max()} with {len(self.classes)} classes")
        if self.sources is not None and len(self.sources) != len(self.videos):
            raise ValueError(f"there are {plural(len(self.sources), 'source')} of {plural(len(self.videos), 'video')}")
        for stream, logits in self.streams.items():
            shape = (len(self.videos), len(self.classes))
            if logits.shape != shape or logits.dtype != np.float32:
                raise ValueError(f"{stream} is {logits.dtype} {logits.shape}, not float32 {shape}")
            if broken := int((~np.isfinite(logits)).any(axis=1).sum()):
                raise MissingError(
                    f"the {stream} scores of {broken} of {plural(len(self.videos), 'video')} are not finite numbers: "
                    f"{DIVERGED}"
                )

    @property
    def streams(self) -> dict[str, np.ndarray]:
        """The evaluated streams in the order appearance, motion, fused: float32 [V, C] each."""
        return {stream: logits for stream in STREAMS if (logits := getattr(self, stream)) is not None}

    @property
    def headline(self) -> str:
        """The stream to name one number of: fused where there is one, otherwise motion, otherwise appearance."""
        return list(self.streams)[-1]

    def digest(self) -> str:
        """SHA-256 of all that is here."""
        digest = hashlib.sha256()
        for name in (*_utf8(self.videos), *_utf8(self.classes), *_utf8(self.sources or [])):
            digest.update(name + b"\0")
        for name, values in _arrays(self):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def write_scores(path: Path, scores: Scores, attributes: Mapping[str, Any]) -> None:
    """Writes `scores` to `path` atomically, with the provenance `attributes` beside them.

    Raises `StorageError`, and after the writing `Interrupted`: HDF5 must not be left amid a call.
    """
    with stop_requests() as stop, new_file(path) as (file, _), storage_errors(path):
        _fill(file, scores, attributes)
    stop.check()


def size_of_scores(scores: Scores, attributes: Mapping[str, Any]) -> int:
    """The bytes of the file that `write_scores` would write."""
    import h5py

    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        _fill(file, scores, attributes)
    return memory.getbuffer().nbytes


def _fill(file: "h5py.File", scores: Scores, attributes: Mapping[str, Any]) -> None:
    import h5py

    text = h5py.string_dtype("utf-8")
    made = made_by(SCORES_SCHEMA, "opencv", "numpy", "torch")
    made["library_versions"] = json_text(made["library_versions"])
    complete = {**attributes, **made, "content_sha256": scores.digest()}
    file.create_dataset("videos", data=_utf8(scores.videos), dtype=text)
    if scores.sources is not None:
        file.create_dataset("sources", data=_utf8(scores.sources), dtype=text)
    for name, values in _arrays(scores):
        file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
    file.attrs.create("classes", _utf8(scores.classes), dtype=text)
    for name, value in sorted(complete.items()):
        file.attrs[name] = value


def read_scores(path: Path) -> Scores:
    """The scores at `path`. Raises `ArtifactError` where it is absent, damaged, foreign or reaches into other files."""
    with open_file(path) as file:
        attributes = read_attributes(file, path, SCORES_SCHEMA)
        with damaged(path):
            streams = [stream for stream in STREAMS if file.get(stream, getlink=True) is not None]
            sources = ["sources"] if file.get("sources", getlink=True) is not None else []
        require_own_data(file, ("videos", "labels", *streams, *sources), path)
        with damaged(path):
            try:
                scores = Scores(
                    videos=file["videos"].asstr()[:].tolist(),
                    labels=file["labels"][:],
                    classes=[str(name) for name in attributes["classes"]],
                    **{stream: file[stream][:] for stream in streams},
                    **{name: file[name].asstr()[:].tolist() for name in sources},
                )
            except MissingError as error:
                raise ArtifactError(f"{path}: {error}") from error
            if attributes.get("content_sha256") != scores.digest():
                raise ValueError("its content does not match its checksum")
        return scores


def _arrays(scores: Scores) -> list[tuple[str, np.ndarray]]:
    return [("labels", scores.labels), *scores.streams.items()]


def _utf8(names: list[str]) -> np.ndarray:
    """Bytes of valid UTF-8: object [n]."""
    return np.array([name.encode("utf-8", "backslashreplace") for name in names], dtype=object)
