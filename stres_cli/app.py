"""The application: its commands in the order in which they are used."""

from typing import Annotated

import typer

from pipelines import __version__
from stres_cli.commands import demo, evaluate, extract_flow, extract_frames, report, train

app = typer.Typer(
    name="stres",
    help="Spatiotemporal residual networks for action recognition: from a folder of videos to a confusion matrix.",
    epilog="Every stage reads what the stage before left in the workspace: extract-frames, extract-flow, train, "
    "evaluate, report. Start with: stres demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stres {__version__}")
        raise typer.Exit


@app.callback()
def _stres(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("extract-frames")(extract_frames.extract_frames)
app.command("extract-flow")(extract_flow.extract_flow)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
