"""One process that computes the flow of videos which several others decode and store, so that a GPU is used by one
process alone, and in batches that hold pairs of all these videos where one has too few.

It sees frames and gives flow; a video is some other process's from beginning to end. So a file that kills its process
takes no other video with it, and whoever gets no answer from here computes for itself: the flow has the same bits.

Letters: N pairs of frames, H W pixels.
"""

import contextlib
import multiprocessing
import os
import secrets
import threading
import time
from collections.abc import Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import Any, Literal

import torch

from pipelines.optical_flow.batch import BatchFlow, begin_batch, work_on
from pipelines.optical_flow.methods import FlowMethod, make_method
from pipelines.runtime.closing import Closing
from pipelines.runtime.devices import available_cores
from pipelines.runtime.parcel import receive_parcel, send_parcel
from pipelines.runtime.worker_pool import arrives, become_worker, start_fork_server
from pipelines.storage.flow_settings import FlowSettings

_PATIENCE = 120.0  # seconds without an answer: twenty batches of all the others, or compiling
_silent: set[str] = set()  # the addresses that this process has waited for in vain, which it does not try again


class Mixer(Closing):
    """The process, which begins with `start` and ends with `close`; a `Helper` of `Growth`."""

    def __init__(self, method: str, options: Mapping[str, str], device: str, engine: str) -> None:
        # Below no folder: the system drops the name with the process.
        self.address = f"\0stres-{os.getpid()}-{secrets.token_hex(8)}"
        """Where it takes batches: what `flow_by_mixer` is given, before it is started, too."""
        self._made_by = (method, dict(options), device, engine)
        self._process: Any = None
        self._control: Connection | None = None
        self._at_work = False

    def start(self) -> None:
        """Raises `MissingError` where processes cannot start."""
        start_fork_server()
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.address, self._made_by), daemon=True)
        process.start()
        theirs.close()
        self._process, self._control = process, ours

    @property
    def at_work(self) -> bool:
        """Whether it has computed flow, and so has loaded and compiled what that needs."""
        if self._control is not None:
            with contextlib.suppress(EOFError, OSError):
                while self._control.poll():
                    self._at_work = self._control.recv()
        return self._at_work

    @property
    def ended(self) -> bool:
        """Whether it was started and is not there any more."""
        return self._process is not None and not self._process.is_alive()

    def close(self) -> None:
        """Ends the process, if it runs: nothing is lost."""
        if self._process is not None and self._control is not None:
            self._process.kill()
            self._process.join()
            self._control.close()


def flow_by_mixer(
    address: str, batch: torch.Tensor, settings: FlowSettings, size: tuple[int, int] | None
) -> BatchFlow | None:
    """The flow of a batch (`begin_batch`) by the `Mixer` of this address; None where none is there, or it cannot or
    does not answer, which this process finds out once."""
    if address in _silent:
        return None
    key = multiprocessing.current_process().authkey
    try:
        with Client(address, "AF_UNIX") as connection:
            if arrives(connection, _PATIENCE):  # the challenge, which `Client` would wait for without end
                answer_challenge(connection, key)
                deliver_challenge(connection, key)
                send_parcel(connection, (batch, settings, size))
                if arrives(connection, _PATIENCE):
                    return receive_parcel(connection)
            _silent.add(address)
    except (OSError, EOFError, AuthenticationError):
        pass
    return None


# ------------------------------------------------------------------ in the process


