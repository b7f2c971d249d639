"""How the estimate of a dry run of `train` or `evaluate` looks."""

from typing import TYPE_CHECKING

from pipelines.interface.wording import duration, plural, room, size
from stres_cli.console import CommandUI
from stres_cli.tables import Table

if TYPE_CHECKING:
    from pipelines.evaluation.estimation import EvaluationEstimate
    from pipelines.training.estimation import Estimate as TrainingEstimate


def show_training(ui: CommandUI, run: str, cost: "TrainingEstimate") -> None:
    """Prints a row for each remaining step, and their total."""
    if cost.finished:
        ui.out.say(f"{', '.join(cost.finished)} already done")
    if not cost.steps:
        ui.out.say(f"run {run} has nothing left to do")
        return
    title = f"run {run}: still to do, on {plural(cost.steps[0].videos, 'training video')}"
    table = Table("step", title=title)
    table.add_numbers("updates", "batch", "s/update", "time", "weights", "checkpoint")
    for step in cost.steps:
        table.add_row(
            step.step,
            f"{step.updates} of {step.done + step.updates}" if step.done else str(step.updates),
            str(step.batch_size),
            f"{step.seconds_per_update:.3g}",
            duration(3600 * step.hours),
            size(step.weights_gigabytes),
            size(step.checkpoint_gigabytes),
        )
    ui.out.print(table)
    measured = sum(step.measured_updates for step in cost.steps)
    ui.out.say(
        f"about {duration(3600 * cost.hours)} in all, measured on {plural(measured, 'update')}; "
        f"{size(cost.gigabytes)} of weights, at most {size(cost.peak_gigabytes)} with checkpoints; "
        f"{size(cost.memory_gigabytes)} of memory"
    )
    if told := room(cost.peak_gigabytes, cost.free_gigabytes):
        ui.out.say(told)


def show_evaluation(ui: CommandUI, run: str, cost: "EvaluationEstimate") -> None:
    """Prints one row and a sentence."""
    if not cost.measured_videos:
        ui.out.say(f"{plural(cost.videos, 'video')} to score; none of those tried could be read")
        return
    table = Table(title=f"run {run}: to score")
    table.add_numbers("videos", "s/video", "measured on", "time", "scores.h5")
    table.add_row(
        str(cost.videos)
        + (f" (and {cost.recalibrated} to recalibrate)" if cost.recalibrated else "")
        + (f" (and {cost.held_out} held out)" if cost.held_out else ""),
        f"{cost.seconds_per_video:.3g}",
        str(cost.measured_videos),
        duration(3600 * cost.hours),
        size(cost.gigabytes),
    )
    ui.out.print(table)
    ui.out.say(f"about {duration(3600 * cost.hours)} and {size(cost.gigabytes)} in all")
