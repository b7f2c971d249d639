import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipelines import train as stage
from pipelines.errors import MissingError
from pipelines.interface.options import command_line, fields_of
from pipelines.interface.wording import duration, percent, plural, size
from pipelines.runtime.devices import keep_freed_memory
from pipelines.training.metrics_log import accuracy_name, held_out_accuracy
from pipelines.training.recipes import Step
from pipelines.training.runs import ALL_SPLITS, DEFAULT_RUNS
from pipelines.training.settings import RECIPE, TrainingSettings, settle
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.estimate_view import show_training
from stres_cli.tables import Table

_SHOW_RECIPE = typer.Option(
    "--show-recipe", metavar="", help="Print every setting of the steps and exit.", rich_help_panel=RECIPE
)


@command(example="stres train --split 1 --device cuda", shared=True, interrupted=interrupted_text)
def train(ui: CommandUI, config: stage.Config, *, show_recipe: Annotated[bool, _SHOW_RECIPE] = False) -> None:
    """Train the two-stream network on one split, or on all of them.

    Four steps: appearance and motion alone, then both joined (joint1), then with temporal pooling (joint2). A fifth,
    student, learns from the joint network to do without flow. Run the same command again to continue an interrupted
    run, or give its --name alone: what no option says is as it was begun.
    """
    if show_recipe:
        _show_recipe(ui, settle(config)[0])
        return
    keep_freed_memory()
    if config.split == ALL_SPLITS:
        trained = stage.run_splits(config, ui.on_progress)
        failed = 1 if any(result.failed for result in trained.runs) else 0
        ui.finish(trained, exit_code=MissingError.exit_code if trained.diverged else failed)
        for result in trained.runs:
            _show(ui, result, "")
        _show_all(ui, trained, config.workspace)
        return
    result = stage.run(config, ui.on_progress)
    ui.finish(result, exit_code=1 if result.failed else 0)
    _show(ui, result, f"; next: {command_line(config.workspace, 'evaluate', '--run', shlex.quote(result.run))}")


def _show(ui: CommandUI, result: stage.Result, then: str) -> None:
    if result.estimate is not None:
        show_training(ui, result.run, result.estimate)
        if result.failed:
            ui.out.say(f"{plural(result.failed, 'video')} cannot be used")
        return
    table = Table("step", title=f"run {result.run}")
    held_out = any(held_out_accuracy(step.metrics) is not None for step in result.steps)
    table.add_numbers("updates", "time", "training\nloss", "training\naccuracy")
    if held_out:
        table.add_numbers("held-out\naccuracy", "best, after\nupdate")
    for step in result.steps:
        accuracies = [step.metrics.get(accuracy_name(step.metrics))]
        best = []
        if held_out:
            accuracies.append(held_out_accuracy(step.metrics))
            text = f"{percent(held_out_accuracy(step.best))} %, {step.best['iterations']:.0f}" if step.best else "–"
            best.append(text)
        loss = step.metrics.get("loss")
        table.add_row(
            step.step + (" (already done)" if step.already_done else ""),
            str(step.iterations),
            duration(step.seconds),
            "–" if loss is None else f"{loss:.3f}",
            *("–" if accuracy is None else f"{percent(accuracy)} %" for accuracy in accuracies),
            *best,
        )
    ui.out.print(table)
    if any("updates" in step.metrics for step in result.steps):
        text = "training loss (mean over frames and streams) and accuracy are those of the last updates, at most 50"
        ui.out.say(text)
    text = f"{plural(result.train_videos, 'training video')}; the run is in {result.folder}{then}"
    ui.out.say(text)
    if result.failed:
        ui.out.say(f"{plural(result.failed, 'video')} could not be used: see failures.csv in the workspace")


def _show_all(ui: CommandUI, trained: stage.SplitsResult, workspace: Path) -> None:
    """What is to be said of all splits together."""
    for name in trained.diverged:
        ui.out.say(f"run {name} diverged, as said above, and is not finished")
    if estimates := [result.estimate for result in trained.runs if result.estimate is not None]:
        hours, gigabytes = (sum(getattr(one, name) for one in estimates) for name in ("hours", "gigabytes"))
        ui.out.say(f"about {duration(3600 * hours)} for all splits; {size(gigabytes)} of weights")
    elif trained.runs:
        named = "all" if trained.named == DEFAULT_RUNS else shlex.quote(trained.named)
        text = f"{plural(len(trained.runs), 'run')} in {duration(trained.seconds)}"
        ui.out.say(f"{text}; next: {command_line(workspace, 'evaluate', '--run', named)}")


def _show_recipe(ui: CommandUI, config: TrainingSettings) -> None:
    """Prints every setting of the chosen steps, as its option takes it."""
    steps = [config.step(name) for name in config.selected()]
    videos = f" for {config.base.videos} training videos" if config.base.videos else ""
    like = f" as of run {config.like}" if config.like else ""
    table = Table(title=f"recipe {config.base.name}{like}{videos}", box=None, padding=(0, 2, 0, 0), title_style="bold")
    table.add_column("", no_wrap=True)
    for step in steps:
        table.add_column(step.name, overflow="fold")
    for field in fields_of(Step):
        values = [getattr(step, field.name) for step in steps]
        if field.name == "epochs":
            values = [None if step.iterations else step.epochs for step in steps]  # which iterations replace
        table.add_row(field.flag, *("–" if value is None else field.typed(value) for value in values))
    ui.out.print(table)
    ui.finish({step.name: step for step in steps})
