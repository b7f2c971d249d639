"""Stage `import-frames`: frames that another tool left as pictures in folders, stored as ours."""

import functools
from dataclasses import dataclass
from typing import Annotated, Any

from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.jobs.resume import Comparison, divide, require_workspace_size, size_conflict
from pipelines.jobs.run import report_account, run_job
from pipelines.jobs.task import ExtractResult, Job
from pipelines.runtime.devices import available_cores
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.workspace import Workspace

STAGE = "import-frames"

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `import-frames`."""

    workspace: options.WorkspaceFolder
    folder: options.PictureFolders
    class_list: options.ClassList = None
    classes_at: options.PictureClassesAt = None
    fps: options.AssumedFps = None
    first: options.FirstPicture = None
    short_side: Annotated[options.ShortSide, Option(default="every picture stays as it is")] = None
    """Resize pictures to this short side, which encodes them again."""
    workers: options.Workers = 0
    overwrite: options.Overwrite = False
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Stores the frames of all videos that are not stored yet.

    Failed videos are rows of `failures.csv` and counted in the result.

    Raises:
        MissingError: There are no videos.
        UsageError: The folders do not say which are the classes, or frames were stored with other settings.
        StorageError: Writing fails.
    """
    from pipelines.layouts.finding import find_folders
    from pipelines.layouts.frames import ImportFramesTask, probe, store_frames
    from pipelines.layouts.importing import PictureSeries

    workspace = Workspace(config.workspace)
    found = ranks().broadcast_from_rank0(
        lambda: find_folders(config.folder, "frames", config.class_list, config.classes_at)
    )
    report_account(found.account, on_progress)
    tasks = [
        ImportFramesTask(
            source=source,
            series=series,
            target=workspace.frames_file(source.class_name, source.video),
            fps=config.fps,
            first=config.first,
            step=1,
            short_side=config.short_side,
        )
        for source, series in found.folders
    ]
    job = Job(
        STAGE,
        unit="frames",
        workspace=workspace,
        folder=workspace.frames,
        store=store_frames,
        probe=probe,
        workers=config.workers or available_cores(),
        short_side=config.short_side,
        dry_run=config.dry_run,
        on_progress=on_progress,
    )
    comparison: Comparison[ImportFramesTask] = Comparison(
        FRAMES_SCHEMA, PictureSeries(), functools.partial(_conflict, config)
    )
    division = divide(job, tasks, found.problems, comparison, overwrite=config.overwrite)
    if config.short_side is not None and not config.overwrite:
        ranks().broadcast_from_rank0(lambda: require_workspace_size(job, division))
    return run_job(job, division, ignored=found.ignored, account=found.account)


def _conflict(config: Config, attributes: dict[str, Any]) -> str:
    if config.short_side is not None:
        return size_conflict(attributes, config.short_side)
    kept = all(attributes.get(side) == attributes.get(f"source_{side}") for side in ("width", "height"))
    return "" if kept else f"its size is {attributes.get('width')}x{attributes.get('height')}, not the pictures' own"
