"""How `stres report` looks in a terminal: the numbers, the classes, what is confused with what, and the files.

Names come from folders of data: they are shown as plain text, never as markup, and without control characters.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from pipelines.interface.wording import interval, p_value, percent, plural, points, printable
from pipelines.reporting.result import Result
from stres_cli.confusion_view import render_confusion
from stres_cli.console import PlainConsole
from stres_cli.tables import Table

if TYPE_CHECKING:
    from pipelines.analysis.comparison import Comparison
    from pipelines.analysis.published import Published
    from pipelines.evaluation.metrics import ClassMetrics

ALL_CLASSES_UP_TO = 30  # with more, only the worst and the best are listed, and the matrix is left to the picture
WORST_AND_BEST = 10
PAIRS_SHOWN = 10
EFFECTS_SHOWN = 3
VIDEOS_WIDTH = 8  # of the column with the number of videos
SHORTEST_NAME = 12  # columns; before names get shorter, the headline stream's figures are left to the table
STREAM_COLOURS = {"appearance": "yellow", "motion": "green", "fused": "bright_blue"}
OTHER_COLOUR = "magenta"  # of another program's streams


def render(result: Result, console: PlainConsole, then: str = "") -> None:
    """Prints the whole report, and the command that comes next."""
    counts = f"{plural(result.videos, 'video')}, {plural(len(result.classes), 'class')}, {result.of_splits}"
    heading = Text(printable(result.name), style="bold")
    heading.append(f"  {counts}, protocol {printable(result.protocol_name)}", style="dim")
    console.say(heading)
    for notice in result.notices:
        console.say(notice, "yellow")
    _section("Accuracy in %, with 95 % intervals (Wilson; combined for means)", _accuracies(result), console)
    console.print(Text(f"{printable(result.citation)}\n{result.balance.of_test()}", style="dim"))
    for note in result.external.notes() if result.external else ():
        console.print(Text(printable(note), style="dim"))
    if result.published is not None:
        title = f"Published results on {result.published.dataset}: top-1 in % (means of three splits)"
        _section(title, _published(result, result.published), console)
    if result.comparison is not None:
        _section(f"Compared with {printable(result.comparison.second)}", _comparison(result.comparison), console)
        if warning := result.comparison.warning:
            console.say(warning, "yellow")
    figures = "in %: the accuracy of each stream"
    if _has_room_for_figures(result, console.width):
        figures = f"in {printable(result.class_figures_named)}, then the accuracy of each stream"
    for title, rows in _class_groups(result):
        _section(f"{title}, {figures}", _classes(result, rows, console.width), console)
    _section(f"Most confused pairs ({result.headline})", _pairs(result), console)
    if len(result.classes) <= ALL_CLASSES_UP_TO:
        render_confusion(result, console)
    _print_findings(result, console)
    output = Text("\nWritten to ", style="bold").append(printable(result.output), style="not bold")
    if then:
        output.append(printable(f"; next: {then}"), style="not bold")
    console.say(output)
    console.print(Text("  ".join(result.files), style="dim"))


def _section(title: str, body: Table | Text, console: PlainConsole) -> None:
    console.print(Text(f"\n{title}", style="bold"), body, sep="\n")


# ------------------------------------------------------------------ tables


def _accuracies(result: Result) -> Table:
    table = _table()
    table.add_column("stream", no_wrap=True)
    if result.several:
        table.add_column("split", no_wrap=True)
    table.add_numbers(*result.accuracies.values())
    before = result.accuracy_rows[0].split
    for row in result.accuracy_rows:
        if row.split != before:
            table.add_row()
        before = row.split
        cells = [
            Text(percent(getattr(row.metrics, name))).append(
                f" {interval(getattr(row.metrics, f'{name}_interval'))}", style="not bold dim"
            )
            for name in result.accuracies
        ]
        split = [row.split] if result.several else []
        is_headline = not result.several or row.split == "mean"
        table.add_row(_stream(row.stream), *split, *cells, style="bold" if is_headline else None)
    return table


def _class_groups(result: Result) -> list[tuple[str, "Sequence[ClassMetrics]"]]:
    if len(result.per_class) <= ALL_CLASSES_UP_TO:
        return [("Classes", result.per_class)]
    ordered = sorted(
        (row for row in result.per_class if row.support), key=lambda row: row.accuracy[result.headline] or 0
    )
    number = min(WORST_AND_BEST, len(ordered) // 2)
    classes = plural(number, "class")
    return [(f"Worst {classes}", ordered[:number]), (f"Best {classes}", ordered[: -number - 1 : -1])]


def _classes(result: Result, rows: "Sequence[ClassMetrics]", width: int) -> Table:
    table = _table()
    has_room = _has_room_for_figures(result, width)
    more = [figure.short for figure in result.class_figures.values()] if has_room else []
    table.add_column("class", no_wrap=True, overflow="ellipsis")
    table.add_numbers("videos", *more, *map(_stream, result.streams))
    for row in rows:
        figures = [figure.shown(value) for figure, value in row.figures] if has_room else []
        accuracies = [percent(row.accuracy[stream]) for stream in result.streams]
        table.add_row(Text(printable(row.class_name)), str(row.support), *figures, *accuracies)
    return table


def _has_room_for_figures(result: Result, width: int) -> bool:
    """Whether the headline stream's figures leave names their room, with one column to spare."""
    headings = [*result.streams, *(figure.short for figure in result.class_figures.values())]
    return width > SHORTEST_NAME + VIDEOS_WIDTH + sum(max(len(heading), 5) + 2 for heading in headings)


