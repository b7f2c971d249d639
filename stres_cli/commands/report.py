from pipelines import report as stage
from pipelines.evaluation.protocols import IMPORTED
from pipelines.interface.options import command_line
from stres_cli.config_options import command
from stres_cli.console import CommandUI
from stres_cli.report_view import render


@command(example="stres report --splits all")
def report(ui: CommandUI, config: stage.Config) -> None:
    """Report accuracies and the confusion matrix: in the terminal, as CSV, PNG and one HTML page."""
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    then = ("status",) if IMPORTED in result.protocol else ("predict", "VIDEO")  # there may be no network
    render(result, ui.out, command_line(config.workspace, *then))
