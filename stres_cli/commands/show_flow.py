"""`stres show-flow`: optical flow one can look at."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines import show_flow as stage
from pipelines.errors import UsageError
from pipelines.optical_flow.methods import METHODS
from stres_cli import options
from stres_cli.console import command


def show_flow(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="A video file; or CLASS/VIDEO, whose stored flow is then shown.")
    ],
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    frame: Annotated[
        str | None,
        typer.Option(metavar="N", help="The frame whose flow to show, from 0; or all. Default: the middle one."),
    ] = None,
    all_frames: Annotated[
        bool, typer.Option("--all", metavar=options.FLAG, help="A video of all frames: the same as --frame all.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=".png; or .mp4, .avi or .mkv for all frames. Default: pictures/ in the workspace."
        ),
    ] = None,
    max_flow: Annotated[
        float | None,
        typer.Option(
            parser=options.number(float),
            metavar="PIXELS",
            help="Where colours are full. Default: the 99th percentile of what is shown.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"One of {', '.join(METHODS)}. Default: tvl1.")
    ] = None,
    method_option: options.MethodOption = None,
    bound: Annotated[
        float | None,
        typer.Option(
            parser=options.number(float),
            metavar="PIXELS",
            help="Flow is clipped to -BOUND..BOUND, as it would be stored. Default: 20.",
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(parser=options.number(int, 1), metavar="N", help="Flow from frame t to frame t+N. Default: 1."),
    ] = None,
    short_side: options.ShortSide = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Draw the flow of a video: in colours with their key, its magnitude, and as it is stored.

    One frame makes a PNG picture, all frames make a video. With CLASS/VIDEO nothing is computed.
    """
    with command(as_json, debug) as ui:
        config = stage.Config(
            workspace=workspace,
            video=video,
            method=method,
            method_options=dict(options.name_and_value(text) for text in method_option or []),
            bound=bound,
            step=step,
            short_side=short_side,
            device=device,
            frame=_frame(frame, all_frames),
            output=output,
            max_flow=max_flow,
        )
        result = stage.run(config, ui.on_progress)
        ui.finish(result)
        what = f"frame {result.frame}" if result.frame is not None else f"{result.pictures} frames"
        ui.out.print(
            f"{what} by {result.method}: colours full at {result.max_flow:.3g} px, longest vector {result.largest:.3g} "
            f"px, {100 * result.at_bound:.2g} % of the vectors at the bound of {result.bound:g} px",
            soft_wrap=True,
        )
        ui.out.print(f"written: {result.output}", soft_wrap=True)


def _frame(text: str | None, all_frames: bool) -> int | Literal["all"] | None:
    if all_frames and text not in (None, "all"):
        raise UsageError(f"--all and --frame {text} contradict each other: give one of them")
    if all_frames or text == "all":
        return "all"
    try:
        return None if text is None else int(text)
    except ValueError:
        raise UsageError(f"--frame {text!r} cannot be read: give a number from 0, or all") from None