def _pairs(result: Result) -> Table | Text:
    if not result.confused:
        return Text("no video was misclassified", style="green")
    table = _table()
    for title in ("true", "predicted"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    table.add_numbers("videos", "% of class")
    for pair in result.confused[:PAIRS_SHOWN]:
        names = (Text(printable(pair.true)), Text(printable(pair.predicted)))
        table.add_row(*names, str(pair.count), percent(pair.share))
    return table


# ------------------------------------------------------------------ beside others


def _published(result: Result, published: "Published") -> Table:
    table = _table()
    table.add_column("method")
    table.add_numbers("top-1")
    for method in published.methods:
        table.add_row(method.name, percent(method.top1))
    ours = Text("this report, ").append_text(_stream(result.headline))
    table.add_row(ours, percent(result.streams[result.headline].top1), style="bold")
    return table


def _comparison(comparison: "Comparison") -> Table:
    """How many videos only one of the two gets right, and how likely that is of equals."""
    table = _table()
    table.add_column("stream")
    table.add_numbers("only this", "only other", "difference", "p (McNemar)")
    for one in comparison.streams:
        low, high = one.difference_interval
        difference = Text(points(one.difference))
        difference.append(f" {points(low)} to {points(high)}", style="not bold dim")
        stream = Text(printable(one.streams), style=_stream(one.first).style)
        table.add_row(stream, str(one.only_first), str(one.only_second), difference, p_value(one.p_value))
    return table


def _print_findings(result: Result, console: PlainConsole) -> None:
    """A line each of motion, fusion weight and calibration; the page has the whole."""
    lines = []
    if effects := result.motion_effects:
        named = [
            ", ".join(f"{one.class_name} ({points(one.difference)})" for one in result.motion(change)[:EFFECTS_SHOWN])
            for change in (1, -1)
        ]
        helped, hurt = (names or "no class" for names in named)
        helped_by, hurt_by = (sum(getattr(one, name) for one in effects) for name in ("helped", "hurt"))
        counts = f"{plural(helped_by, 'video')} right only with motion, {hurt_by} only without"
        lines.append(("Motion", f"{counts}; helps {helped}; hurts {hurt}"))
    for sweep in result.fusion:
        weight, top1 = sweep.best
        used = f"{sweep.first} with {sweep.second}: {percent(sweep.used_top1)} % as used, {sweep.used_in_words}"
        best = f"best on these test videos {percent(top1)} % at {weight:g}, which is not a test result"
        lines.append(("Fusion", f"{used}; {best}"))
    if result.calibration:
        errors = (f"{stream} {percent(values.ece)} %" for stream, values in result.calibration.items())
        lines.append(("Calibration", f"expected calibration error (ECE) {', '.join(errors)}"))
    table = _table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for title, text in lines:
        table.add_row(title, Text(printable(text)))
    console.print("", table, sep="\n")


def _table(show_header: bool = True) -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=show_header)


def _stream(name: str) -> Text:
    return Text(printable(name), style=STREAM_COLOURS.get(name, OTHER_COLOUR))
