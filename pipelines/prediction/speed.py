"""How many times faster a student is than the joint network that it learned from, whose flow it does not need.

Measured at the end of its training, once, and kept in the run's folder as `student/speed.json`.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipelines.datasets.catalogue import Video
from pipelines.errors import MissingError, StorageError, StresError
from pipelines.evaluation.protocols import Protocol
from pipelines.interface.wording import plural
from pipelines.runtime.devices import memory_errors
from pipelines.runtime.progress import OnProgress, Progress, note
from pipelines.storage.atomic import read_json, write_json
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError
from pipelines.storage.typed_json import Within, WrongField, from_json
from pipelines.training.runs import Run, trained_with_mirrors

if TYPE_CHECKING:
    import torch

_PASSES = 2  # the first warms up
# The second is repeated for so many seconds, and at most so often: a single look at a few small frames can take ten
# times as long as it has to, where it waits for a core.
_SECONDS, _MOST = 1.0, 20


@dataclass(frozen=True)
class Speed:
    """Seconds for one decoded video, tested as `evaluate` does unless told otherwise."""

    teacher: str
    """Run and step of the joint network."""
    student_seconds: Annotated[float, Within(above=0)]
    network_seconds: Annotated[float, Within(above=0)]
    """Of the joint network."""
    flow_seconds: Annotated[float, Within(above=0)]
    """Of the flow that the joint network looks at."""
    device: str
    frames: int
    width: int
    height: int
    schema: Literal["stres/speed/1"] = "stres/speed/1"

    @property
    def sentence(self) -> str:
        """What is said wherever the student is used."""
        with_flow = (self.network_seconds + self.flow_seconds) / self.student_seconds
        without = self.network_seconds / self.student_seconds
        return (
            f"the student needs no flow: {with_flow:.1f} times as fast as {self.teacher} with its flow, {without:.1f} "
            f"times where flow is stored (measured after training on {self.device}, {self.frames} frames of "
            f"{self.width}x{self.height})"
        )


def speed_file(run: Run) -> Path:
    return run.folder / "student" / "speed.json"


def about_speed(run: Run, step: str) -> str:
    """The sentence on the network `step` of a run; "" where it is no student, or nothing is known of it."""
    try:
        return from_json(Speed, read_json(speed_file(run)), "speed").sentence if step == "student" else ""
    except (MissingError, WrongField):
        return ""


def keep_speed(
    run: Run, teacher: tuple[Run, str], videos: Sequence[Video], device: "torch.device", on_progress: OnProgress
) -> None:
    """Measures on the training video of median length, unless that was done, and says so; where it cannot be measured
    it says why.

    Args:
        run: Of the student, which is trained.
        teacher: Run and step of the joint network.
        videos: With frames, one at least.
        device: For the networks, and for flow if its method can be computed there.
        on_progress: Receives the progress and the result.

    Raises:
        StorageError: The file cannot be written.
    """
    if speed_file(run).exists():
        return
    video = sorted(videos, key=lambda one: one.frames)[len(videos) // 2]
    try:
        with memory_errors("give the same command again"):  # which then holds nothing of the training
            speed = _measure(run, teacher, video, device, on_progress)
    except StorageError:
        raise
    except (StresError, ArtifactError) as error:
        on_progress(note(f"how much faster the student is was not measured: {error}"))
        return
    write_json(speed_file(run), asdict(speed))
    on_progress(note(speed.sentence))


def _measure(
    run: Run, teacher: tuple[Run, str], video: Video, device: "torch.device", on_progress: OnProgress
) -> Speed:
    # What computes is loaded here: all others only read what was measured.
    import torch

    from pipelines.prediction.inputs import FlowOnDemand
    from pipelines.prediction.predictor import Predictor

    student, joint = (
        Predictor(of, Protocol.of_paper(step, mirrored=trained_with_mirrors(of.config(), step)), device)
        for of, step in ((run, "student"), teacher)
    )
    plans = [one.plan(0, video.frames) for one in (student, joint)]
    assert video.frames_file is not None
    with FrameFile(video.frames_file) as file:
        indices = sorted(plans[0].frames() | plans[1].frames())
        frames = dict(zip(indices, file.read(indices), strict=True))

    def look() -> tuple[float, float, float]:
        started = time.perf_counter()
        student.logits(plans[0].pixels(frames, FlowOnDemand(student.flow, frames)))
        without_flow = time.perf_counter()
        flow = FlowOnDemand(joint.flow, frames)
        flow.fields(sorted({*plans[1].stacks.ravel().tolist()}))
        with_flow = time.perf_counter()
        joint.logits(plans[1].pixels(frames, flow))
        return without_flow - started, with_flow - without_flow, time.perf_counter() - with_flow

    on_progress(Progress("measure speed", 0, _PASSES, unit="passes"))
    look()
    on_progress(Progress("measure speed", 1, _PASSES, unit="passes"))
    looks = [look()]
    while sum(map(sum, looks)) < _SECONDS and len(looks) < _MOST:
        looks.append(look())
    on_progress(Progress("measure speed", _PASSES, _PASSES, unit="passes"))
    student_seconds, flow_seconds, network_seconds = map(min, zip(*looks, strict=True))
    return Speed(
        teacher="/".join((teacher[0].name, teacher[1])),
        student_seconds=student_seconds,
        network_seconds=network_seconds,
        flow_seconds=flow_seconds,
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else plural(torch.get_num_threads(), "CPU thread"),
        frames=video.frames,
        width=video.width,
        height=video.height,
    )
