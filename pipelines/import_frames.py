"""Stage `import-frames`: frames that another tool left as pictures in folders, stored as ours.

Letters: T frames, H W pixels.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pipelines import options
from pipelines.jobs.resume import size_conflict
from pipelines.jobs.task import ExtractResult
from pipelines.options import Option
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.layouts.finding import PictureFolder

STAGE = "import-frames"

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `import-frames`."""

    workspace: options.WorkspaceFolder
    folder: options.PictureFolders
    class_list: options.ClassList = None
    fps: options.AssumedFps = None
    first: options.FirstPicture = None
    short_side: Annotated[options.ShortSide, Option(default="all stay as they are")] = None
    """Short side: pictures of another are resized and coded again."""
    workers: options.Workers = 0
    overwrite: options.Overwrite = False
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Stores the frames of all videos that are not stored yet.

    Failed videos are rows of `failures.csv` and counted in the result. Raises `MissingError` where there are no
    videos, `UsageError` where frames were stored with other settings, `StorageError` where writing fails.
    """
    from pipelines.layouts.frames import FramesTask, probe, store_frames
    from pipelines.layouts.importing import run_import

    def make_task(found: "PictureFolder", workspace: Workspace) -> FramesTask:
        name = found.source.class_name, found.source.video
        return FramesTask(
            source=found.source,
            series=found.series,
            target=workspace.frames_file(*name),
            other=workspace.flow_file(*name),
            fps=config.fps,
            first=config.first,
            step=1,
            short_side=config.short_side,
        )

    return run_import(
        STAGE,
        "frames",
        config,
        make_task=make_task,
        conflict=functools.partial(_conflict, config),
        store=store_frames,
        probe=probe,
        on_progress=on_progress,
    )


def _conflict(config: Config, attributes: dict[str, Any]) -> str:
    if config.short_side is not None:
        return size_conflict(attributes, config.short_side)
    kept = all(attributes.get(side) == attributes.get(f"source_{side}") for side in ("width", "height"))
    return "" if kept else f"its size is {attributes.get('width')}x{attributes.get('height')}, not the pictures' own"