def _serve(control: Connection, address: str, made_by: tuple[str, dict[str, str], str, str]) -> None:
    become_worker(None)
    import cv2

    cv2.setNumThreads(1)  # as in a worker
    torch.set_num_threads(available_cores())
    method, device = make_method(*made_by), torch.device(made_by[2])
    shared, busy, has_worked = SharedMethod(method), _BusyTime(on_gpu=device.type == "cuda"), threading.Event()
    listener = Listener(address, "AF_UNIX", backlog=64, authkey=multiprocessing.current_process().authkey)

    def answer(connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            batch, settings, size = receive_parcel(connection)
            with busy:
                made = _made_of(batch, shared, settings, device, size)
            send_parcel(connection, None if made is None else made._replace(gpu_seconds=busy.told()))
            if not has_worked.is_set():
                has_worked.set()
                control.send(True)

    def accept() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, AuthenticationError):  # of one that ended meanwhile
                threading.Thread(target=answer, args=(listener.accept(),), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        control.recv()  # the end of the process that started this one
    os._exit(0)  # whatever the threads are doing


def _made_of(
    batch: torch.Tensor,
    method: "SharedMethod",
    settings: FlowSettings,
    device: torch.device,
    size: tuple[int, int] | None,
) -> BatchFlow | None:
    """None for whatever error: it will be that of the video's own process, which comes to the same point."""
    try:
        work_on(device)
        pinned = batch.pin_memory() if device.type == "cuda" else batch
        return begin_batch(pinned, method, settings, device, size)()
    except Exception:
        return None


class _Pairs:
    """The pairs of one call, and their flow as far as it is computed."""

    def __init__(self, frame0: torch.Tensor, frame1: torch.Tensor) -> None:
        self.frame0, self.frame1 = frame0, frame1
        self.begun = 0
        self.flow: list[torch.Tensor] = []
        self.engine = ""
        self.error: Exception | None = None
        self.is_done = False


class SharedMethod:
    """A `FlowMethod` that several threads use at once: it computes the pairs that wait together, whichever thread's
    they are, up to a full batch of one size; as many as there are, as soon as it is free."""

    def __init__(self, method: FlowMethod) -> None:
        self.method = method
        self.input: Literal["grey", "rgb"] = method.input
        self.batch_invariant, self.uses_device = method.batch_invariant, method.uses_device
        self.parameters, self.batch_size = method.parameters, method.batch_size
        self._waiting: list[_Pairs] = []
        self._only_one = threading.Lock()  # computes, for all
        self._of_thread = threading.local()

    @property
    def engine(self) -> str:
        """That of the calling thread's last flow."""
        return self._of_thread.engine

    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        """As `FlowMethod.flow`. What the method raises of a batch, all calls raise that have pairs in it."""
        own = _Pairs(frame0, frame1)
        self._waiting.append(own)
        with self._only_one:
            while not own.is_done:
                self._compute_batch()
        if own.error is not None:
            raise own.error
        self._of_thread.engine = own.engine
        return torch.cat(own.flow)

    def _compute_batch(self) -> None:
        """Of the size of the oldest pairs."""
        taken: list[tuple[_Pairs, slice]] = []
        room, shape = self.batch_size, self._waiting[0].frame0.shape[1:]
        for pairs in self._waiting[:]:
            if room and pairs.frame0.shape[1:] == shape:
                part = slice(pairs.begun, min(pairs.begun + room, len(pairs.frame0)))
                pairs.begun, room = part.stop, room - (part.stop - part.start)
                taken.append((pairs, part))
        try:
            frame0, frame1 = (
                torch.cat(frames)
                for frames in zip(*((of.frame0[part], of.frame1[part]) for of, part in taken), strict=True)
            )
            flow = self.method.flow(frame0, frame1).split([part.stop - part.start for _, part in taken])
            for (pairs, _), piece in zip(taken, flow, strict=True):
                pairs.flow.append(piece)
                pairs.engine = self.method.engine
        except Exception as error:
            for pairs, _ in taken:
                pairs.error = error
        for pairs, _ in taken:
            if pairs.error is not None or pairs.begun == len(pairs.frame0):
                pairs.is_done = True
                self._waiting.remove(pairs)


class _BusyTime:
    """The time in which there is something to compute, shared among those it is computed for."""

    def __init__(self, *, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self._changing = threading.Lock()
        self._at_work = 0
        self._since = self._untold = 0.0

    def __enter__(self) -> None:
        with self._changing:
            self._count()
            self._at_work += 1

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self._count()
            self._at_work -= 1

    def told(self) -> float:
        """The seconds since the last call; 0 where no GPU computes."""
        with self._changing:
            told, self._untold = self._untold, 0.0
        return told if self.on_gpu else 0.0

    def _count(self) -> None:
        now = time.monotonic()
        if self._at_work:
            self._untold += now - self._since
        self._since = now
