"""What only shows when all videos are compared: what is missing, what comes twice, what differs from the rest."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipelines.datasets.catalogue import Catalogue, lack_of
from pipelines.datasets.dataset_file import read_dataset_file, video_id
from pipelines.datasets.splits import resolve, sets_of_splits, splits_in_use
from pipelines.errors import MissingError, StresError
from pipelines.interface.options import BOTH_STREAMS
from pipelines.interface.wording import plural, some
from pipelines.sources.names import is_video
from pipelines.sources.segments import video_of
from pipelines.storage.failures import Failure
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.workspace import KINDS, Kind, Workspace
from pipelines.training.runs import Run
from pipelines.verification.faults import Fault, FaultKind
from pipelines.verification.tasks import VideoReport, VideoTask

_MADE_BY: dict[str, Kind] = {f"{verb}-{kind}": kind for kind in KINDS for verb in ("extract", "import")}  # by stage


def _is_needed(workspace: Workspace, kind: Kind) -> bool:
    """Whether a run is fed with it; where no run tells, it may be."""
    stream = "appearance" if kind == "frames" else "motion"
    try:
        runs = [Run(file.parent).config() for file in workspace.runs.glob("*/config.json")]
    except MissingError:
        return True
    return not runs or any(stream in each.step.inputs for run in runs for each in run.steps.values())


def find_missing(workspace: Workspace, tasks: Sequence[VideoTask], failures: Iterable[Failure]) -> list[Fault]:
    """Videos with frames but no flow, or the reverse, and those that a stage failed to make; one fault only for a kind
    that no video has, and none where the workspace's runs are of the other stream alone."""
    reasons = {(_MADE_BY.get(row.stage), row.class_name, row.video): row for row in failures}
    faults = []
    for kind in KINDS:
        folder = workspace.frames if kind == "frames" else workspace.flow
        if not any(kind in task.artifacts for task in tasks):
            if not _is_needed(workspace, kind):
                continue
            detail = f"none of {len(tasks)} videos has {kind}: run `stres extract-{kind}`"
            faults.append(Fault("missing", kind, str(folder), detail))
            continue
        for task in tasks:
            if kind not in task.artifacts:
                row = reasons.get((kind, task.class_name, task.video))
                why = f" ({row.stage}: {row.reason})" if row else ""
                path = folder / task.class_name / f"{task.video}.h5"
                faults.append(Fault("missing", task.id, str(path), f"has no {kind}{why}", (kind,)))
    present = {(task.class_name, task.video) for task in tasks}
    lost = {
        (class_name, video): row
        for (kind_made, class_name, video), row in reasons.items()
        if kind_made and (class_name, video) not in present
    }
    return faults + [
        Fault("missing", video_id(*key), row.path, f"has neither frames nor flow ({row.stage}: {row.reason})")
        for key, row in sorted(lost.items())
    ]


def find_duplicates(reports: Sequence[VideoReport]) -> list[Fault]:
    """Videos with the same content under two names. If one was made from a file of another name, its artifact is wrong;
    if all pictures are the same too, the data set itself has the video twice."""
    faults = []
    for group in _alike(reports, lambda report: report.flow_digest):
        misplaced = _misplaced(group, "flow")
        if misplaced or len({report.frames_digest or report.task.id for report in group}) > 1:
            faults += [_twice("duplicated flow", "flow", report, group, ("flow",)) for report in misplaced or group]
    for group in _alike(reports, lambda report: report.frames_digest):
        misplaced = _misplaced(group, "frames")
        remake: tuple[Kind, ...] = ("frames",) if misplaced else ()
        faults += [_twice("duplicated video", "frames", report, group, remake) for report in misplaced or group[1:]]
    return faults


def _twice(
    fault: FaultKind, kind: Kind, report: VideoReport, group: Sequence[VideoReport], remake: tuple[Kind, ...]
) -> Fault:
    first = group[0] if group[0] is not report else group[1]
    more = f" and {len(group) - 2} more" if len(group) > 2 else ""
    detail = f"has the same {kind} as {first.task.id}{more}"
    return Fault(fault, report.task.id, report.task.path(kind), detail, remake)


def _alike(reports: Iterable[VideoReport], digest: Callable[[VideoReport], str]) -> list[list[VideoReport]]:
    """Groups of two and more with the same digest."""
    groups = defaultdict(list)
    for report in reports:
        if digest(report):
            groups[digest(report)].append(report)
    return [group for group in groups.values() if len(group) > 1]


