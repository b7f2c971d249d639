"""What is done with a damaged input: the real code that reads such files, in a worker process that may die of it.

Each check returns how the input was taken: "done", or the class of the one error that a user would be told. Everything
else that is raised is a finding.
"""

import contextlib
import hashlib
import io
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import StresError
from pipelines.runtime.worker_pool import Report
from pipelines.storage.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.sources.videos import VideoList


@dataclass(frozen=True)
class Input:
    """A damaged file at `path`. `folder`: the workspace that it stands in, where it does. `name`: to make it again.
    `original`: the digest of what the undamaged video shows, where only its coded pictures are damaged."""

    kind: str
    name: str
    path: Path
    folder: Path | None = None
    original: str = ""


@dataclass(frozen=True)
class Outcome:
    """`result`: "done", or the error's class with its sentence; `finding`: what must not be, "" for nothing."""

    result: str
    seconds: float
    peak_bytes: int
    finding: str = ""


def check(given: Input, report: Report) -> Outcome:
    """Reads the input as `given.kind` says."""
    _forget_peak()
    started = time.monotonic()
    result, finding = "done", ""
    try:
        result = CHECKS[given.kind.partition(" of ")[0]](given) or "done"
    except StresError as error:
        result = f"{type(error).__name__}: {error}"
        finding = _unclear(str(error))
    except _Finding as error:
        finding = str(error)
    except Exception as error:
        finding = f"{type(error).__name__}: {error}"[:300]
    return Outcome(result, time.monotonic() - started, _peak(), finding)


class _Finding(Exception):
    """What must not be."""


def _unclear(sentence: str) -> str:
    return f"no clear sentence: {sentence!r}" if len(sentence) < 10 or "unexpected error" in sentence else ""


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Resident memory at its highest since `_forget_peak`, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ------------------------------------------------------------------ by kind


def _video(given: Input) -> None:
    shown(given.path)


def shown(path: Path) -> str:
    """A digest of a video's pictures, which have times that can be."""
    import numpy as np

    from pipelines.video.decoding import VideoReader

    digest = hashlib.sha256()
    with VideoReader(path) as reader:
        for frame in reader:
            assert frame.shape == (reader.height, reader.width, 3)
            assert frame.dtype == "uint8"
            digest.update(frame)
        timing = reader.timing
    assert len(timing.times) == reader.decoded, f"{len(timing.times)} times of {reader.decoded} frames"
    assert timing.times[0] == 0, f"the first frame is shown at {timing.times[0]}"
    assert (np.diff(timing.times, append=np.inf) >= 0).all(), "times go back"
    assert 0 < timing.fps < np.inf, f"{timing.fps} frames a second"
    return digest.hexdigest()


def _payload(given: Input) -> str:
    """Shows what it showed, or says what is wrong; where its codec cannot tell, neither."""
    from pipelines.errors import VideoError

    try:
        if shown(given.path) == given.original:
            return "as it was"
    except VideoError as error:
        reason = str(error)
        if finding := _unclear(reason):
            raise _Finding(finding) from error
        return "named as damaged" if reason.startswith("damaged") else "named otherwise"
    if _has_checksums(given.path.name):
        raise _Finding("other pictures than the original's, though there are checksums")
    return "other pictures"


def _has_checksums(name: str) -> bool:
    if "without-checksums" in name or "live" in name:  # FFV1 has its own
        return "ffv1" in name
    return name.endswith((".mkv", ".ogv", ".apng")) or "ffv1" in name


def _artifact(given: Input) -> None:
    """Through the catalogue and the training's reading of samples."""
    import numpy as np

    from pipelines.datasets.augmentation import INPUT_FRACTION
    from pipelines.datasets.catalogue import load_catalogue
    from pipelines.datasets.samples import BadSample, TestSamples

    assert given.folder is not None
    catalogue = load_catalogue(Workspace(given.folder))
    videos = [video for video in catalogue.videos if video.has_frames and video.has_flow]
    samples = TestSamples(videos, [0] * len(videos), size=(32, 32), crops=3, reference=INPUT_FRACTION)
    for sample in (samples[index] for index in range(len(videos))):
        if isinstance(sample, BadSample):
            raise _error_of(sample.reason)
        assert sample.rgb is not None
        assert np.isfinite(sample.rgb[0].pixels.numpy()).all()
    if catalogue.problems:
        raise _error_of(catalogue.problems[0].reason)


