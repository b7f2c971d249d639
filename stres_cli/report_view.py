"""How `stres report` looks in a terminal: the numbers, the classes, what is confused with what, and the files.

Names come from folders of data: they are shown as plain text, never as markup, and without control characters.
"""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from pipelines.wording import percent, plural, points, printable, some
from stres_cli.confusion_view import render_confusion
from stres_cli.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.analysis.comparison import Comparison
    from pipelines.analysis.published import Published
    from pipelines.evaluation.intervals import Interval
    from pipelines.evaluation.metrics import ClassMetrics, StreamMetrics
    from pipelines.reporting.result import Result

ALL_CLASSES_UP_TO = 30  # with more, only the worst and the best are listed, and the matrix is left to the picture
WORST_AND_BEST = 10
PAIRS_SHOWN = 10
EFFECTS_SHOWN = 3
FIGURES_WIDTH = 31  # columns of videos, precision, recall and F1
SHORTEST_NAME = 12  # columns; before names get shorter, precision, recall and F1 are left to the table
STREAM_COLOURS = {"appearance": "yellow", "motion": "green", "fused": "bright_blue"}
OTHER_COLOUR = "magenta"  # of another program's streams


def render(result: "Result", console: Console) -> None:
    """Prints the whole report."""
    console.print(_heading(result), soft_wrap=True)
    if result.test_set:
        console.print(Text(printable(result.test_set), style="yellow"), soft_wrap=True)
    if result.unscored:
        text = plural(result.unscored, "test video was", "test videos were")
        console.print(Text(f"{text} not scored and count for nothing", style="yellow"))
    _section("Accuracy, %, with 95 % intervals (Wilson; of means combined)", _accuracies(result), console)
    if absent := sum(row.support == 0 for row in result.per_class):
        classes = plural(len(result.classes), "class")
        have = "has" if absent == 1 else "have"
        has = f"{absent} of {classes} {have} no test video: mean class is of the others"
        console.print(Text(has, style="yellow"))
    if result.excluded:
        left_out = printable(", ".join(result.excluded))
        console.print(Text(f"without the classes {left_out} (--exclude-class)", style="yellow"), soft_wrap=True)
    _print_external(result, console)
    if result.published is not None:
        title = f"Beside published results on {result.published.dataset}, top-1, % (means of three splits)"
        _section(title, _published(result, result.published), console)
    if result.comparison is not None:
        _section(f"Compared with {printable(result.comparison.second)}", _comparison(result.comparison), console)
        if others := result.comparison.other_sources:
            was = plural(len(others), "video was another one", "videos were others")
            told = (
                f"{was} in the other test (the sources' SHA-256 differ), and what differs may be theirs: {some(others)}"
            )
            console.print(Text(printable(told), style="yellow"), soft_wrap=True)
    figures = "%: the accuracy of each stream"
    if _has_room_for_figures(result, console.width):
        figures = f"%: precision, recall and F1 of {printable(result.headline)}, then the accuracy of each stream"
    for title, rows in _class_groups(result):
        _section(f"{title}, {figures}", _classes(result, rows, console.width), console)
    _section(f"Most confused pairs ({result.headline})", _pairs(result, console.width), console)
    if len(result.classes) <= ALL_CLASSES_UP_TO:
        render_confusion(result, console)
    _print_findings(result, console)
    _print_files(result, console)


def _section(title: str, body: Table | Text, console: Console) -> None:
    console.print(Text(f"\n{title}", style="bold"), body, sep="\n")


def _heading(result: "Result") -> Text:
    splits = f"mean of {len(result.splits)} splits" if len(result.splits) > 1 else f"split {result.splits[0].split}"
    heading = Text(printable(result.name), style="bold")
    described = f"  {plural(result.videos, 'video')}, {plural(len(result.classes), 'class')}, {splits}, protocol "
    return heading.append(described + printable(result.protocol_name), style="dim")


# ------------------------------------------------------------------ tables


def _accuracies(result: "Result") -> Table:
    table = _table()
    table.add_column("stream", no_wrap=True)
    several = len(result.splits) > 1
    if several:
        table.add_column("split", no_wrap=True)
    has_top5 = result.streams[result.headline].top5 is not None
    for title in ("top-1", *(["top-5"] if has_top5 else []), "mean class"):
        table.add_column(title, justify="right", no_wrap=True)
    if several:
        for numbers in result.splits:
            for stream, metrics in numbers.streams.items():
                table.add_row(_stream(stream), str(numbers.split), *_metrics(metrics))
            table.add_row()
        for stream, metrics in result.pooled.items():
            table.add_row(_stream(stream), "pooled", *_metrics(metrics))
        table.add_row()
    for stream, metrics in result.streams.items():
        table.add_row(_stream(stream), *(["mean"] if several else []), *_metrics(metrics), style="bold")
    return table


def _metrics(metrics: "StreamMetrics") -> list[Text]:
    shown = [_with_interval(metrics.top1, metrics.top1_interval)]
    if metrics.top5 is not None and metrics.top5_interval is not None:
        shown.append(_with_interval(metrics.top5, metrics.top5_interval))
    return [*shown, _with_interval(metrics.mean_class_accuracy, metrics.mean_class_accuracy_interval)]


def _with_interval(value: float, interval: "Interval") -> Text:
    return Text(percent(value)).append(f" {percent(interval[0])}–{percent(interval[1])}", style="not bold dim")


