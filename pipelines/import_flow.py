"""Stage `import-flow`: flow that another tool left as grey pictures in folders, stored as ours, value for value.

Letters: F fields.
"""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.artifacts import Compression
from pipelines.errors import UsageError
from pipelines.optical_flow.methods import METHODS, make_method
from pipelines.optical_flow.settings import check_settings
from pipelines.progress import OnProgress, ignore_progress
from pipelines.video.extraction import ExtractResult, options_difference
from pipelines.workspace import Workspace, json_text

if TYPE_CHECKING:
    from pipelines.layouts.finding import PictureFolder

STAGE = "import-flow"
IMPORTED = "imported"
"""The attribute `flow_input`: from what the flow was computed is not known."""

Result = ExtractResult


@dataclass(frozen=True)
class Config:
    """Settings of `import-flow`."""

    workspace: Path
    """The workspace to write `flow/` into."""
    folder: Path
    """Folder of the videos' folders of pictures."""
    method: str
    """What computed the flow: a method of `extract-flow`, which must be that one, or any other name."""
    bound: float
    """The flow in pixels that 0 and 255 stand for: -bound and bound."""
    method_options: dict[str, str] = field(default_factory=dict)
    """Parameters of the method by name, where it is one of `extract-flow`; the others have their defaults."""
    step: int = 1
    """Flow from frame t to frame t + step."""
    class_list: Path | None = None
    """Folder of split lists, or list file (`path label`), that tells the classes; None: the folders' names do."""
    fps: float | None = None
    """Frames a second, which pictures do not tell; None: 25, marked as assumed."""
    first: int | None = None
    """Number of the first picture to take; None: all, which begin with 0 or 1."""
    compression: Compression = "zstd"
    """zstd, or gzip for files that must open without hdf5plugin. Both without loss."""
    workers: int = 0
    """Videos processed at once; 0: one for each CPU core."""
    overwrite: bool = False
    """Make everything again, whatever is there."""
    dry_run: bool = False
    """Only estimate videos, fields, disk and time."""

    def __post_init__(self) -> None:
        from pipelines.layouts.importing import check_config

        check_config(self)
        check_settings(self.bound, self.step, self.compression)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", self.method):
            raise UsageError(f"--method {self.method!r} is no name: give letters, digits and . _ + -")
        if self.method_options and self.method not in METHODS:
            raise UsageError(f"--method-option goes only with the methods {', '.join(METHODS)}, not with {self.method}")


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Stores the flow of all videos that have none yet.

    Failed videos are rows of `failures.csv` and counted in the result. Raises `MissingError` where there are no
    videos, `UsageError` where flow was stored with other settings or a parameter of the method is wrong,
    `StorageError` where writing fails.
    """
    from pipelines.layouts.flow import FlowTask, probe, store_flow
    from pipelines.layouts.importing import run_import

    settings = _settings(config)

    def make_task(found: "PictureFolder", workspace: Workspace) -> FlowTask:
        name = found.source.class_name, found.source.video
        return FlowTask(
            source=found.source,
            series=found.series,
            target=workspace.flow_file(*name),
            other=workspace.frames_file(*name),
            fps=config.fps,
            first=config.first,
            step=config.step,
            compression=config.compression,
            settings=settings,
        )

    return run_import(
        STAGE,
        "flow",
        config,
        make_task=make_task,
        conflict=functools.partial(options_difference, wanted=settings),
        store=store_flow,
        probe=probe,
        on_progress=on_progress,
    )


def _settings(config: Config) -> dict[str, Any]:
    """The attributes that say how the flow was made. Those of a method of ours are complete, so that it fits flow of
    `extract-flow` and `predict` can compute more of it."""
    known = config.method in METHODS
    parameters = make_method(config.method, config.method_options).parameters if known else {}
    return {
        "method": config.method,
        "method_parameters": json_text(parameters, sort_keys=True),
        "bound": float(config.bound),
        "step": config.step,
        "flow_input": IMPORTED,
    }
