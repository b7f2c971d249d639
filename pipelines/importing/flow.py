"""Stage `import-flow`: flow that another tool left as grey pictures in folders, stored as ours, value for value."""

import functools
import math
import re
from dataclasses import dataclass, field
from typing import Annotated

from pipelines.errors import UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.jobs.attributes import flow_difference
from pipelines.jobs.resume import Comparison, divide
from pipelines.jobs.run import report_account, run_job
from pipelines.jobs.task import ExtractResult, Job
from pipelines.optical_flow.methods import METHODS, make_method
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.flow_settings import DEFAULT_STEP, FlowSettings
from pipelines.storage.workspace import Workspace

STAGE = "import-flow"
IMPORTED = "imported"
"""The attribute `flow_input`: from what the flow was computed is not known."""

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `import-flow`."""

    workspace: options.WorkspaceFolder
    folder: options.PictureFolders
    method: Annotated[str, Option(metavar="NAME")]
    """Method that computed the flow: the name that `extract-flow` has for it, or any other."""
    bound: Annotated[float, Option(metavar="PIXELS", above=0, below=math.inf)]
    """Bound of the flow: the lowest and the highest grey value stand for -BOUND and BOUND."""
    method_options: options.MethodOptions = field(default_factory=dict)
    step: Annotated[int, Option(metavar="N", minimum=1)] = DEFAULT_STEP
    """Flow from frame t to frame t+N."""
    class_list: options.ClassList = None
    classes_at: options.PictureClassesAt = None
    fps: options.AssumedFps = None
    first: options.FirstPicture = None
    compression: options.FlowCompression = "zstd"
    workers: options.Workers = 0
    overwrite: options.Overwrite = False
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", self.method):
            raise UsageError(f"--method {self.method!r} is not a name: give letters, digits and . _ + -")
        if self.method_options and self.method not in METHODS:
            raise UsageError(f"--method-option goes only with the methods {', '.join(METHODS)}, not with {self.method}")


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Stores the flow of all videos that have none yet.

    Failed videos are rows of `failures.csv` and counted in the result.

    Raises:
        MissingError: There are no videos.
        UsageError: The folders do not say which are the classes, flow was stored with other settings, or a parameter of
            the method is wrong.
        StorageError: Writing fails.
    """
    from pipelines.layouts.finding import find_folders
    from pipelines.layouts.flow import ImportFlowTask, probe, store_flow
    from pipelines.layouts.importing import PictureSeries

    workspace = Workspace(config.workspace)
    found = ranks().broadcast_from_rank0(
        lambda: find_folders(config.folder, "flow", config.class_list, config.classes_at)
    )
    report_account(found.account, on_progress)
    # All parameters of a method of stres, so that its flow fits that of `extract-flow` and `predict` can add to it.
    known = config.method in METHODS
    parameters = make_method(config.method, config.method_options).parameters if known else {}
    settings = FlowSettings.of(config.method, parameters, config.bound, config.step, IMPORTED)
    tasks = [
        ImportFlowTask(
            source=source,
            series=series,
            target=workspace.flow_file(source.class_name, source.video),
            fps=config.fps,
            first=config.first,
            step=config.step,
            compression=config.compression,
            settings=settings,
        )
        for source, series in found.folders
    ]
    job = Job(
        STAGE,
        unit="pairs",
        workspace=workspace,
        folder=workspace.flow,
        store=store_flow,
        probe=probe,
        workers=config.workers or available_cores(),
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    conflict = functools.partial(flow_difference, wanted=settings)
    comparison: Comparison[ImportFlowTask] = Comparison(FLOW_SCHEMA, PictureSeries(), conflict)
    division = divide(job, tasks, found.problems, comparison, overwrite=config.overwrite)
    return run_job(job, division, ignored=found.ignored, account=found.account)
