"""`stres report`: saved scores to tables, pictures and a page."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import report as stage
from stres_cli import options
from stres_cli.console import command
from stres_cli.report_view import render


def report(
    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The run; default: the newest evaluated. With --splits a pattern with {split}."
        ),
    ] = None,
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME", help="Folder name of the evaluation; default: the newest.")
    ] = None,
    splits: Annotated[
        str | None, typer.Option(metavar="N,N,N", help="Average several splits as the papers do.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the report; default: reports/ in the workspace.")
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Report accuracies and the confusion matrix: in the terminal, as CSV, PNG and one HTML page."""
    with command(as_json, debug) as ui:
        config = stage.Config(
            workspace=workspace, run=run, protocol=protocol, splits=options.numbers("--splits", splits), output=output
        )
        result = stage.run(config, ui.on_progress)
        ui.finish(result)
        render(result, ui.out)
