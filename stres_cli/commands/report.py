from pipelines import report as stage
from pipelines import status
from stres_cli.config_options import command
from stres_cli.console import CommandUI
from stres_cli.report_view import render


@command(example="stres report --splits all")
def report(ui: CommandUI, config: stage.Config) -> None:
    """Report accuracies and the confusion matrix: in the terminal, as CSV, PNG and one HTML page."""
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    render(result, ui.out, status.run(status.Config(config.workspace)).next)
