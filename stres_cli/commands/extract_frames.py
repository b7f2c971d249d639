"""`stres extract-frames`: videos to stored frames."""

from typing import Annotated

from pipelines import extract_frames as stage
from pipelines.sources.videos import ReadAs
from stres_cli import options
from stres_cli.console import command, interrupted_text
from stres_cli.extraction_view import show


def extract_frames(
    videos: Annotated[str, options.VIDEOS],
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    short_side: options.ShortSide = None,
    allow_truncated: options.AllowTruncated = False,
    allow_damaged: options.AllowDamaged = False,
    workers: options.Workers = 0,
    patience: options.Patience = stage.Config.patience,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    classes_at: options.ClassesAt = None,
    class_names: options.ClassNames = None,
    relative_to: options.RelativeTo = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Store every frame of the videos as JPEG.

    The same command again does only what is not done. A video that cannot be read becomes a row of failures.csv.
    """
    with command(as_json, debug, shared=True, interrupted=interrupted_text(dry_run)) as ui:
        config = stage.Config(
            workspace=workspace,
            videos=videos,
            short_side=short_side,
            workers=workers,
            patience=patience,
            overwrite=overwrite,
            allow_truncated=allow_truncated,
            allow_damaged=allow_damaged,
            read_as=ReadAs(classes_at, class_names, relative_to),
            dry_run=dry_run,
        )
        show(ui, stage.run(config, ui.on_progress), workspace)