def _class_groups(result: "Result") -> list[tuple[str, "Sequence[ClassMetrics]"]]:
    if len(result.per_class) <= ALL_CLASSES_UP_TO:
        return [("Classes", result.per_class)]
    ordered = sorted(
        (row for row in result.per_class if row.support), key=lambda row: row.accuracy[result.headline] or 0
    )
    number = min(WORST_AND_BEST, len(ordered) // 2)
    classes = plural(number, "class")
    return [(f"Worst {classes}", ordered[:number]), (f"Best {classes}", ordered[: -number - 1 : -1])]


def _classes(result: "Result", rows: "Sequence[ClassMetrics]", width: int) -> Table:
    table = _table()
    more = ("prec.", "recall", "F1") if _has_room_for_figures(result, width) else ()
    numbers_width = _streams_width(result) + (FIGURES_WIDTH if more else 8)
    table.add_column("class", no_wrap=True, overflow="ellipsis", max_width=max(width - numbers_width, 8))
    for name in ("videos", *more):
        table.add_column(name, justify="right", no_wrap=True)
    for stream in result.streams:
        table.add_column(_stream(stream), justify="right", no_wrap=True)
    for row in rows:
        figures = [row.accuracy[stream] for stream in result.streams]
        if more:
            figures = [row.precision, row.recall, row.f1, *figures]
        table.add_row(Text(printable(row.class_name)), str(row.support), *(percent(value) for value in figures))
    return table


def _streams_width(result: "Result") -> int:
    return sum(max(len(stream), 5) + 2 for stream in result.streams)


def _has_room_for_figures(result: "Result", width: int) -> bool:
    return width - _streams_width(result) >= FIGURES_WIDTH + SHORTEST_NAME


def _pairs(result: "Result", width: int) -> Table | Text:
    if not result.confused:
        return Text("no video was confused", style="green")
    table = _table()
    for title in ("true", "taken for"):
        table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=max((width - 24) // 2, 8))
    table.add_column("videos", justify="right", no_wrap=True)
    table.add_column("% of class", justify="right", no_wrap=True)
    for pair in result.confused[:PAIRS_SHOWN]:
        names = (Text(printable(pair.true)), Text(printable(pair.predicted)))
        table.add_row(*names, str(pair.count), percent(pair.share))
    return table


# ------------------------------------------------------------------ beside others


def _print_external(result: "Result", console: Console) -> None:
    if (external := result.external) is None:
        return
    averaged = "probabilities" if external.space == "softmax" else "logits, before softmax"
    holds = "probabilities" if external.probabilities else "logits or other scores"
    text = f"{external.name}: from {', '.join(external.files)}, which holds {holds}; weight {external.weight:g}; "
    console.print(Text(printable(f"{text}averaged: {averaged}"), style="dim"))
    if external.extra:
        text = f"{len(external.extra)} of its videos are not in this test, such as {external.extra[0]}"
        console.print(Text(printable(text), style="dim"))


def _published(result: "Result", published: "Published") -> Table:
    table = _table()
    table.add_column("method")
    table.add_column("top-1", justify="right", no_wrap=True)
    for method in published.methods:
        table.add_row(method.name, percent(method.top1))
    ours = Text("this report, ").append_text(_stream(result.headline))
    table.add_row(ours, percent(result.streams[result.headline].top1), style="bold")
    return table


def _comparison(comparison: "Comparison") -> Table:
    """How many videos only one of the two gets right, and how likely that is of equals."""
    table = _table()
    table.add_column("stream", no_wrap=True, overflow="ellipsis")
    for title in ("only this", "only other", "difference", "p (McNemar)"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in comparison.streams:
        low, high = one.difference_interval
        difference = Text(points(one.difference))
        difference.append(f" {points(low)} to {points(high)}", style="not bold dim")
        p_value = "< 0.0001" if one.p_value < 0.0001 else f"{one.p_value:.4f}"
        table.add_row(_stream(one.first), str(one.only_first), str(one.only_second), difference, p_value)
    return table


def _print_findings(result: "Result", console: Console) -> None:
    """A line each of motion, fusion weight and calibration; the page has the whole."""
    lines = []
    if effects := result.motion_effects:
        helped, hurt = (", ".join(_effects(result, sign)) or "no class" for sign in (1, -1))
        helped_by, hurt_by = (sum(getattr(one, name) for one in effects) for name in ("helped", "hurt"))
        counts = f"{plural(helped_by, 'video')} right only with motion, {hurt_by} only without"
        lines.append(("Motion", f"{counts}; helps {helped}; hurts {hurt}"))
    for sweep in result.fusion:
        weight, top1 = sweep.best
        used = f"{sweep.first} with {sweep.second}: {percent(sweep.used_top1)} % at weight {sweep.used:g} (used)"
        best = f"best of these test videos {percent(top1)} % at {weight:g}, which is no test result"
        lines.append(("Fusion", f"{used}; {best}"))
    if result.calibration:
        errors = (f"{stream} {percent(values.ece)} %" for stream, values in result.calibration.items())
        lines.append(("Calibration", f"expected error (ECE) {', '.join(errors)}"))
    table = _table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for title, text in lines:
        table.add_row(title, Text(printable(text)))
    console.print("", table, sep="\n")


def _effects(result: "Result", sign: int) -> list[str]:
    """The classes that motion helps (`sign` 1) or hurts (-1) most."""
    found = [effect for effect in result.motion_effects[::sign] if sign * effect.difference > 0]
    return [f"{effect.class_name} ({points(effect.difference)})" for effect in found[:EFFECTS_SHOWN]]


def _print_files(result: "Result", console: Console) -> None:
    output = Text("\nWritten to ", style="bold").append(printable(result.output), style="not bold")
    console.print(output, soft_wrap=True)
    console.print(Text("  ".join(result.files), style="dim"))


def _table(show_header: bool = True) -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=show_header)


def _stream(name: str) -> Text:
    return Text(printable(name), style=STREAM_COLOURS.get(name, OTHER_COLOUR))
