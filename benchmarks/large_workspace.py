"""A made-up workspace of as many videos as wanted: real metadata, tiny files.

One clip goes through the real stages; every other artifact is a copy of its two, in which the name of the source, some
bytes of the content and their checksum are another's. So each is whole, unlike every other and passes for extracted,
at 10,000 a second. Files are written with holes where they hold zeros: 12 kB of disk each, not 70.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the Zstandard filter)
import numpy as np

from pipelines import extract_flow, extract_frames
from pipelines.evaluation.metrics import results_document
from pipelines.evaluation.scores import Scores, write_scores
from pipelines.storage.atomic import write_json
from pipelines.storage.workspace import Workspace
from pipelines.video.synthetic import write_video

CLASSES, GROUPS = 400, 25
FRAMES, HEIGHT, WIDTH = 12, 32, 40
BOUND = 5.0
_BLOCK = 4096  # bytes; what a file system leaves out where a file has a hole
_NUMBER = 4  # bytes of an artifact's content that say which video it is
_FIRST = 1 << 24  # what stands in the first video's place is less in its frames, more in its flow
_JPEG_DENSITY = 14  # where a JFIF header has four bytes that no decoder looks at


@dataclass(frozen=True)
class Name:
    """A video's class and name, of the same length for all."""

    class_name: str
    video: str

    @classmethod
    def of(cls, number: int) -> "Name":
        class_name = f"Class{number % CLASSES:03}"
        within = number // CLASSES
        return cls(class_name, f"v_{class_name}_g{within % GROUPS + 1:02}_c{within // GROUPS:06}")

    def __str__(self) -> str:
        return f"{self.class_name}/{self.video}"


def make_workspace(folder: Path, videos: int) -> tuple[Workspace, Path]:
    """`folder/work` and `folder/videos` of so many videos; `videos` is in the form of UCF101's folder."""
    workspace, sources = Workspace(folder / "work"), folder / "videos"
    first = Name.of(0)
    clip = sources / f"{first}.avi"
    write_video(clip, _drifting_texture())
    extract_frames.run(extract_frames.Config(workspace.root, str(clip.parent.parent), workers=1))
    extract_flow.run(
        extract_flow.Config(workspace.root, str(clip.parent.parent), method="farneback", bound=BOUND, workers=1)
    )
    workspace.dataset_file.unlink(missing_ok=True)
    templates = (
        (workspace.frames, _frames_template(workspace.frames / f"{first}.h5")),
        (workspace.flow, _flow_template(workspace.flow / f"{first}.h5")),
    )
    content = clip.read_bytes()
    for number in range(1, videos):
        name = Name.of(number)
        _link(clip, content, sources, name)
        for artifacts, template in templates:
            path = artifacts / f"{name}.h5"
            path.parent.mkdir(exist_ok=True)
            template.write(path, name, number)
    return workspace, sources


def _drifting_texture() -> np.ndarray:
    """uint8 [T, H, W, 3]."""
    import cv2

    texture = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (HEIGHT, WIDTH + FRAMES, 3)), (0, 0), 2)
    pixels = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return np.stack([pixels[:, t : t + WIDTH] for t in range(FRAMES)])


def _link(clip: Path, content: bytes, sources: Path, name: Name) -> None:
    """A source of that name: links to one file a class, since a file system allows only so many to one."""
    folder = sources / name.class_name
    own = sources / f"{Name(name.class_name, f'v_{name.class_name}_g01_c000000')}.avi"
    path = folder / f"{name.video}.avi"
    if path != own:
        os.link(own, path)
    elif own != clip:
        folder.mkdir()
        own.write_bytes(content)


# ------------------------------------------------------------------ artifacts


@dataclass(frozen=True)
class _Template:
    """An artifact's bytes, those of its content that are hashed, and where either holds the video's number."""

    file: bytes
    content: bytes
    number_in_file: int
    number_in_content: int

    def write(self, path: Path, name: Name, number: int) -> None:
        content, file = bytearray(self.content), bytearray(self.file)
        before = hashlib.sha256(content).hexdigest().encode()
        for data, at in ((content, self.number_in_content), (file, self.number_in_file)):
            data[at : at + _NUMBER] = (_FIRST + number).to_bytes(_NUMBER, "big")
        after = hashlib.sha256(content).hexdigest().encode()
        with path.open("wb", buffering=0) as out:
            data = bytes(file).replace(before, after).replace(str(Name.of(0)).encode(), str(name).encode())
            for start, stop in _written(data):
                out.seek(start)
                out.write(data[start:stop])
            out.truncate(len(data))


def _written(data: bytes) -> Iterator[tuple[int, int]]:
    """The stretches of whole blocks that hold something."""
    nothing = bytes(_BLOCK)
    full = [at for at in range(0, len(data), _BLOCK) if data[at : at + _BLOCK] != nothing[: len(data) - at]]
    for at in full:
        yield at, at + _BLOCK


def _frames_template(path: Path) -> _Template:
    with h5py.File(path, "r+") as file:
        jpeg, offsets = file["jpeg"][:], file["offsets"][:]
        _store_unfiltered(file["jpeg"], jpeg)
    return _template(path, jpeg.tobytes(), jpeg.tobytes() + offsets.tobytes(), _JPEG_DENSITY)


def _flow_template(path: Path) -> _Template:
    with h5py.File(path, "r+") as file:
        fields = file["flow"][:]
        _store_unfiltered(file["flow"], fields[0])
    return _template(path, fields[0].tobytes(), fields.tobytes(), 0)


def _store_unfiltered(dataset: h5py.Dataset, values: np.ndarray) -> None:
    """Stores the first chunk without compression and checksum, which HDF5 allows for each: it can be changed."""
    chunk = np.zeros(dataset.chunks, dtype=dataset.dtype)
    chunk.ravel()[: values.size] = values.ravel()
    filters = dataset.id.get_create_plist().get_nfilters()
    dataset.id.write_direct_chunk((0,) * dataset.ndim, chunk.tobytes(), filter_mask=(1 << filters) - 1)


def _template(path: Path, stored: bytes, content: bytes, place: int) -> _Template:
    """`content`, which is hashed, begins with what is `stored` unfiltered; the number stands `place` bytes in."""
    file = path.read_bytes()
    for what in (stored, hashlib.sha256(content).hexdigest().encode(), str(Name.of(0)).encode()):
        assert file.count(what) == 1, f"{path} holds something {file.count(what)} times that it should hold once"
    return _Template(file, content, file.index(stored) + place, place)


# ------------------------------------------------------------------ scores


def make_scores(workspace: Workspace, videos: int) -> None:
    """The scores of as many videos, all three streams, four of five right."""
    rng = np.random.default_rng(0)
    names = sorted(str(Name.of(number)) for number in range(videos))
    classes = sorted({name.split("/")[0] for name in names})
    index = {name: label for label, name in enumerate(classes)}
    labels = np.array([index[name.split("/")[0]] for name in names], dtype=np.int64)
    streams = {}
    for stream in ("appearance", "motion", "fused"):
        logits = rng.standard_normal((videos, len(classes)), dtype=np.float32)
        logits[np.arange(videos), labels] += 4
        streams[stream] = logits
    scores = Scores(names, labels, classes, **streams)
    protocol = {"frames": 25, "views": "full", "mirror": True, "temporal": "sequence"}
    provenance = {"run": "made-up", "split": 1, "step": "joint1", **protocol}
    folder = workspace.scores / "made-up" / "joint1-25"
    write_scores(folder / "scores.h5", scores, provenance)
    write_json(folder / "results.json", results_document(protocol, 1, "made-up", scores) | {"step": "joint1"})
