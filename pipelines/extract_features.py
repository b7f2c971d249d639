"""Stage `extract-features`: what a run's network gives its classifiers, for other programs to learn from.

Leaves `features/<run>/<class>/<video>.npy` and `.h5`, and `features.json`, which lists them.
"""

import functools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipelines.errors import UsageError
from pipelines.evaluation.protocols import CROPS, ProtocolSettings
from pipelines.interface import options
from pipelines.interface.options import Option, TemporalName, ViewName
from pipelines.jobs.resume import Comparison, Sources, divide
from pipelines.jobs.run import report_account, run_job
from pipelines.jobs.task import ExtractResult, Job
from pipelines.prediction.windows import Duration, lengths
from pipelines.runtime.devices import available_cores, device_for
from pipelines.runtime.progress import OnProgress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import Limits
from pipelines.sources.videos import AS_IT_SAYS, ReadAs, find_videos
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Chosen, choose_run, streams_of

if TYPE_CHECKING:
    from pipelines.prediction.features import FeatureSettings

STAGE = "extract-features"
_WORKERS_OF_A_GPU = 4  # each holds the network and a CUDA context


@dataclass(frozen=True)
class Config(ProtocolSettings):
    """Settings of `extract-features`."""

    workspace: options.WorkspaceFolder
    videos: options.Videos
    """A folder of class folders, a list file (path label), a single video, or a glob."""
    run: options.RunOrFolder = None
    step: options.UsedNetwork = None
    checkpoint: options.UsedCheckpoint = "last"
    stream: Literal["appearance", "motion", "both"] = "both"
    """Whose features: appearance, motion, or both beside each other (of a network that has both)."""
    per: Literal["clip", "window", "frame"] = "window"
    """A row for each clip (the whole video), window or frame."""
    window: Annotated[str | None, Option(metavar="LENGTH", default="2")] = None
    """Length of a window: in seconds (2, 0.5s) or frames (50f)."""
    hop: Annotated[str | None, Option(metavar="LENGTH", default="half a window")] = None
    """Distance from one window to the next."""
    fps: Annotated[float | None, Option(metavar="N", above=0, maximum=1000, default="every frame")] = None
    """Rows a second: of frames, or of windows, instead of --hop."""
    _: KW_ONLY
    crops: Annotated[
        int | None,
        Option(metavar="N", minimum=1, default="25 of a clip; otherwise as in training, of a window at least 5"),
    ] = None
    """Frames that the network looks at together: of a clip or window, spaced evenly."""
    views: ViewName = "full"
    """full (whole frames), center, 3, 5, or 10 crops (5 and their mirror images), averaged."""
    mirror: options.Mirror = None
    """Also average over the mirror images."""
    output: Annotated[Path | None, Option(metavar="DIR", default="the workspace's features/RUN")] = None
    """Folder for the features."""
    device: options.DeviceName = "auto"
    precision: options.TestPrecision = "fp32"
    workers: options.Workers = 0
    """Worker processes (0: one per CPU core; on a GPU at most 4)."""
    patience: options.Patience = Limits.patience
    overwrite: options.Overwrite = False
    allow_truncated: options.AllowTruncated = False
    allow_damaged: options.AllowDamaged = False
    method_options: Annotated[options.MethodOptions, Option(group=options.RARELY)] = field(default_factory=dict)
    """weights=FILE, if the run's flow method reads its weights from a file."""
    read_as: ReadAs = AS_IT_SAYS
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lengths()
        if self.per == "frame" and self.temporal not in (None, "sequence"):
            raise UsageError(f"--temporal {self.temporal} is for clips and windows: leave it out with --per frame")

    @property
    def all_temporals(self) -> Sequence[TemporalName | None]:
        return ("sequence",) if self.per == "frame" else super().all_temporals

    def lengths(self) -> tuple[Duration, Duration] | tuple[None, None]:
        """Window and hop; None but per window. Raises `UsageError`."""
        if self.per == "window":
            if self.fps is None:
                return lengths(self.window, self.hop)
            if self.hop is not None:
                raise UsageError(f"--fps {self.fps:g} and --hop {self.hop} say the same: give only one")
            try:
                return lengths(self.window, repr(1 / self.fps))
            except UsageError as error:
                raise UsageError(f"--fps {self.fps:g}: {error}") from error
        for flag, value in (("--window", self.window), ("--hop", self.hop)):
            if value is not None:
                raise UsageError(f"{flag} {value} goes with --per window only")
        if self.per == "clip" and self.fps is not None:
            raise UsageError(f"--fps {self.fps:g} does not go with --per clip, which has one row")
        return None, None


