"""`stres import-frames`: others' folders of pictures to stored frames."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import import_frames as stage
from stres_cli import options
from stres_cli.console import command, interrupted_text
from stres_cli.extraction_view import show


def import_frames(
    folder: Annotated[Path, options.PICTURES],
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    class_list: options.ClassList = None,
    fps: options.Fps = None,
    first: options.FirstPicture = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            parser=options.number(int, 1),
            metavar="PIXELS",
            help="Short side: pictures of another are resized and coded again. Default: all stay as they are.",
        ),
    ] = None,
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Store frames that another tool left as pictures in folders.

    JPEGs keep their bytes. Gaps in the numbers, other sizes and pictures that cannot be decoded make a video a row of
    failures.csv. The same command again does only what is not done.
    """
    with command(as_json, debug, shared=True, interrupted=interrupted_text(dry_run)) as ui:
        config = stage.Config(
            workspace=workspace,
            folder=folder,
            class_list=class_list,
            fps=fps,
            first=first,
            short_side=short_side,
            workers=workers,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        show(ui, stage.run(config, ui.on_progress), workspace, wanted="pictures")
