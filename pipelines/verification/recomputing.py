"""Which flow to recompute, to find out whether it is what its method gives, and what that found.

What recomputes it must not share the fault it looks for. TV-L1 of 0.1.0 was wrong once a process had loaded kernels for
two widths: flow is recomputed by processes that have loaded none before, and load those for one width only.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipelines.errors import VideoError
from pipelines.runtime.worker_pool import Limits, memory_share, share_tasks
from pipelines.verification.faults import CheckLevel, Fault
from pipelines.verification.tasks import Recomputed, RecomputeTask, VideoReport

_FAULTY_VERSION, _FAULTY_METHOD = "0.1.0", "tvl1"
_SUSPECT = "it was made by stres 0.1.0 with tvl1 among videos of other widths, whose kernels could be mixed up"


def suspects(reports: Iterable[VideoReport]) -> set[str]:
    """The videos whose flow may be of mixed-up kernels: TV-L1 by 0.1.0, which did not record whether the CPU or a GPU
    computed, in a workspace with TV-L1 of more than one kernel."""
    origins = {report.task.id: report.origin for report in reports if report.origin is not None}
    of_method = {id_: origin for id_, origin in origins.items() if origin.method == _FAULTY_METHOD}
    if len({origin.kernel_width for origin in of_method.values()}) < 2:
        return set()
    return {id_ for id_, origin in of_method.items() if origin.stres_version == _FAULTY_VERSION}


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
    """Recomputes all; `on_outcome` receives each outcome, on rank 0 those of all ranks.

    A `VideoError` says why a source gives no flow any more, or that the process died under it.
    """
    from pipelines.verification.one_flow import recompute

    limits, groups = Limits(memory=memory_share(workers)), dict[int, list[RecomputeTask]]()
    for task in tasks:
        groups.setdefault(task.origin.kernel_width, []).append(task)
    for _, group in sorted(groups.items()):
        # Processes that end with the group: their kernels are those of one width.
        with contextlib.closing(share_tasks(recompute, group, workers, limits=limits)) as outcomes:
            for _, task, outcome in outcomes:
                on_outcome(task, outcome)