def _misplaced(group: Iterable[VideoReport], kind: Kind) -> list[VideoReport]:
    """Those whose artifact was made from a video file of another name."""
    named = ((report, Path(report.artifacts[kind].source)) for report in group)
    return [
        report
        for report, source in named
        if is_video(source) and source.stem not in (report.task.video, video_of(report.task.video))
    ]


def find_odd_settings(reports: Iterable[VideoReport]) -> list[Fault]:
    """Flow files with other settings than most have."""
    with_flow = [report for report in reports if "flow" in report.artifacts]
    usual = usual_settings(with_flow)
    faults = []
    for report in with_flow:
        settings = report.artifacts["flow"].flow_settings
        assert settings is not None
        assert usual is not None
        if name := settings.contradiction(usual):
            detail = f"its flow has {name} {getattr(settings, name)}, most have {getattr(usual, name)}"
            faults.append(Fault("settings", report.task.id, report.task.path("flow"), detail, ("flow",)))
    return faults


def usual_settings(reports: Iterable[VideoReport]) -> FlowSettings | None:
    """The flow settings that most videos have; None without any."""
    found = (report.artifacts["flow"].flow_settings for report in reports if "flow" in report.artifacts)
    most = Counter(settings for settings in found if settings is not None).most_common(1)
    return most[0][0] if most else None


def check_dataset_file(workspace: Workspace, reports: Iterable[VideoReport]) -> list[Fault]:
    """Entries of `dataset.json` that would be trusted (size and time are the file's) but differ from the file. One that
    is only out of date is no fault: the next command sees that and opens the file."""
    known = read_dataset_file(workspace.dataset_file)
    wrong = [
        report.task.id
        for report in reports
        for kind, artifact in report.artifacts.items()
        if (entry := known.get((kind, report.task.class_name, report.task.video))) is not None
        and (entry.bytes, entry.mtime_ns) == (artifact.bytes, artifact.mtime_ns)
        and entry != artifact
    ]
    if not wrong:
        return []
    detail = f"differs from what {len(wrong)} artifacts say themselves, such as {wrong[0]}'s"
    return [Fault("dataset file", "dataset.json", str(workspace.dataset_file), detail)]


def check_splits(workspace: Workspace, catalogue: Catalogue, failures: Sequence[Failure]) -> list[Fault]:
    """The faults of all splits in use. `catalogue` lists the videos whose files are present, sound or not; `failures`
    may say why others are absent."""
    reasons = {row.id: f"{row.stage}: {row.reason}" for row in failures}
    streams = [
        stream
        for stream, kind in zip(BOTH_STREAMS, KINDS, strict=True)
        if any(video.has([stream]) for video in catalogue.videos) or _is_needed(workspace, kind)
    ]
    faults = []
    for name, lists in sets_of_splits(workspace).items():
        folder, before = str(lists), name and f"{name} "
        try:
            for split in splits_in_use(lists):
                resolved = resolve(split, catalogue, streams=streams)
                if absent := [*resolved.missing_train, *resolved.missing_test]:
                    named = some([f"{id_} ({reasons[id_]})" if id_ in reasons else id_ for id_ in absent], 5)
                    videos = plural(len(split.train) + len(split.test), "video")
                    have = "has" if len(absent) == 1 else "have"
                    detail = f"names {videos}, of which {len(absent)} {have} {lack_of(streams)}: {named}"
                    faults.append(Fault("split names absent videos", before + split.name, folder, detail))
                if groups := resolved.leaking_groups:
                    detail = f"has videos of {plural(len(groups), 'group')} in both train and test: {some(groups, 5)}"
                    faults.append(Fault("group on both sides", before + split.name, folder, detail))
        except StresError as error:
            faults.append(Fault("splits", before + "splits", folder, str(error)))
    return faults


def in_no_split(workspace: Workspace, catalogue: Catalogue) -> list[str]:
    """Ids of the videos that no split in use names; none without splits, or if they cannot be read."""
    try:
        splits = [split for folder in sets_of_splits(workspace).values() for split in splits_in_use(folder)]
        left_out = [set(resolve(split, catalogue).unlisted) for split in splits]
    except StresError:
        return []  # a fault of its own
    return sorted(set.intersection(*left_out)) if left_out else []
