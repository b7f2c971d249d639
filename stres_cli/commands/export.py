"""`stres export`: a run to one file for deployment."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import export as stage
from stres_cli import options
from stres_cli.console import command, printable


def export(
    output: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The file to write: .pt2 (torch) or .onnx. Default: RUN-STEP.pt2, here."),
    ] = None,
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    run: options.RunOrFolder = None,
    step: options.UsedStep = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="torch or onnx. Default: by OUT's suffix, or torch.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="VIDEO", help="Compare the file with the run on this video. Default: on noise."),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write a run's network as one file that runs without stres, with its model card.

    It takes frames and flow as bytes at the network's size, of any number of videos and frames, and gives
    probabilities. Nothing is left unless what the file gives agrees with the run to 1e-4.
    """
    with command(as_json, debug, interrupted="interrupted: what has its name is whole; give the command again") as ui:
        config = stage.Config(
            output=output,
            workspace=workspace,
            run=run,
            step=step,
            format=format_,  # type: ignore[arg-type]  # checked by Config
            check=check,
            overwrite=overwrite,
        )
        result = stage.run(config, ui.on_progress)
        ui.finish(result)
        ui.out.print(
            printable(f"run {result.run}, {result.step}: {result.file}, {result.bytes / 1e6:.1f} MB"), soft_wrap=True
        )
        for name, shape in (*result.inputs.items(), *result.outputs.items()):
            ui.out.print(f"  {name:13} {shape}")
        ui.out.print(f"  B 1 or more, T {result.fewest_frames} or more")
        found = result.check
        seen = f"{found.video}: {found.class_name} {100 * found.probability:.1f} %" if found.video else "noise"
        ui.out.print(
            printable(f"checked on {seen}, largest difference from the run {found.largest_difference:.1e}"),
            soft_wrap=True,
        )
        ui.out.print(printable(f"model card: {result.card}"), soft_wrap=True)
