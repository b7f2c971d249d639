"""Stage `extract-flow`: the optical flow between the frames of every video, quantised and stored without loss.

Letters: T frames, F = T - step fields, N pairs of a batch, H W pixels.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pipelines.datasets.catalogue import artifact_paths, usable_artifacts
from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.jobs.attributes import flow_difference
from pipelines.jobs.resume import (
    Comparison,
    Sources,
    Verdict,
    divide,
    require_workspace_size,
    size_conflict,
    size_misfit,
)
from pipelines.jobs.run import attributes_made, report_account, run_job
from pipelines.jobs.task import ExtractResult, Job, Probe
from pipelines.optical_flow.methods import EngineName, MethodName, check_engine, make_method
from pipelines.optical_flow.workers import growth_on
from pipelines.runtime.devices import resolve_device
from pipelines.runtime.growth import Growth
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Limits
from pipelines.sources.videos import AS_IT_SAYS, ReadAs, VideoList, VideoSource, account_of, find_videos
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.flow_settings import DEFAULT_BOUND, DEFAULT_METHOD, DEFAULT_STEP, FlowSettings
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.optical_flow.store import FlowTask

STAGE = "extract-flow"

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `extract-flow`."""

    workspace: options.WorkspaceFolder
    videos: Annotated[
        str | None, Option(options.VIDEOS, metavar="VIDEOS", argument=True, default="the workspace's frames")
    ] = None
    method: MethodName = DEFAULT_METHOD
    """Method that computes the flow."""
    method_options: options.MethodOptions = field(default_factory=dict)
    engine: Annotated[EngineName, Option(group=options.RARELY)] = "auto"
    """Implementation of tvl1; all agree up to rounding."""
    bound: Annotated[float, options.BOUND] = DEFAULT_BOUND
    step: Annotated[int, options.FLOW_STEP] = DEFAULT_STEP
    compression: Annotated[options.FlowCompression, Option(group=options.RARELY)] = "zstd"
    short_side: options.ShortSide = None
    workers: options.Workers = 0
    """Worker processes (0: one per CPU core; on a GPU 1, 4 or 12, or one computing for all, whichever is fastest)."""
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

    Failed videos are rows of `failures.csv` and counted in the result.

    Raises:
        MissingError: There are no videos, or the method's weights or device are missing.
        UsageError: Flow was stored with other settings, or an option is wrong.
        StorageError: Writing fails.
    """
    workspace = Workspace(config.workspace)
    from_videos = config.videos is not None
    found = ranks().broadcast_from_rank0(lambda: _sources(config, workspace))
    report_account(found.account, on_progress)
    # These load torch, which would only delay the refusals above.
    from pipelines.optical_flow.displacement import ATTRIBUTES as DISPLACEMENT
    from pipelines.optical_flow.displacement import clipping
    from pipelines.optical_flow.mixing import Mixer
    from pipelines.optical_flow.probing import FlowProbe, probe, propose
    from pipelines.optical_flow.segments import store_segments
    from pipelines.optical_flow.store import GPU_SECONDS, FlowTask, store_flow

    device = str(resolve_device(config.device))
    method = make_method(config.method, config.method_options, device, config.engine)
    settings = FlowSettings.of(
        config.method, method.parameters, config.bound, config.step, "video" if from_videos else "jpeg"
    )
    mixer = Mixer(config.method, config.method_options, device, config.engine)
    tasks = [
        FlowTask(
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
            mixer=mixer.address,
        )
        for source in found.videos
    ]
    where = device if method.uses_device else "cpu"
    helper = mixer if method.batch_invariant else None
    growth = Growth((config.workers,)) if config.workers else growth_on(where, helper)
    job = Job(
        STAGE,
        unit="pairs",
        workspace=workspace,
        folder=workspace.flow,
        store=store_flow,
        store_segments=store_segments,
        probe=probe,
        workers=growth.steps[-1],
        growth=growth,
        patience=config.patience,
        uses_gpu=where != "cpu",
        decodes=from_videos,
        short_side=config.short_side,
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    comparison = Comparison(
        FLOW_SCHEMA,
        Sources() if from_videos else _StoredFrames(),
        functools.partial(_conflict, config, settings),
        functools.partial(size_misfit, config.short_side) if from_videos else None,
    )
    division = divide(job, tasks, found.problems, comparison, overwrite=config.overwrite)
    if not config.overwrite:
        ranks().broadcast_from_rank0(lambda: _require_agreement(workspace, settings))
        if from_videos:
            ranks().broadcast_from_rank0(lambda: require_workspace_size(job, division))
    probes: list[Probe] = []
    with mixer:
        result = run_job(job, division, ignored=found.ignored, account=found.account, on_probe=probes.append)
    if result.estimate is not None:
        measured = [probe for probe in probes if isinstance(probe, FlowProbe)]
        return replace(result, proposal=propose(measured, config.method, config.bound, result.estimate.hours))
    made = attributes_made(job, division, FLOW_SCHEMA, (*DISPLACEMENT, "times_problem", GPU_SECONDS))
    broken = sum("times_problem" in attributes for attributes in made)
    waited = gpu_waited([attributes.get(GPU_SECONDS, 0.0) for attributes in made], result.seconds, ranks().size)
    return replace(
        result,
        clipping=clipping(made, config.bound),
        broken_times=broken,
        gpu_waited=waited,
        gpu_processes=growth.count if where != "cpu" else None,
        process_rates=growth.rates,
        gpu_mixed=growth.with_helper,
        mixed_rate=growth.helped_rate,
    )


def _require_agreement(workspace: Workspace, settings: FlowSettings) -> None:
    """Raises `UsageError` where other videos' flow lacks the settings that all of a workspace's has to share."""
    for _, attributes in usable_artifacts(workspace, "flow"):
        before = FlowSettings.from_attributes(attributes)
        if name := settings.contradiction(before):
            raise UsageError(
                f"the flow in {workspace.flow} has {name.replace('_', ' ')} {getattr(before, name)}, not "
                f"{getattr(settings, name)}, and cannot be used beside it: give the options it was made with (--method "
                f"{before.method} --bound {before.bound:g} --step {before.step}), or --overwrite and all of its videos"
            )
        return


def gpu_waited(gpu_seconds: Sequence[float], seconds: float, gpus: int) -> float | None:
    """The least share of `seconds` in which the GPUs had nothing to compute, from what each video took of one; None
    where no GPU computed. It may be more: processes that share a GPU count each other's time too."""
    busy = sum(gpu_seconds)
    return max(0.0, 1 - busy / (seconds * gpus)) if busy else None


def _sources(config: Config, workspace: Workspace) -> VideoList:
    """The videos, or without VIDEOS the workspace's frame files."""
    if config.videos is not None:
        return find_videos(config.videos, workspace=workspace.root, read_as=config.read_as)
    workspace.require()
    paths = artifact_paths(workspace.frames)
    videos = [VideoSource(path.parent.name, path.stem, path.absolute()) for path in paths]
    if not videos:
        raise MissingError(f"no frames in {workspace.frames}: run `stres extract-frames VIDEOS`, or name the VIDEOS")
    return VideoList(videos, account=account_of(f"frames of {workspace.root}", videos))


def _conflict(config: Config, settings: FlowSettings, attributes: dict[str, Any]) -> str:
    difference = flow_difference(attributes, settings)
    return difference if difference or config.videos is None else size_conflict(attributes, config.short_side)


class _StoredFrames(Sources["FlowTask"]):
    """Sources that are the workspace's frame files."""

    def compare(self, task: "FlowTask", attributes: Mapping[str, Any]) -> Verdict:
        try:
            now = peek(task.source.path, FRAMES_SCHEMA).get("content_sha256")
        except ArtifactError:
            return "changed"
        return "same" if now == attributes.get("frames_sha256") else "changed"
