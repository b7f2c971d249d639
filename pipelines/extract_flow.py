"""Stage `extract-flow`: the optical flow between the frames of every video, quantised and stored without loss.

Letters: T frames, F = T - step fields, N pairs of a batch, H W pixels.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pipelines import options
from pipelines.errors import MissingError, UsageError
from pipelines.jobs.attributes import options_difference
from pipelines.jobs.dry_run import Probe, estimate
from pipelines.jobs.resume import VIDEO_FILE, Verdict, divide, size_conflict, size_misfit
from pipelines.jobs.run import dry_run_result, extract, tell_account
from pipelines.jobs.task import ExtractResult
from pipelines.optical_flow.methods import EngineName, MethodName, check_engine, make_method
from pipelines.optical_flow.settings import default_workers
from pipelines.options import Option
from pipelines.runtime.devices import resolve_device
from pipelines.runtime.parallel_map import parallel_map
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Limits, memory_share
from pipelines.sources.videos import AS_IT_SAYS, ReadAs, VideoList, VideoSource, account_of, find_videos
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.flow_settings import DEFAULT_BOUND, DEFAULT_METHOD, DEFAULT_STEP, FlowSettings
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.optical_flow.store import FlowTask

STAGE = "extract-flow"
_RARELY = "Rarely needed"

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `extract-flow`."""

    workspace: options.WorkspaceFolder
    videos: Annotated[
        str | None, Option(options.VIDEOS, metavar="VIDEOS", argument=True, default="the workspace's frames")
    ] = None
    method: MethodName = DEFAULT_METHOD
    """What computes the flow."""
    method_options: options.MethodOptions = field(default_factory=dict)
    engine: Annotated[EngineName, Option(group=_RARELY)] = "auto"
    """Program that computes tvl1; they are equal but for rounding."""
    bound: Annotated[float, options.BOUND] = DEFAULT_BOUND
    step: Annotated[int, options.FLOW_STEP] = DEFAULT_STEP
    compression: Annotated[options.Compression, Option(group=_RARELY)] = "zstd"
    short_side: options.ShortSide = None
    workers: options.Workers = 0
    """Worker processes; 0: one for each CPU core; where a GPU computes, at most 12 and one for 4 GB of it."""
    device: options.DeviceName = "auto"
    patience: options.Patience = Limits.patience
    overwrite: options.Overwrite = False
    allow_truncated: options.AllowTruncated = False
    allow_damaged: options.AllowDamaged = False
    read_as: ReadAs = AS_IT_SAYS
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)
        check_engine(self.method, self.engine)
        if self.videos is None and self.short_side is not None:
            raise UsageError("--short-side does not go with flow from frames/, whose size is settled: name VIDEOS")


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Stores the flow of all videos that have none yet.

    Failed videos are rows of `failures.csv` and counted in the result. Raises `MissingError` where there are no videos
    or the method's weights or device are missing, `UsageError` where flow was stored with other settings or an option
    is wrong, `StorageError` where writing fails.
    """
    from pipelines.optical_flow.displacement import clipping
    from pipelines.optical_flow.probing import FlowProbe, probe
    from pipelines.optical_flow.proposal import propose
    from pipelines.optical_flow.store import store_flow

    workspace = Workspace(config.workspace)
    found = ranks().broadcast_from_rank0(lambda: _sources(config, workspace))
    tell_account(STAGE, found, on_progress)
    device = str(resolve_device(config.device))
    method = make_method(config.method, config.method_options, device, config.engine)
    flow_input = "video" if config.videos is not None else "jpeg"
    settings = FlowSettings.of(config.method, method.parameters, config.bound, config.step, flow_input)
    tasks = [_task(config, source, workspace, device, settings) for source in found.videos]
    division = divide(
        tasks,
        found.problems,
        FLOW_SCHEMA,
        VIDEO_FILE,
        overwrite=config.overwrite,
        conflict=functools.partial(_conflict, config, settings),
        compare=None if config.videos is not None else _compare_frames,
        misfit=functools.partial(size_misfit, config.short_side) if config.videos is not None else None,
        workspace=workspace,
        stage=STAGE,
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    where = device if method.uses_device else "cpu"
    workers = config.workers or default_workers(where)
    # A GPU's driver maps more memory than anything takes.
    limits = Limits(config.patience, memory_share(workers) if where == "cpu" else None)
    if config.dry_run:
        probes: list[Probe] = []
        cost = estimate(
            probe,
            division.to_do,
            workers=workers,
            limits=limits,
            stage=STAGE,
            on_probe=probes.append,
            on_progress=on_progress,
        )
        proposal = propose(
            [probe for probe in probes if isinstance(probe, FlowProbe)], config.method, config.bound, cost.hours
        )
        result = dry_run_result(STAGE, "pairs", division, ignored=found.ignored, estimate=cost)
        return replace(result, found=found.account, proposal=proposal)
    result = extract(
        STAGE,
        store_flow,
        division,
        workspace=workspace,
        folder=workspace.flow,
        workers=workers,
        limits=limits,
        unit="pairs",
        ignored=found.ignored,
        on_progress=on_progress,
    )
    made = ranks().broadcast_from_rank0(
        lambda: parallel_map(_moved, division.to_do, f"{STAGE} (what was clipped)", on_progress)
    )
    clipped = clipping([attributes for attributes in made if isinstance(attributes, dict)], config.bound)
    return replace(result, found=found.account, clipping=clipped)


def _moved(task: "FlowTask") -> dict[str, Any]:
    """What the task's flow file says of how far things move in it; nothing where there is none."""
    from pipelines.optical_flow.displacement import ATTRIBUTES

    try:
        return peek(task.target, FLOW_SCHEMA, ATTRIBUTES)
    except ArtifactError:
        return {}


def _task(config: Config, source: VideoSource, workspace: Workspace, device: str, settings: FlowSettings) -> "FlowTask":
    from pipelines.optical_flow.store import FlowTask

    return FlowTask(
        source=source,
        target=workspace.flow_file(source.class_name, source.video),
        short_side=config.short_side,
        allow_truncated=config.allow_truncated,
        method_options=tuple(sorted(config.method_options.items())),
        engine=config.engine,
        device=device,
        compression=config.compression,
        settings=settings,
        allow_damaged=config.allow_damaged,
    )


def _sources(config: Config, workspace: Workspace) -> VideoList:
    if config.videos is None:
        return _stored_frames(workspace)
    return find_videos(config.videos, workspace=workspace.root, read_as=config.read_as)


def _stored_frames(workspace: Workspace) -> VideoList:
    """The workspace's frame files as sources."""
    workspace.require()
    paths = sorted(workspace.frames.glob("*/*.h5"))
    videos = [VideoSource(path.parent.name, path.stem, path.absolute()) for path in paths if path.name[0] != "."]
    if not videos:
        raise MissingError(f"no frames in {workspace.frames}: run `stres extract-frames VIDEOS`, or name the VIDEOS")
    return VideoList(videos, account=account_of(f"frames of {workspace.root}", videos))


def _conflict(config: Config, settings: FlowSettings, attributes: dict[str, Any]) -> str:
    difference = options_difference(attributes, settings.attributes())
    return difference if difference or config.videos is None else size_conflict(attributes, config.short_side)


def _compare_frames(task: "FlowTask", attributes: Mapping[str, Any]) -> Verdict:
    """The verdict on flow that is made from stored frames."""
    try:
        now = peek(task.source.path, FRAMES_SCHEMA).get("content_sha256")
    except ArtifactError:
        return "changed"
    return "same" if now == attributes.get("frames_sha256") else "changed"
