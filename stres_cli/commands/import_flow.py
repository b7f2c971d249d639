"""`stres import-flow`: others' folders of grey pictures to stored optical flow."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import import_flow as stage
from pipelines.optical_flow.methods import METHODS
from stres_cli import options
from stres_cli.console import command, interrupted_text
from stres_cli.extraction_view import show


def import_flow(
    folder: Annotated[Path, options.PICTURES],
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"What computed the flow: {', '.join(METHODS)} if it is that one, or a name of its own.",
        ),
    ],
    bound: Annotated[
        float,
        typer.Option(
            parser=options.number(float), metavar="PIXELS", help="The flow that 0 and 255 stand for: -BOUND and BOUND."
        ),
    ],
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    method_option: options.MethodOption = None,
    step: Annotated[
        int, typer.Option(parser=options.number(int, 1), metavar="N", help="The flow is from frame t to frame t+N.")
    ] = 1,
    class_list: options.ClassList = None,
    fps: options.Fps = None,
    first: options.FirstPicture = None,
    compression: options.Compression = "zstd",
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Store flow that another tool left as grey pictures in folders, value for value.

    Videos whose x and y differ in number, or that do not fit their stored frames (one more than fields), become rows
    of failures.csv. The same command again does only what is not done.
    """
    with command(as_json, debug, shared=True, interrupted=interrupted_text(dry_run)) as ui:
        config = stage.Config(
            workspace=workspace,
            folder=folder,
            method=method,
            bound=bound,
            method_options=dict(options.name_and_value(text) for text in method_option or []),
            step=step,
            class_list=class_list,
            fps=fps,
            first=first,
            compression=compression,  # type: ignore[arg-type]  # checked by Config
            workers=workers,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        show(ui, stage.run(config, ui.on_progress), workspace, wanted="pictures")
