"""`stres extract-flow`: videos to stored optical flow."""

from typing import Annotated

import typer

from pipelines import extract_flow as stage
from pipelines.optical_flow.methods import ENGINES, METHODS
from pipelines.sources.videos import ReadAs
from stres_cli import options
from stres_cli.console import command, interrupted_text
from stres_cli.extraction_view import show


def extract_flow(
    videos: Annotated[str | None, options.VIDEOS_OR_FRAMES] = None,
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    method: Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(METHODS)}.")] = "tvl1",
    method_option: options.MethodOption = None,
    engine: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"Program that computes tvl1: {', '.join(ENGINES)}; equal but for rounding."),
    ] = "auto",
    bound: Annotated[
        float,
        typer.Option(
            parser=options.number(float), metavar="PIXELS", help="Flow is clipped to -BOUND..BOUND before it is stored."
        ),
    ] = 20.0,
    step: Annotated[
        int, typer.Option(parser=options.number(int, 1), metavar="N", help="Flow from frame t to frame t+N.")
    ] = 1,
    compression: options.Compression = "zstd",
    short_side: options.ShortSide = None,
    allow_truncated: options.AllowTruncated = False,
    allow_damaged: options.AllowDamaged = False,
    device: options.Device = "auto",
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
    """Compute and store the optical flow between consecutive frames.

    The same command again does only what is not done. A video that cannot be read becomes a row of failures.csv.
    """
    with command(as_json, debug, shared=True, interrupted=interrupted_text(dry_run)) as ui:
        config = stage.Config(
            workspace=workspace,
            videos=videos,
            method=method,
            method_options=dict(options.name_and_value(text) for text in method_option or []),
            engine=engine,
            bound=bound,
            step=step,
            compression=compression,  # type: ignore[arg-type]  # checked by Config
            short_side=short_side,
            workers=workers,
            patience=patience,
            device=device,
            overwrite=overwrite,
            allow_truncated=allow_truncated,
            allow_damaged=allow_damaged,
            read_as=ReadAs(classes_at, class_names, relative_to),
            dry_run=dry_run,
        )
        show(ui, stage.run(config, ui.on_progress), workspace)
