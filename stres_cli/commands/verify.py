"""`stres verify`: is the workspace what it should be?"""

from typing import Annotated

import typer

from pipelines import verify as stage
from pipelines.errors import UsageError
from pipelines.verification.faults import Depth
from stres_cli import options
from stres_cli.console import command


def verify(
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    quick: Annotated[
        bool, typer.Option("--quick", metavar=options.FLAG, help="Only attributes and shapes: no pixel is read.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", metavar=options.FLAG, help="Decode everything and compare it with its hash, too.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", metavar=options.FLAG, help="Set aside what is broken, and queue it to be made again by its stage."
        ),
    ] = False,
    workers: options.Workers = 0,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find what is missing, damaged, inconsistent or wrong in the workspace.

    By default every stored byte is checked against its checksum, and by warping frames whether the flow is theirs and
    the right way round. The exit code is 1 where there are faults. Nothing is changed without --fix.
    """
    with command(as_json, debug, shared=True, interrupted="interrupted: give the command again") as ui:
        if quick and full:
            raise UsageError("--quick and --full contradict each other: give one of them")
        from stres_cli.verify_view import show  # loads rich.table, which --help can do without

        depth: Depth = "quick" if quick else "full" if full else "stored"
        result = stage.run(stage.Config(workspace, depth, fix, workers), ui.on_progress)
        ui.finish(result, exit_code=1 if result.faults else 0)
        show(result, ui.out)
