"""The scores of a test while it runs: `scores/<run>/<protocol>/unfinished.jsonl`, with which the same test goes on
after an interruption.

The first line says what is tested and how, each further one what a video was given under every protocol.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.datasets.catalogue import Video
from pipelines.storage.atomic import json_text, storage_errors, write_text
from pipelines.storage.provenance import made_by

Logits = dict[str, torch.Tensor]
"""Of each stream: float64 [C]."""
_SCHEMA = "stres/unfinished-scores/1"


class UnfinishedScores:
    """Of two commands that run the same test at once, it is the later one whose scores are kept."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Reads what an interrupted test left.

        Args:
            folder: Of the test's scores.
            about: All that the logits follow from but the videos. Scores of any other test are not taken.
        """
        self.path = folder / "unfinished.jsonl"
        self._head = json_text({**made_by(_SCHEMA, "opencv", "numpy", "torch"), **about})
        self._lines: list[str] = []
        self._logits: dict[str, list[Logits]] = {}
        self._begun = False
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # where the power went amid a line
            head, *lines = self.path.read_text(encoding="utf-8").splitlines()
            for line in lines if head == self._head else ():
                self._take(line)

    def _take(self, line: str) -> None:
        one = json.loads(line)
        logits = [
            {stream: torch.tensor(values, dtype=torch.float64) for stream, values in of_protocol.items()}
            for of_protocol in one["logits"]
        ]
        self._logits[json_text(one["video"])] = logits
        self._lines.append(line)

    def of(self, videos: Sequence[Video]) -> dict[int, list[Logits]]:
        """The logits under each protocol of the videos that were scored as they are stored now, by their index."""
        keys = {index: json_text(_as_stored(video)) for index, video in enumerate(videos)}
        return {index: self._logits[key] for index, key in keys.items() if key in self._logits}

    def add(self, video: Video, logits: Sequence[Logits]) -> None:
        """Keeps what a video was given under each protocol. Raises `StorageError`."""
        values = [{stream: of_stream.tolist() for stream, of_stream in one.items()} for one in logits]
        if not self._begun:  # without the lines of other tests, or half of one
            write_text(self.path, "".join(f"{line}\n" for line in (self._head, *self._lines)))
            self._begun = True
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json_text({"video": _as_stored(video), "logits": values}) + "\n")

    def remove(self) -> None:
        """To be called once the test has left its results."""
        with contextlib.suppress(OSError):
            self.path.unlink()


def _as_stored(video: Video) -> list[Any]:
    """A video's id, what it was made from, and its files, whose change makes another video of it."""
    found: list[Any] = [video.id, video.origin]
    for path in (video.frames_file, video.flow_file):
        with contextlib.suppress(OSError):  # removed since
            found.append(path and (path.stat().st_size, path.stat().st_mtime_ns))
    return found
