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
    ui.out.say(f"workspace {config.workspace}{there}")
    for number, step in enumerate(result.steps, 1):
        line = Text.assemble(f"  {number} {step.command:14} ", (f"{step.state:5}  ", _STYLES[step.state]))
        ui.out.say(line.append(printable(step.found)))
    for fault in result.faults:
        ui.out.say(fault, "yellow")
    ui.out.say(Text.assemble("next: ", (printable(result.next), "bold")))
