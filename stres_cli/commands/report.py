"""`stres report`: saved scores to tables, pictures and a page."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import report as stage
from pipelines.errors import UsageError
from stres_cli import options
from stres_cli.console import command
from stres_cli.report_view import render


def report(
    more_splits: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="")] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The run; default: the newest finished one. With --splits a pattern with {split}."
        ),
    ] = None,
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Folder name of the evaluation; default: the paper's of the last step, else the newest.",
        ),
    ] = None,
    splits: Annotated[
        list[str] | None, typer.Option(metavar="N N N", help="Average several splits as the papers do: 1 2 3 or 1,2,3.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="RUN[/STEP]",
            help="Compare with another run, or a step or protocol of one, on the same videos (McNemar's exact test).",
        ),
    ] = None,
    with_file: Annotated[
        Path | None,
        typer.Option("--with", metavar="FILE", help="Fuse in another program's scores: CSV or npz, a row a video."),
    ] = None,
    with_weight: Annotated[float, typer.Option(metavar="SHARE", help="Weight of these scores, 0 to 1.")] = 0.5,
    with_space: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What is averaged: logits, softmax, or auto: softmax where the file holds probabilities.",
        ),
    ] = "auto",
    thumbnails: Annotated[
        int, typer.Option(parser=options.number(int, 0), metavar="N", help="Clips with pictures on the page, at most.")
    ] = stage.THUMBNAILS,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the report; default: reports/ in the workspace.")
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Report accuracies and the confusion matrix: in the terminal, as CSV, PNG and one HTML page."""
    with command(as_json, debug) as ui:
        config = stage.Config(
            workspace=workspace,
            run=run,
            protocol=protocol,
            splits=_splits(splits or [], more_splits or []),
            compare=compare,
            with_file=with_file,
            with_weight=with_weight,
            with_space=with_space,
            thumbnails=thumbnails,
            output=output,
        )
        result = stage.run(config, ui.on_progress)
        ui.finish(result)
        render(result, ui.out)


def _splits(given: list[str], more: list[str]) -> tuple[int, ...]:
    """`--splits 1 2 3` arrives as the option's first value and arguments behind it."""
    if more and not given:
        raise UsageError(f"{' '.join(more)!r} belongs to no option: name a run with --run, splits with --splits 1 2 3")
    return options.numbers("--splits", ",".join([*given, *more]))