def _error_of(reason: str) -> StresError:
    from pipelines.storage.hdf5 import ArtifactError

    return ArtifactError(reason)


def _videos_list(given: Input) -> None:
    from pipelines.sources.videos import find_videos

    _judge_sources(find_videos(given.path))


def _class_names(given: Input) -> None:
    """Of the numbers in the list beside it."""
    from pipelines.sources.videos import ReadAs, find_videos

    _judge_sources(find_videos(given.path.parent / "numbers.txt", read_as=ReadAs(class_names=given.path)))


def _judge_sources(found: "VideoList") -> None:
    ids = [source.id for source in found.videos]
    if len(set(ids)) < len(ids):
        raise _Finding("two videos of one name")
    for source in found.videos:
        if Path(source.class_name, source.video).name in ("", "..") or len(Path(source.id).parts) != 2:
            raise _Finding(f"{source.id!r} leads elsewhere")
        if not source.problem and not os.path.lexists(source.path):
            raise _Finding(f"there is no {source.path}")
        if source.split and source.class_name in SPLIT_FOLDERS:
            raise _Finding(f"{source.id!r}: a split is a class")


SPLIT_FOLDERS = ("train", "val", "test", "validation", "Train", "training", "testing", "videos_val")


def _split_lists(given: Input) -> None:
    from pipelines.datasets.split_lists import read_lists

    read_lists(given.path.parent)


def _weights(given: Input) -> None:
    from pipelines.models.weights import read_state_dict

    read_state_dict(given.path)


def _failures(given: Input) -> None:
    from pipelines.storage.failures import Failure, read_failures, record_outcomes

    assert given.folder is not None
    before = read_failures(Workspace(given.folder))
    record_outcomes(Workspace(given.folder), failed=[Failure("s", "c", "new", "p", "r")])
    if len(read_failures(Workspace(given.folder))) < min(1, len(before)):
        raise _Finding("rows were lost")


def _command(*arguments: str) -> Callable[[Input], None]:
    """The command on the workspace, in this process."""

    def run(given: Input) -> None:
        from stres_cli.app import app

        out, err = io.StringIO(), io.StringIO()
        words = [word.format(file=given.path, folder=given.folder) for word in arguments]
        code: object = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                app([*words, "--workspace", str(given.folder)])
            except SystemExit as end:
                code = end.code
        told = err.getvalue()
        if code not in (0, 1, 2, 3) or "Traceback" in told:
            raise _Finding(f"exit code {code}: {told.strip()[-300:]}")
        if code:
            raise _Told(told.strip().splitlines()[-1] if told.strip() else "")

    return run


class _Told(StresError):
    """A command's last line."""


CHECKS: dict[str, Callable[[Input], str | None]] = {
    "video": _video,
    "times": _video,
    "payload": _payload,
    "layout": _videos_list,
    "class names": _class_names,
    "artifact": _artifact,
    "list file": _videos_list,
    "split lists": _split_lists,
    "weights": _weights,
    "failures.csv": _failures,
    "evaluate": _command("evaluate", "--run", "split1", "--crops", "5", "--device", "cpu"),
    "predict": _command("predict", "{folder}/clip.mkv", "--run", "split1", "--crops", "5", "--device", "cpu"),
    "train": _command(
        *("train", "--recipe", "small", "--width", "4", "--size", "32", "--device", "cpu", "--name", "begun"),
        *("--steps", "appearance", "--iterations", "3", "--batch-size", "4", "--lr", "0.0001"),
    ),
    "report": _command("report", "--run", "split1", "--thumbnails", "1"),
    "report --with": _command("report", "--run", "split1", "--thumbnails", "0", "--with", "{file}"),
}
