"""Whether stored flow is what its method gives: fields recomputed from the source that the file states.

What computes it here must not share the fault it looks for. TV-L1 of 0.1.0 was wrong where one process had loaded
kernels for two widths: flow is computed by processes that have loaded none before, and load those for one width only.

Letters: T frames, F = T - step fields, N pairs of a batch, H W pixels.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import UsageError, VideoError
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Report, run_tasks, usual_limits
from pipelines.verification.faults import CheckLevel, Fault, FaultFound
from pipelines.verification.tasks import Recomputed, RecomputeTask, VideoReport, may_be_mixed_up
from pipelines.wording import plural

if TYPE_CHECKING:
    import numpy as np

    from pipelines.optical_flow.methods import FlowMethod
    from pipelines.storage.flow_file import FlowFile
    from pipelines.storage.flow_settings import FlowSettings

# The same engine on the same machine gives the same bytes. The engines of TV-L1 and OpenCV's own, on two pairs of each
# of 15 real clips, differ by more than 0.16 pixels, one grey level at the usual bound, in 0.8 % of the bytes at most:
# its iteration jumps at the least disturbance. Other versions of the libraries may decode and resize otherwise; noise
# of one grey level on every frame, which is more than that, moves up to 7 % (tvl1), 2 % (farneback) and 19 % (dis).
# RAFT rounds more on a GPU than on the CPU. Flow by the kernels that 0.1.0 mixed up is off by tens of levels in 75 to
# 88 % of its bytes.
_PIXELS, _MOST_LEVELS = 0.16, 16
_SHARE, _SHARE_IF_OTHERWISE = 0.05, 0.3
_LIBRARIES = ("av", "opencv", "torch")
_REPORTED = 64  # frames between two reports

_SUSPECT = "it was made by stres 0.1.0 with tvl1 among videos of other widths, whose kernels could be mixed up"


def suspects(reports: Iterable[VideoReport]) -> set[str]:
    """The videos whose flow may be of mixed-up kernels, by its version and method, in a workspace of several widths."""
    origins = {report.task.id: report.origin for report in reports if report.origin is not None}
    if not may_be_mixed_up(origins.values()):
        return set()
    return {id_ for id_, origin in origins.items() if origin.is_of_faulty_version}


def flow_tasks(reports: Sequence[VideoReport], depth: CheckLevel) -> list[RecomputeTask]:
    """The flow to recompute: nothing at `quick`, else all that has no fault yet and whose source is there. All fields
    at `full` and of suspects."""
    suspected = suspects(reports)
    return [
        RecomputeTask(report.task.id, report.origin, depth == "full" or report.task.id in suspected)
        for report in reports
        if depth != "quick" and report.origin and not report.origin.not_recomputable and not _is_faulty(report)
    ]


def _is_faulty(report: VideoReport) -> bool:
    return any("flow" in fault.remake for fault in report.faults)


def flow_faults(reports: Sequence[VideoReport], outcomes: Mapping[str, Recomputed | VideoError]) -> list[Fault]:
    """What recomputing found wrong; and the suspects whose flow was found neither right nor wrong in any way."""
    faults = []
    suspected = suspects(reports)
    for report in reports:
        id_, outcome = report.task.id, outcomes.get(report.task.id)
        if isinstance(outcome, VideoError):
            detail = f"its flow cannot be recomputed: {outcome}{f'; {_SUSPECT}' if id_ in suspected else ''}"
            faults.append(Fault("recomputation", id_, report.task.path("flow"), detail))
        elif outcome is not None and outcome.wrong:
            faults.append(Fault("wrong flow", id_, report.task.path("flow"), outcome.wrong, ("flow",)))
        elif id_ in suspected and not _is_faulty(report) and (outcome is None or outcome.not_recomputable):
            assert report.origin is not None
            why = (outcome.not_recomputable if outcome is not None else "") or report.origin.not_recomputable
            detail = f"{_SUSPECT}{f'; it was not recomputed: {why}' if why else ''}"
            faults.append(Fault("suspect flow", id_, report.task.path("flow"), detail))
    return faults


def reasons_against(reports: Iterable[VideoReport], outcomes: Mapping[str, Recomputed | VideoError]) -> dict[str, int]:
    """Why flow was not recomputed, and of how many videos."""
    early = [report.origin.not_recomputable for report in reports if report.origin is not None]
    late = [outcome.not_recomputable for outcome in outcomes.values() if isinstance(outcome, Recomputed)]
    return dict(Counter(reason for reason in (*early, *late) if reason))


def recompute_all(
    tasks: Sequence[RecomputeTask], workers: int, on_outcome: Callable[[RecomputeTask, Recomputed | VideoError], None]
) -> None:
    """Recomputes all; `on_outcome` is told of each, on rank 0 of those of all ranks.

    A `VideoError` says why a source gives no flow any more, or that the process died under it.
    """
    groups: dict[int, list[RecomputeTask]] = {}
    for task in tasks:
        groups.setdefault(task.origin.kernel_width, []).append(task)
    for _, group in sorted(groups.items()):

        def work(
            numbers: Iterator[int], group: list[RecomputeTask] = group
        ) -> Generator[tuple[RecomputeTask, Recomputed | VideoError]]:
            shared = (group[number] for number in numbers)
            # Processes that end with the group: their kernels are those of one width.
            with contextlib.closing(run_tasks(recompute, shared, workers, limits=usual_limits(workers))) as outcomes:
                yield from outcomes

        with contextlib.closing(ranks().pool(len(group), work)) as outcomes:
            for _, (task, outcome) in outcomes:
                on_outcome(task, outcome)


# ------------------------------------------------------------------ in a worker process


def recompute(task: RecomputeTask, report: Report) -> Recomputed:
    """Compares stored fields with the same ones computed now, up to the first that is wrong.

    Raises:
        VideoError: The source cannot be read, though it is the file that it was.
    """
    from pipelines.storage.flow_file import FlowFile
    from pipelines.storage.hdf5 import ArtifactError

    compared, last = 0, -1
    try:
        with FlowFile(Path(task.origin.path)) as file:
            method = _method(file.settings)
            if isinstance(method, str):
                return Recomputed(not_recomputable=method)
            rule, wanted = _Rule(file), task.fields(len(file))
            with contextlib.closing(_pictures(task, file, wanted, lambda: report(0))) as pictures:
                for indices, computed in _computed(pictures, wanted, method, file.settings):
                    for index, field in zip(indices, computed, strict=True):
                        report(1)
                        compared, last = compared + 1, index
                        rule.check(index, file.read(index, index + 1)[0], field)
            if last != wanted[-1]:
                frames = file.attributes["source_frames"]
                raise FaultFound("wrong flow", f"its source ends before the {plural(frames, 'frame')} that it states")
    except FaultFound as fault:
        return Recomputed(compared, wrong=fault.detail)
    except ArtifactError as error:
        raise VideoError(str(error)) from error
    return Recomputed(compared)


def _method(settings: "FlowSettings") -> "FlowMethod | str":
    """The method that a file states, on the CPU; or why there is none."""
    from pipelines.jobs.attributes import options_difference
    from pipelines.optical_flow.methods import make_method, options_of

    stated = settings.parameters
    if settings.method == "raft":
        from pipelines.optical_flow.raft import are_weights_here

        if not are_weights_here(stated):
            return "the weights of its method are not on this machine"
    with contextlib.suppress(UsageError):
        method = make_method(settings.method, options_of(stated))
        if not options_difference(stated, method.parameters):
            return method
    return "its method has other parameters in this version"


class _Rule:
    """What counts as the same field."""

    def __init__(self, file: "FlowFile") -> None:
        from pipelines.storage.provenance import library_versions

        self.method = file.settings.method
        self.levels = min(_MOST_LEVELS, max(1, int(_PIXELS * 255 / (2 * file.settings.bound))))
        with contextlib.suppress(ValueError, TypeError):
            then, now = json.loads(file.attributes.get("library_versions", "null")), library_versions(*_LIBRARIES)
            if self.method != "raft" and then == {**then, **now}:
                self.share = _SHARE
                return
        self.share = _SHARE_IF_OTHERWISE

    def check(self, index: int, stored: "np.ndarray", computed: "np.ndarray") -> None:
        """Compares two fields uint8 [2, H, W]. Raises `FaultFound` if they differ by more than rounding."""
        import numpy as np

        off = np.abs(stored.astype(np.int16) - computed)
        share = float((off > self.levels).mean())
        if share > self.share:
            level = plural(self.levels, "grey level")
            raise FaultFound(
                "wrong flow",
                f"field {index} is not what {self.method} gives for its frames: {100 * share:.0f} % of its bytes are "
                f"off by more than {level}, by up to {off.max()}",
            )


def _pictures(
    task: RecomputeTask, flow: "FlowFile", fields: Sequence[int], on_way: Callable[[], None]
) -> "Generator[tuple[int, np.ndarray]]":
    """The frames of these fields, RGB uint8 [H, W, 3], each with its index, as the flow was made from them. `on_way` is
    called while others are decoded, which in a long film takes longer than a process may go without a report."""
    attributes, path = flow.attributes, Path(task.origin.source)
    height, width = flow.file["flow"].shape[2:]
    wanted = {index + offset for index in fields for offset in (0, flow.settings.step)}
    if not task.origin.from_video:
        from pipelines.storage.frames_file import FrameFile

        with FrameFile(path) as file:
            yield from ((index, file.read_one(index)) for index in sorted(wanted))
        return
    from pipelines.video.decoding import VideoReader, damage
    from pipelines.video.resize import resize

    def is_wanted(index: int) -> bool:
        if index % _REPORTED == 0:
            on_way()
        return index in wanted

    with VideoReader(path, keep_size=True, allow_truncated=True, allow_damaged=True) as reader:
        size = reader.source_width, reader.source_height
        stated = attributes.get("source_width"), attributes.get("source_height")
        if None not in stated and size != stated:
            raise FaultFound(
                "wrong flow", f"its source shows pictures of {size[0]}x{size[1]}, not {stated[0]}x{stated[1]}"
            )
        for index, picture in reader.pick(is_wanted):
            yield index, resize(picture, width, height)
            if index == max(wanted) and not task.all_fields:
                return
        if reader.decoded != attributes["source_frames"]:
            raise FaultFound(
                "wrong flow",
                f"its source has {plural(reader.decoded, 'frame')}, not the {attributes['source_frames']} it states",
            )
        if reader.truncated and not attributes.get("truncated"):
            raise FaultFound("wrong flow", "its source is truncated, which it does not say")
        if reader.damaged_frames and not attributes.get("damaged"):
            found = damage(reader.damaged_frames, reader.decoded)
            raise FaultFound("wrong flow", f"its source is {found}, which it does not say")


def _computed(
    pictures: "Iterable[tuple[int, np.ndarray]]",
    fields: Sequence[int],
    method: "FlowMethod",
    settings: "FlowSettings",
) -> "Iterator[tuple[list[int], np.ndarray]]":
    """Batches of the `fields`: their indices, and uint8 [N, 2, H, W]. Raises `VideoError`."""
    import numpy as np
    import torch

    from pipelines.optical_flow.store import method_input
    from pipelines.storage.quantise import quantise, require_finite

    wanted, step = set(fields), settings.step
    frames: dict[int, np.ndarray] = {}
    batch: list[int] = []

    def flow() -> tuple[list[int], np.ndarray]:
        before, after = (np.stack([frames[index + offset] for index in batch]) for offset in (0, step))
        fields = method.flow(torch.from_numpy(before), torch.from_numpy(after))
        require_finite(torch.isfinite(fields).all())
        return batch, quantise(fields, settings.bound).numpy()

    for index, picture in pictures:
        frames[index] = method_input(picture, method)
        if index - step in wanted:
            batch.append(index - step)
        if len(batch) == method.batch_size:
            yield flow()
            batch = []
            frames = {kept: frame for kept, frame in frames.items() if kept > index - step}
    if batch:
        yield flow()
