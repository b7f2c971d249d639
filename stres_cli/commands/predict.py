"""`stres predict`: videos to classes with probabilities."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import predict as stage
from pipelines.errors import Interrupted
from pipelines.prediction.results import Prediction
from pipelines.runtime.devices import keep_freed_memory
from stres_cli import options
from stres_cli.console import command
from stres_cli.prediction_view import show, show_partly


def predict(
    videos: Annotated[
        list[str],
        typer.Argument(metavar="VIDEOS", help="Videos, folders of class folders, list files (path label), globs."),
    ],
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    run: options.RunOrFolder = None,
    step: options.UsedStep = None,
    crops: Annotated[
        int | None,
        typer.Option(
            parser=options.number(int, 1),
            metavar="N",
            help="Frames of a video, spaced evenly. Default: 25; of a timeline's window 5, or those of training.",
        ),
    ] = None,
    views: Annotated[
        str, typer.Option(metavar="NAME", help="full (whole frames), center, 3, 5, or 10 crops (5 and mirrors).")
    ] = "full",
    mirror: Annotated[
        bool | None,
        typer.Option("--mirror/--no-mirror", metavar=options.FLAG, help="Also mirrored; default: with full and 10."),
    ] = None,
    temporal: Annotated[
        str, typer.Option(metavar="NAME", help="sequence (all frames as one) or windows (of the training's length).")
    ] = "sequence",
    timeline: Annotated[
        bool, typer.Option("--timeline", metavar=options.FLAG, help="Class over time: CSV, JSON and a picture.")
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help="Of the timeline's window: seconds (2, 0.5s) or frames (50f). Default: 2."),
    ] = None,
    hop: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="From one window to the next. Default: half a window.")
    ] = None,
    overlay: Annotated[
        bool,
        typer.Option("--overlay", metavar=options.FLAG, help="With --timeline: also the video with its classes."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the timelines' files. Default: predictions/ in the workspace."),
    ] = None,
    device: options.Device = "auto",
    precision: options.TestPrecision = "fp32",
    method_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="weights=FILE, where the run's flow method has them in one."),
    ] = None,
    allow_truncated: Annotated[
        bool,
        typer.Option("--allow-truncated", metavar=options.FLAG, help="Take truncated videos as far as they decode."),
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Name the classes of videos, straight from their files.

    Frames and flow are made as those that the run was trained on, only where they are looked at; nothing is stored but
    timelines.
    """
    interrupted = "interrupted: what was predicted until then stands above"
    with command(as_json, debug, shared=True, interrupted=interrupted) as ui:
        config = stage.Config(
            videos=videos,
            workspace=workspace,
            run=run,
            step=step,
            crops=crops,
            views=views,  # type: ignore[arg-type]  # checked by Config
            mirror=mirror,
            temporal=temporal,
            timeline=timeline,
            window=window,
            hop=hop,
            overlay=overlay,
            output=output,
            device=device,
            precision=precision,
            method_options=dict(options.name_and_value(text) for text in method_option or []),
            allow_truncated=allow_truncated,
        )
        keep_freed_memory()
        done: list[Prediction] = []
        try:
            result = stage.run(config, ui.on_progress, done.append)
        except Interrupted:
            show_partly(ui, done)
            raise
        show(ui, result)
