"""How the result of `verify` looks: a table of the kinds of faults, then each fault; in a log, plain lines."""

from itertools import groupby

from rich.filesize import decimal
from rich.text import Text

from pipelines.datasets.splits import in_no_split
from pipelines.interface.wording import duration, plural, printable, some
from pipelines.verification.faults import FIXES, Fault, FaultKind
from pipelines.verify import Result
from stres_cli.console import PlainConsole
from stres_cli.tables import Table

SHOWN = 5  # faults of a kind; all of them are in the document of --json


def show(result: Result, console: PlainConsole, then: str) -> None:
    """Prints everything, and the command to run `then`, or "". Names come from folders of data, so they are shown
    without control characters."""
    rate = result.videos / max(result.seconds, 1e-9)
    size = decimal(round(1e9 * result.gigabytes))
    console.say(
        f"{plural(result.videos, 'video')}, {plural(result.files, 'file')}, {size} in "
        f"{duration(result.seconds)} ({rate:.1f} videos/s)"
    )
    if result.sources_absent:
        console.say(
            f"{plural(result.sources_absent, 'source video is', 'source videos are')} gone and were not compared"
        )
    if result.not_oriented:
        console.say(
            f"in {plural(result.not_oriented, 'video')} too little moves to tell whether the flow points the right way"
        )
    for line in _flow_again(result), _stored_in_part(result):
        if line:
            console.say(line)
    if result.in_no_split:
        console.say(in_no_split(result.in_no_split, "the splits"))
    if not result.faults:
        console.say(Text("no faults", style="green").append(printable(f"; next: {then}"), "none"))
        return
    if console.is_terminal:
        console.print(_table(result))
    for kind, faults in groupby(result.faults, key=lambda fault: fault.kind):
        _show_kind(kind, list(faults), console)
    if result.requeued:
        artifacts = plural(len(result.requeued), "artifact is", "artifacts are")
        queued = f"{artifacts} queued in failures.csv; the old files are in set-aside/. To make them again, run the"
        console.say(f"{queued} command that made them:")
    for line in result.commands:
        console.say(f"  {line}")
    if then:
        console.say(f"next: {then}")


def _flow_again(result: Result) -> str:
    """How much flow was recomputed, and why other flow was not."""
    videos, fields = plural(result.recomputed_videos, "video"), plural(result.recomputed_fields, "field")
    done = f"the flow of {videos} was recomputed ({fields})"
    reasons = [f"of {number} {reason}" for reason, number in result.not_recomputed.items()]
    parts = [done] * (result.recomputed_videos > 0)
    parts += [f"not recomputed: {', '.join(reasons)}"] * bool(reasons)
    return "; ".join(parts)


def _stored_in_part(result: Result) -> str:
    """Which videos are stored although they are incomplete."""
    kinds = ("truncated", result.truncated), ("damaged", result.damaged)
    parts = [f"{len(videos)} {kind} (--allow-{kind}): {some(videos, 5)}" for kind, videos in kinds if videos]
    return f"stored although incomplete: {'; '.join(parts)}" if parts else ""


def _table(result: Result) -> Table:
    table = Table("fault", "number", "what to do", title=plural(len(result.faults), "fault"))
    table.columns[1].justify = "right"
    for kind, number in result.counts.items():
        table.add_row(Text(kind, style="red"), str(number), FIXES[kind])
    return table


def _show_kind(kind: FaultKind, faults: list[Fault], console: PlainConsole) -> None:
    if console.is_terminal:
        console.print(Text(f"{kind}: {len(faults)}", style="bold"))
    else:
        console.say(f"{kind}: {len(faults)}; {FIXES[kind]}")
    for fault in faults[:SHOWN]:
        console.say(f"  {fault.subject}: {fault.detail}")
    if len(faults) > SHOWN:
        console.print(f"  and {len(faults) - SHOWN} more: --json lists all", style="dim")
