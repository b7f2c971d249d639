"""The outcome of an extracting stage, in words."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.video.extraction import ExtractResult
from pipelines.workspace import Failure
from stres_cli.console import CommandUI

_SHOWN_FAILURES = 10


def show(ui: CommandUI, result: ExtractResult, workspace: Path, *, wanted: str = "videos") -> None:
    """`wanted`: what the stage looked for, should files have been passed over.

    Prints counts, rate and failures, or what a dry run estimates; exit code 1 while failures remain."""
    ui.finish(result, exit_code=1 if result.failed else 0)
    if result.ignored and result.found is None:  # with an account all is told before the work
        ui.out.print(f"{result.ignored} files are not {wanted} by their names and were passed over")
    if result.changed:
        ui.out.print(_changed(result), soft_wrap=True)
    if result.estimate is not None:
        cost = result.estimate
        ui.out.print(
            f"{cost.videos} videos to do ({result.skipped} done already), {cost.frames} frames: about {cost.hours:.2g} "
            f"hours and {cost.gigabytes:.2g} GB, measured on {cost.measured_videos} of them",
            soft_wrap=True,
        )
        if result.failures:
            ui.out.print(f"{len(result.failures)} of the videos looked at fail:", soft_wrap=True)
        _show_failures(ui, result.failures)
        return
    ui.out.print(
        f"{result.done} videos done, {result.skipped} done before, {result.failed} failed; "
        f"{result.units} {result.unit} in {result.seconds:.1f} s ({result.units_per_second:.1f} {result.unit}/s)",
        soft_wrap=True,
    )
    _show_failures(ui, result.failures)
    if result.failed:
        ui.out.print(
            f"all failures are in {workspace / 'failures.csv'}; they are tried again at every run", soft_wrap=True
        )


def _show_failures(ui: CommandUI, failures: Sequence[Failure]) -> None:
    for failure in failures[:_SHOWN_FAILURES]:
        ui.out.print(f"  {failure.class_name}/{failure.video}: {failure.reason}", soft_wrap=True)
    if len(failures) > _SHOWN_FAILURES:
        ui.out.print(f"  and {len(failures) - _SHOWN_FAILURES} more")


def _changed(result: ExtractResult) -> str:
    shown = ", ".join(result.changed[:_SHOWN_FAILURES]) + (", ..." if len(result.changed) > _SHOWN_FAILURES else "")
    what = "1 video has" if len(result.changed) == 1 else f"{len(result.changed)} videos have"
    return f"{what} changed since stored, {'to be ' if result.estimate else ''}made again: {shown}"
