"""`stres export-flow`: stored optical flow to others' folders of grey pictures."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import export_flow as stage
from pipelines.layouts.names import FLOW_LAYOUTS
from stres_cli import options
from stres_cli.console import command, interrupted_text
from stres_cli.extraction_view import show


def export_flow(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    layout: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(FLOW_LAYOUTS)}: u/VIDEO/frame000001, CLASS/VIDEO/flow_x_00000, CLASS/VIDEO/x_00001.",
        ),
    ] = "authors",
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="jpg (quality 95), or png, which loses nothing.")
    ] = "jpg",
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the stored flow as grey pictures in folders, for other tools.

    OUT/flow.json says what they are: layout, method, bound, step. The same command again does only what is not done.
    """
    with command(as_json, debug, shared=True, interrupted=interrupted_text(dry_run)) as ui:
        config = stage.Config(
            workspace=workspace,
            output=output,
            layout=layout,
            format=format_,  # type: ignore[arg-type]  # checked by Config
            workers=workers,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        show(ui, stage.run(config, ui.on_progress), workspace)
