from pipelines import status
from pipelines import verify as stage
from pipelines.interface.options import command_line
from pipelines.verification.faults import FIXES
from stres_cli.config_options import command
from stres_cli.console import CommandUI


@command(example="stres verify --quick --fix", shared=True, interrupted="interrupted: run the command again")
def verify(ui: CommandUI, config: stage.Config) -> None:
    """Find what is missing, damaged, inconsistent or wrong in the workspace.

    By default every stored byte is checked against its checksum, and frames are warped by their flow to see that it is
    theirs and points the right way. The exit code is 1 if there are faults. Nothing is changed without --fix.
    """
    from stres_cli.verify_view import show  # loads rich.table, which --help can do without

    result = stage.run(config, ui.on_progress)
    ui.finish(result, exit_code=1 if result.faults else 0)
    then = ""
    if not result.faults:
        then = status.run(status.Config(config.workspace)).next
    elif not config.fix and any("--fix" in FIXES[kind] for kind in result.counts):
        then = command_line(
            config.workspace, "verify", "--fix", *([] if config.depth == "stored" else [f"--{config.depth}"])
        )
    show(result, ui.out, then)
