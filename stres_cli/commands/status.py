"""`stres status`: shows where a workspace stands."""

from rich.text import Text

from pipelines import status as stage
from pipelines.interface.wording import printable
from stres_cli.config_options import command
from stres_cli.console import CommandUI

_STYLES = {"done": "green", "begun": "yellow", "to do": "dim"}


@command(example="stres status --workspace ucf101")
def status(ui: CommandUI, config: stage.Config) -> None:
    """Show what is extracted, trained, evaluated and reported in the workspace, and what to run next."""
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    there = "" if config.workspace.is_dir() else " (not there yet)"
    ui.out.print(f"workspace {printable(str(config.workspace))}{there}", soft_wrap=True)
    for number, step in enumerate(result.steps, 1):
        line = Text.assemble(f"  {number} {step.command:14} ", (f"{step.state:5}  ", _STYLES[step.state]))
        ui.out.print(line.append(printable(step.found)), soft_wrap=True)
    for fault in result.faults:
        ui.out.print(Text(printable(fault), style="yellow"), soft_wrap=True)
    ui.out.print(Text.assemble("next: ", (printable(result.next), "bold")), soft_wrap=True)
