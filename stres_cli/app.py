"""The application, with its commands in the order of use."""

import importlib
import inspect
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.completion import completion_init
from typer.core import TyperCommand, TyperGroup

from pipelines import __version__
from pipelines.errors import StorageError, UsageError
from pipelines.runtime.ranks import ranks
from stres_cli.config_options import spelled_out
from stres_cli.console import error_document, print_json

# The first sentence of each command's own help, repeated here so that `stres --help` need not load the commands.
COMMANDS = {
    "demo": "Run every stage on a small synthetic data set, and report.",
    "extract-frames": "Store every frame of the videos as JPEG.",
    "extract-flow": "Compute and store the optical flow between consecutive frames.",
    "import-frames": "Import frames that another tool stored as pictures in folders.",
    "import-flow": "Import flow that another tool stored as grey pictures in folders, value for value.",
    "import-weights": "Convert a pretrained ResNet of another program into a file that describes itself.",
    "import-scores": "Import the scores of another program as those of a run, for reports, comparisons and fusion.",
    "export-flow": "Write the stored flow as grey pictures in folders, for other tools.",
    "show-flow": "Draw the flow of a video: in colour with a key, its magnitude, and as stored.",
    "verify": "Find what is missing, damaged, inconsistent or wrong in the workspace.",
    "train": "Train the two-stream network on one split, or on all of them.",
    "evaluate": "Score the test videos of a run's split: appearance, motion and both fused, in one pass.",
    "report": "Report accuracies and the confusion matrix: in the terminal, as CSV, PNG and one HTML page.",
    "status": "Show what is extracted, trained, evaluated and reported in the workspace, and what to run next.",
    "runs": "List every run with its scores and the settings in which it differs from the others.",
    "predict": "Classify videos directly from file.",
    "extract-features": "Store the features that a run's network gives its classifiers, for other programs.",
    "export": "Write a run's network as one file that runs without stres, with a model card.",
    "doctor": "Check the environment and suggest fixes.",
}


class _LoadedOnDemand(TyperGroup):
    """Imports a command's module only when that command is called, to keep `--help` fast."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name and listed else listed, rest


def _load(name: str) -> Any:
    """Makes the command `name` from the function of that name in the module of that name."""
    identifier = name.replace("-", "_")
    function = getattr(importlib.import_module(f"stres_cli.commands.{identifier}"), identifier)
    alone = typer.Typer(add_completion=False)
    # Typer would keep the line breaks of all paragraphs but the first.
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    help_text = "\n\n".join(" ".join(text.split()) for text in paragraphs)
    alone.command(name, cls=_Command, help=help_text, epilog=f"Example: {function.example}")(function)
    command: Any = typer.main.get_command(alone)
    command.config_type = function.config_type
    return command


class _Command(TyperCommand):
    """Prints a document with `--json` even if the other options cannot be parsed, and hides hidden arguments."""

    config_type: type  # the stage's, which defines the options

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        shown = super().collect_usage_pieces(ctx)
        hidden = [one.get_usage_pieces(ctx) for one in self.params if getattr(one, "hidden", False)]
        return [piece for piece in shown if [piece] not in hidden]

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            option.metavar = ""  # otherwise it is shown as an option that takes a value
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        as_json = "--json" in args
        try:
            return super().parse_args(ctx, spelled_out(self.config_type, args))
        except Exception as error:
            if not ranks().is_first:  # rank 0 parses the same options and explains; torchrun then ends the others
                time.sleep(30)
                raise typer.Exit(UsageError.exit_code) from None
            if as_json and hasattr(error, "format_message"):  # typer's own errors, which it is about to explain
                print_json(error_document(error.format_message(), UsageError.exit_code))
            raise


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stres {__version__}")
        raise typer.Exit


def _print_help(context: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(context.get_help())
        raise typer.Exit


def _install_completion(context: typer.Context, parameter: Any, wanted: bool) -> None:
    if wanted:
        from typer.completion import install_callback

        try:
            install_callback(context, parameter, True)
        except OSError as error:
            typer.echo(f"error: completion cannot be installed ({error}): correct that file's permissions", err=True)
            raise typer.Exit(StorageError.exit_code) from None


# Typer's own `--help` and completion options of a group make it load pydantic (typer 0.29), even for the `--help` of a
# command: a third of the time that takes.
app = typer.Typer(
    name="stres",
    cls=_LoadedOnDemand,
    help="Spatiotemporal residual networks for action recognition: from a folder of videos to a confusion matrix.",
    epilog="Every stage reads what the stage before left in the workspace: extract-frames, extract-flow, train, "
    "evaluate, report. Start with: stres demo",
    invoke_without_command=True,
    add_help_option=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_COMPLETION = "Complete commands and options in this shell (bash, zsh, fish) and exit."


def _flag(*names: str, then: Callable[..., None], text: str) -> Any:
    return typer.Option(*names, callback=then, is_eager=True, metavar="", help=text)


@app.callback()
def _stres(
    context: typer.Context,
    version: Annotated[bool, _flag("--version", then=_print_version, text="Print the version and exit.")] = False,
    help_: Annotated[bool, _flag("--help", "-h", then=_print_help, text="Show this message and exit.")] = False,
    completion: Annotated[bool, _flag("--install-completion", then=_install_completion, text=_COMPLETION)] = False,
) -> None:
    if context.invoked_subcommand is None:
        if code := _load("status").main([], prog_name="stres", standalone_mode=False):
            raise typer.Exit(code)
        typer.echo("all commands: stres --help; all of this on synthetic clips: stres demo")


def _listed() -> None:
    """A placeholder in the list of commands; `_LoadedOnDemand` calls the real one."""


for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(_listed)

if "_STRES_COMPLETE" in os.environ:  # the shell asks what may follow, in the form that `--install-completion` arranged
    completion_init()