@dataclass(frozen=True, kw_only=True)
class Result(ExtractResult):
    """What was extracted."""

    folder: Path
    run: str
    step: str
    channels: dict[str, int]
    """Of each stream, in the order of the .npy files; empty where nothing is stored."""


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Stores the features of all videos that have none yet, and lists them in `features.json`.

    Failed videos are rows of `failures.csv` and counted in the result.

    Raises:
        MissingError: There are no videos, or the run, or what computes its flow, is missing.
        UsageError: Features were stored with other settings, or the network lacks the stream.
        StorageError: Writing fails.
    """
    from pipelines.prediction.feature_index import settings_difference, with_lost_arrays, write_index
    from pipelines.prediction.features import FEATURES_SCHEMA, Extractor, FeatureTask, probe, store_features

    workspace = Workspace(config.workspace)
    chosen = ranks().broadcast_from_rank0(lambda: choose_run(workspace, config.run, config.step, config.checkpoint))
    if chosen.warning and ranks().is_first:
        on_progress(note(chosen.warning))
    device = device_for(config.device, config.precision)
    settings = ranks().broadcast_from_rank0(lambda: _settings(config, chosen))
    found = ranks().broadcast_from_rank0(
        lambda: find_videos(config.videos, workspace=config.workspace, read_as=config.read_as)
    )
    if any(source.segment for source in found.videos):
        raise UsageError(
            f"{config.videos} lists segments, and features are those of whole videos: name these, with --per window "
            "for features over time"
        )
    report_account(found.account, on_progress)
    extractor = Extractor(
        chosen.run,
        settings,
        str(device),
        tuple(sorted(config.method_options.items())),
        config.allow_truncated,
        config.allow_damaged,
    )
    folder = config.output or workspace.features / chosen.run.name
    tasks = [
        FeatureTask(source, folder / source.class_name / f"{source.video}.h5", extractor) for source in found.videos
    ]
    on_gpu = device.type != "cpu"
    job = Job(
        STAGE,
        unit="frames",
        workspace=workspace,
        folder=folder,
        store=store_features,
        probe=probe,
        workers=config.workers or (min(available_cores(), _WORKERS_OF_A_GPU) if on_gpu else available_cores()),
        patience=config.patience,
        uses_gpu=on_gpu,
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    conflict = functools.partial(settings_difference, settings.document())
    comparison = Comparison(FEATURES_SCHEMA, Sources[FeatureTask](), conflict, elsewhere="another --output")
    division = divide(job, tasks, found.problems, comparison, overwrite=config.overwrite)
    division = ranks().broadcast_from_rank0(lambda: with_lost_arrays(division))
    result = run_job(job, division, ignored=found.ignored, account=found.account)
    channels = (
        {} if config.dry_run else ranks().broadcast_from_rank0(lambda: write_index(folder, settings, on_progress))
    )
    return Result(**vars(result), folder=folder, run=chosen.run.name, step=chosen.step, channels=channels)


def _settings(config: Config, chosen: Chosen) -> "FeatureSettings":
    """Raises `UsageError` if the network lacks the stream."""
    from pipelines.prediction.features import FeatureSettings
    from pipelines.prediction.predictor import crops_of_a_window, frames_of_training

    has = streams_of(chosen.run.config(), chosen.step)
    if config.stream not in ("both", *has):
        raise UsageError(
            f"--stream {config.stream}: the network {chosen.step} of run {chosen.run.name} has only {has[0]}; leave "
            "the option out, or give another --network"
        )
    if config.per == "clip":
        crops = CROPS
    else:
        crops = (crops_of_a_window if config.per == "window" else frames_of_training)(chosen.run, chosen.step)
    window, hop = config.lengths()
    return FeatureSettings(
        run=chosen.run.name,
        network=chosen.step,
        weights_sha256=chosen.run.weights_sha256(chosen.step),
        streams=has if config.stream == "both" else (config.stream,),
        per=config.per,
        window=window,
        hop=hop,
        fps=config.fps if config.per == "frame" else None,
        protocol=config.protocol_for(chosen, crops),
        precision=config.precision,
    )
