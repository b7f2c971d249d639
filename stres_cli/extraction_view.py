"""How the result of a stage that extracts, imports or exports looks."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.interface.options import command_line, fields_of
from pipelines.interface.wording import duration, percent, plural, room, size, some
from pipelines.jobs.task import Clipping, ExtractResult, Proposal
from pipelines.sources.videos import ReadAs
from pipelines.storage.failures import Failure
from stres_cli.console import CommandUI

_SHOWN_FAILURES = 10
_OF_BOTH = ("--allow-truncated", "--allow-damaged")


def show(ui: CommandUI, result: ExtractResult, config: Any) -> None:
    """Prints counts, rate and failures, or what a dry run estimates; exit code 1 while failures remain."""
    ui.finish(result, exit_code=1 if result.failed else 0)
    if result.changed:
        ui.out.say(_changed(result))
    if result.unlisted:
        ui.out.say(_unlisted(result, config.workspace))
    if result.misfits:
        made, left = ("flow", "frames") if result.stage == "extract-flow" else ("frames", "flow")
        videos = plural(result.misfits, "video")
        ui.out.say(f"the stored {left} of {videos} will be of another size than the {made}: make them again, too")
    if result.estimate is not None:
        cost = result.estimate
        what = (
            f"{'' if cost.frames_are_exact else 'about '}{plural(cost.frames, 'frame')}: about "
            f"{duration(3600 * cost.hours)} and {size(cost.gigabytes)}, measured on {cost.measured_videos} of them"
        )
        if cost.videos and not cost.measured_videos:
            what = "none of which could be measured: the time is unknown"
        ui.out.say(f"{plural(cost.videos, result.what)} to do ({result.skipped} already done), {what}")
        if cost.measured_videos and (told := room(cost.gigabytes, cost.free_gigabytes)):
            ui.out.say(told)
        if result.failures:
            looked = f"of the {result.what}s tried"
            ui.out.say(plural(len(result.failures), f"{looked} fails:", f"{looked} fail:"))
        _show_failures(ui, result.failures)
        if result.proposal is not None:
            _show_proposal(ui, result.proposal)
        return
    ui.out.say(
        f"{plural(result.done, result.what)} done, {result.skipped} already done, {result.failed} failed; "
        f"{plural(result.units, result.unit.removesuffix('s'))} in {duration(result.seconds)} "
        f"({result.units_per_second:.1f} {result.unit}/s{gpu_line(result)})"
        f"{_where_and_next(result, config) if result.done or result.skipped else ''}"
    )
    if result.broken_times:
        untrue = "timestamps that cannot be true"
        has = plural(result.broken_times, f"video has {untrue}: its", f"videos have {untrue}: their")
        ui.out.say(f"{has} frames have the times of the container's average rate")
    if result.clipping is not None:
        ui.out.say(_clipped(result.clipping))
    _show_failures(ui, result.failures)
    if result.failed:
        ui.out.say(f"all failures are listed in {config.workspace / 'failures.csv'}; they are retried on every run")


def gpu_line(result: ExtractResult) -> str:
    """How long the GPU waited, how many processes shared it, and what they and other numbers of them did a second."""
    told = []
    if result.gpu_waited is not None:
        told.append(f"at least {percent(result.gpu_waited)} % of the time the GPU waited")
    if result.gpu_processes is not None:
        processes = plural(result.gpu_processes, "process")
        told.append(f"one process on the GPU for {processes}" if result.gpu_mixed else f"{processes} on the GPU")
    if result.process_rates:
        rates = [f"{rate:.0f} with {count}" for count, rate in result.process_rates.items()]
        if result.mixed_rate is not None:
            rates.append(f"{result.mixed_rate:.0f} with one that computes for all")
        told.append(f"measured {result.unit}/s: {', '.join(rates)}")
    return "".join(f"; {part}" for part in told)


def _where_and_next(result: ExtractResult, config: Any) -> str:
    """Where the result lies, and the command that comes next, with the options that both stages have to share."""
    stage = result.stage
    kind = {"extract-frames": "frames", "import-frames": "frames", "extract-flow": "flow", "import-flow": "flow"}.get(
        stage
    )
    if kind is None:
        return ""
    videos = []
    if stage in ("extract-frames", "extract-flow"):
        videos.append(shlex.quote(config.videos))
        for field in fields_of(ReadAs):  # else the next stage reads VIDEOS otherwise
            value = getattr(config.read_as, field.name)
            if value != field.default:
                videos += [field.flag] if value is True else [field.flag, shlex.quote(str(value))]
        if config.short_side is not None:
            videos += ["--short-side", str(config.short_side)]
        videos += [flag for flag in _OF_BOTH if getattr(config, flag[2:].replace("-", "_"))]
        if result.misfits:
            videos.append("--overwrite")
    if kind == "frames":
        words = ["extract-flow", *videos]
    elif videos and (result.misfits or not (config.workspace / "frames").exists()):
        words = ["extract-frames", *videos]
    elif not (config.workspace / "frames").exists():
        words = ["import-frames", "DIR"]
    else:
        words = ["train", "--split", "1"]
    return f", in {config.workspace / kind}; next: {command_line(config.workspace, *words)}"


def _show_failures(ui: CommandUI, failures: Sequence[Failure]) -> None:
    for failure in failures[:_SHOWN_FAILURES]:
        ui.out.say(f"  {failure.id}: {failure.reason}")
    if len(failures) > _SHOWN_FAILURES:
        ui.out.print(f"  and {len(failures) - _SHOWN_FAILURES} more")


def _clipped(clipping: Clipping) -> str:
    """How much the bound clips, and a better bound if that is too much or if most levels are unused."""
    bound, suits = clipping.bound, clipping.suitable_bound
    share = clipping.clipped_share
    clipped = f"{100 * share:.2g} %" if share >= 0.0001 or not share else "less than 0.01 %"
    text = (
        f"{clipped} of the flow vectors are clipped at the bound of {bound:g} px, the longest "
        f"component is {clipping.largest:.3g} px"
    )
    if suits > bound and share > 0.001:
        return f"{text}; --bound {suits:g} would clip at most 0.1 %"
    if suits <= bound / 2:
        return (
            f"{text}; --bound {suits:g} would clip at most 0.1 %, and store flow {bound / suits:.2g} times more finely"
        )
    return text


def _show_proposal(ui: CommandUI, proposal: Proposal) -> None:
    sides = proposal.short_sides
    ui.out.say(
        f"suitable settings, from {plural(proposal.videos, 'video')} spread over all: "
        f"--method {proposal.method} --bound {proposal.bound:g} --short-side {proposal.short_side}"
    )
    times = ", ".join(f"{method} about {duration(3600 * hours)}" for method, hours in proposal.hours.items())
    ui.out.say(f"  method: {times}")
    ui.out.say(f"  bound: {_clipped(proposal.clipping)}")
    both = f"{sides[0]} px" if sides[0] == sides[1] else f"{sides[0]} to {sides[1]} px, mostly {proposal.short_side}"
    ui.out.say(f"  short side: the pictures are {both}")


def _unlisted(result: ExtractResult, workspace: Path) -> str:
    stored = plural(len(result.unlisted), "stored segment of these videos is", "stored segments of these videos are")
    return (
        f"{stored} not in the list: {some(result.unlisted)}; `stres train` uses all that is stored: where a start, an "
        f"end or a label was corrected, delete what is outdated in {workspace / 'frames'} and {workspace / 'flow'}"
    )


def _changed(result: ExtractResult) -> str:
    shown = ", ".join(result.changed[:_SHOWN_FAILURES]) + (", ..." if len(result.changed) > _SHOWN_FAILURES else "")
    what = plural(len(result.changed), "video has", "videos have")
    return f"{what} changed since it was stored, {'to be ' if result.estimate else ''}made again: {shown}"
