"""Decoding in a separate process, for commands that compute in their own.

Malicious files make codecs crash, hang and take memory: here that costs the one video, and its process is replaced.
Stages that store something do not need this, since a worker does all of their work on a video.

Letters: H W pixels.
"""

import contextlib
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import pipelines
from pipelines.errors import MissingError, VideoError
from pipelines.runtime.closing import Closing
from pipelines.runtime.worker_pool import (
    Limits,
    arrives,
    become_worker,
    how_it_ended,
    memory_share,
    no_progress,
    reason_of,
)
from pipelines.video.decoding import VideoReader
from pipelines.video.resize import resize, stored_size
from pipelines.video.timing import Timing

_ABOUT = ("fps", "container_frames", "announced_frames", "source_width", "source_height")
_FINAL = ("decoded", "truncated", "damaged_frames", "timing")
_NEXT, _PASS, _STOP = range(3)  # orders to the process: send the next frame, skip it, stop

Answer = str | dict[str, Any] | float | None
"""Why the video fails; what is known at its beginning or end; the timestamp of the next frame in seconds, None where it
has none."""


class Decoder:
    """Opens videos in processes, which start when they are first needed and end with the decoder."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(memory=memory_share(1))
        self._idle: list[_Process] = []
        self.close = weakref.finalize(self, _end_all, self._idle)

    def open(
        self, path: Path, short_side: int | None = None, *, keep_size: bool = False, allow_truncated: bool = False
    ) -> "IsolatedReader":
        """Opens a video, to be read as by `VideoReader`. Raises `VideoError`."""
        process = self._idle.pop() if self._idle else _Process(self.limits)
        return IsolatedReader(process, self._idle, path, short_side, keep_size, allow_truncated)


class IsolatedReader(Closing):
    """Iterates over the frames of a video once, as `VideoReader` does, whose attributes it has. Made by `Decoder`.

    Damaged videos are no error; `damaged_frames` is for the caller to check.
    """

    fps: float
    timing: Timing
    container_frames: int
    announced_frames: int
    source_width: int
    source_height: int

    def __init__(
        self,
        process: "_Process",
        idle: "list[_Process]",
        path: Path,
        short_side: int | None,
        keep_size: bool,
        allow_truncated: bool,
    ) -> None:
        self._process, self._idle = process, idle
        self.decoded, self.truncated, self.damaged_frames = 0, False, 0
        self.stamp: float | None = None  # of the frame decoded last, in seconds by the container's clock
        self._is_open = False
        try:
            self._update(self._ask((os.path.abspath(path), allow_truncated)))
        except VideoError:
            self.close()
            raise
        self._is_open = True
        size = (self.source_width, self.source_height)
        self.width, self.height = size if keep_size else stored_size(*size, short_side)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (picture for _, picture in self.pick(lambda index: True))

    def pick(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray]]:
        """The frames whose index from 0 is wanted, with it."""
        while self._is_open:
            index, is_wanted = self.decoded, wanted(self.decoded)
            answer = self._ask(_NEXT if is_wanted else _PASS)
            if isinstance(answer, dict):
                self._update(answer)
                self._is_open = False
                return
            self.stamp = answer
            self.decoded += 1
            if is_wanted:
                picture = self._process.receive_picture((self.source_height, self.source_width, 3))
                yield index, resize(picture, self.width, self.height)

    def close(self) -> None:
        """Returns the process for the next video."""
        if self._is_open:
            with contextlib.suppress(VideoError):
                self._ask(_STOP)
            self._is_open = False
        if self._process.is_alive and self._process not in self._idle:
            self._idle.append(self._process)

    def _update(self, about: dict[str, Any] | float | None) -> None:
        assert isinstance(about, dict)
        vars(self).update(about)

    def _ask(self, order: Any) -> dict[str, Any] | float | None:
        try:
            answer = self._process.ask(order)
            if isinstance(answer, str):
                raise VideoError(answer)
        except VideoError:
            self._is_open = False
            raise
        return answer


class _Process:
    """The parent's side of one process. Unlike worker processes it needs no `if __name__ == "__main__"` guard."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._connection, theirs = Pipe()
        code = f"from pipelines.video.isolation import serve; serve({theirs.fileno()}, {limits.memory})"
        paths = [str(Path(pipelines.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        theirs.close()  # so that the end of the process is the end of the pipe
        try:
            # It may take longer to start than a hanging codec is waited for.
            started = arrives(self._connection, max(Limits.patience, limits.patience))
            ended = "" if started and self._connection.recv() else f"not within {Limits.patience:g} s"
        except EOFError:
            ended = how_it_ended(self.end())
        if ended:
            self.end()
            raise MissingError(f"the decoder cannot start ({ended}): see its output above")

    @property
    def is_alive(self) -> bool:
        return not self._connection.closed

    def ask(self, order: Any) -> Answer:
        """Sends an order and returns the answer. Raises `VideoError` where there is none."""
        with self._death_fails_the_video():
            self._connection.send(order)
            self._await()
            return self._connection.recv()

    def receive_picture(self, shape: tuple[int, ...]) -> np.ndarray:
        """Receives the RGB picture that follows an answer: uint8 [H, W, 3]."""
        picture = np.empty(shape, dtype=np.uint8)
        with self._death_fails_the_video():
            self._await()
            self._connection.recv_bytes_into(picture.data.cast("B"))
        return picture

    def _await(self) -> None:
        if not arrives(self._connection, self.limits.patience):
            self.end()
            raise VideoError(no_progress(self.limits.patience))

    @contextlib.contextmanager
    def _death_fails_the_video(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            raise VideoError(f"the decoder died ({how_it_ended(self.end())}) on this video") from error

    def end(self) -> int:
        """Ends the process; returns its exit code."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1.0)  # of its own accord, with its own exit code, now that the pipe is closed
        self._process.kill()
        return self._process.wait()


def _end_all(processes: list[_Process]) -> None:
    while processes:
        processes.pop().end()


# ------------------------------------------------------------------ in the process


class _Stopped(Exception):
    """No more frames of this video are wanted."""


def serve(descriptor: int, memory: int | None) -> None:
    """Decodes videos on request until the pipe `descriptor` is closed."""
    become_worker(memory)
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        connection.send("started")
        while True:
            path, allow_truncated = connection.recv()
            _decode(Path(path), allow_truncated, connection)


def _decode(path: Path, allow_truncated: bool, connection: Connection) -> None:
    """Decodes one video: sends an answer to the request for it, then one to each order."""
    answer: Answer
    try:
        reader = VideoReader(path, keep_size=True, allow_truncated=allow_truncated, allow_damaged=True)
    except Exception as error:
        connection.send(reason_of(error))
        return
    with reader:
        connection.send({name: getattr(reader, name) for name in _ABOUT})
        is_asked = False  # for a picture that has not been sent

        def wanted(index: int) -> bool:
            nonlocal is_asked
            order = connection.recv()  # each frame is decoded before it is asked for, while others are computed on
            if order == _STOP:
                raise _Stopped
            is_asked = order == _NEXT
            if not is_asked:
                connection.send(reader.stamp)
            return is_asked

        try:
            for _, picture in reader.pick(wanted):
                connection.send(reader.stamp)
                connection.send_bytes(picture.data.cast("B"))
                is_asked = False
            answer = {name: getattr(reader, name) for name in _FINAL}
        except _Stopped:
            connection.send({})
            return
        except (EOFError, OSError):
            raise
        except Exception as error:
            answer = reason_of(error)
        is_stopped = not is_asked and connection.recv() == _STOP
        connection.send({} if is_stopped else answer)
