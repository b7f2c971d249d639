"""Stage `import-frames`: frames that another tool left as pictures in folders, stored as ours.

Letters: T frames, H W pixels.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.progress import OnProgress, ignore_progress
from pipelines.video.extraction import ExtractResult
from pipelines.video.identity import size_conflict
from pipelines.video.resize import check_short_side
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.layouts.finding import PictureFolder

STAGE = "import-frames"

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `import-frames`."""

    workspace: Path
    """The workspace to write `frames/` into."""
    folder: Path
    """Folder of the videos' folders of pictures."""
    class_list: Path | None = None
    """Folder of split lists, or list file (`path label`), that tells the classes; None: the folders' names do."""
    fps: float | None = None
    """Frames a second, which pictures do not tell; None: 25, marked as assumed."""
    first: int | None = None
    """Number of the first picture to take; None: all, which begin with 0 or 1."""
    short_side: int | None = None
    """Short side in pixels: pictures of another size are resized and coded again; None: all stay as they are."""
    workers: int = 0
    """Videos processed at once; 0: one for each CPU core."""
    overwrite: bool = False
    """Make everything again, whatever is there."""
    dry_run: bool = False
    """Only estimate videos, frames, disk and time."""

    def __post_init__(self) -> None:
        from pipelines.layouts.importing import check_config

        check_config(self)
        check_short_side(self.short_side)


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
