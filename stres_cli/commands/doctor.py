from rich.text import Text

from pipelines import doctor as stage
from pipelines.interface.wording import duration, plural, printable
from stres_cli.config_options import command
from stres_cli.console import CommandUI

_MARKS = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failure": ("FAIL", "bold red")}


@command(example="stres doctor --device cuda", interrupted="interrupted: nothing was changed")
def doctor(ui: CommandUI, config: stage.Config) -> None:
    """Check the environment and suggest fixes.

    Versions, GPUs, decoders, disk, HDF5 and the speed of flow are tested, which takes about 20 seconds; half a minute
    more if TV-L1 is not compiled yet. Exit code 3 if something needed is broken.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result, exit_code=3 if result.failures else 0)
    show(ui, result)


def show(ui: CommandUI, result: stage.Result) -> None:
    """Prints a line for each check, and below those that are not ok how to fix them."""
    width = max(len(check.subject) for checks in result.checks.values() for check in checks)
    for heading, checks in result.checks.items():
        if checks:
            ui.out.print(Text(heading, style="bold"))
        for check in checks:
            mark, style = _MARKS[check.status]
            line = Text.assemble("  ", (f"{mark:4}", style), f"  {check.subject:{width}}  ", printable(check.found))
            ui.out.say(line)
            if check.fix:
                ui.out.say(f"        {'':{width}}  -> {check.fix}", style)
    then = "" if result.failures else "; next: stres demo"
    ui.out.say(
        f"{plural(result.failures, 'failure')}, {plural(result.warnings, 'warning')}; took {duration(result.seconds)}"
        f"{then}"
    )
