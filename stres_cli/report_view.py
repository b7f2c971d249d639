"""How `stres report` looks in a terminal: the numbers, the classes, what is confused with what, and the files.

Names come from folders of data: they are shown as plain text, never as markup, and without control characters.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.columns import Columns
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.evaluation.metrics import ClassMetrics, Interval, StreamMetrics
    from pipelines.reporting.result import Result

ALL_CLASSES_UP_TO = 30  # with more, only the worst and the best are listed, and the matrix is left to the picture
WORST_AND_BEST = 10
PAIRS_SHOWN = 10
STREAM_COLOURS = {"appearance": "yellow", "motion": "green", "fused": "bright_blue"}


def render(result: "Result", console: Console) -> None:
    """Prints the whole report."""
    console.print(_heading(result), soft_wrap=True)
    if result.unscored:
        console.print(Text(f"{result.unscored} test videos were not scored and do not count", style="yellow"))
    _section("Accuracy, %, with 95 % intervals", _accuracies(result), console)
    figures = f"%: precision, recall and F1 of {result.headline}, then the accuracy of each stream"
    for title, rows in _class_groups(result):
        _section(f"{title}, {figures}", _classes(result, rows, console.width), console)
    _section(f"Most confused pairs ({result.headline})", _pairs(result, console.width), console)
    if len(result.classes) <= ALL_CLASSES_UP_TO:
        render_confusion(result, console)
    _print_files(result, console)


def _section(title: str, body: Table | Text, console: Console) -> None:
    console.print(Text(f"\n{title}", style="bold"), body, sep="\n")


def _heading(result: "Result") -> Text:
    splits = f"mean of {len(result.splits)} splits" if len(result.splits) > 1 else f"split {result.splits[0].split}"
    heading = Text(_printable(result.name), style="bold")
    described = f"  {result.videos} videos, {len(result.classes)} classes, {splits}, protocol "
    return heading.append(described + _printable(result.protocol_name), style="dim")


# ------------------------------------------------------------------ tables


def _accuracies(result: "Result") -> Table:
    table = _table()
    table.add_column("stream", no_wrap=True)
    several = len(result.splits) > 1
    if several:
        table.add_column("split", no_wrap=True)
    for title in ("top-1", "top-5", "mean class"):
        table.add_column(title, justify="right", no_wrap=True)
    if several:
        for numbers in result.splits:
            for stream, metrics in numbers.streams.items():
                table.add_row(_stream(stream), str(numbers.split), *_metrics(metrics))
            table.add_row()
    for stream, metrics in result.streams.items():
        table.add_row(_stream(stream), *(["mean"] if several else []), *_metrics(metrics), style="bold")
    return table


def _metrics(metrics: "StreamMetrics") -> list[Text]:
    return [
        _with_interval(metrics.top1, metrics.top1_interval),
        _with_interval(metrics.top5, metrics.top5_interval),
        _with_interval(metrics.mean_class_accuracy, metrics.mean_class_accuracy_interval),
    ]


def _with_interval(value: float, interval: "Interval") -> Text:
    return Text(_percent(value)).append(f" {_percent(interval[0])}–{_percent(interval[1])}", style="not bold dim")


def _class_groups(result: "Result") -> list[tuple[str, "Sequence[ClassMetrics]"]]:
    if len(result.per_class) <= ALL_CLASSES_UP_TO:
        return [("Classes", result.per_class)]
    ordered = sorted(
        (row for row in result.per_class if row.support), key=lambda row: row.accuracy[result.headline] or 0
    )
    number = min(WORST_AND_BEST, len(ordered) // 2)
    return [(f"Worst {number} classes", ordered[:number]), (f"Best {number} classes", ordered[: -number - 1 : -1])]


def _classes(result: "Result", rows: "Sequence[ClassMetrics]", width: int) -> Table:
    table = _table()
    numbers_width = 31 + sum(max(len(stream), 5) + 2 for stream in result.streams)
    table.add_column("class", no_wrap=True, overflow="ellipsis", max_width=max(width - numbers_width, 8))
    for name in ("videos", "prec.", "recall", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    for stream in result.streams:
        table.add_column(_stream(stream), justify="right", no_wrap=True)
    for row in rows:
        figures = (row.precision, row.recall, row.f1, *(row.accuracy[stream] for stream in result.streams))
        table.add_row(Text(_printable(row.class_name)), str(row.support), *(_percent(value) for value in figures))
    return table


def _pairs(result: "Result", width: int) -> Table | Text:
    if not result.confused:
        return Text("no video was confused", style="green")
    table = _table()
    for title in ("true", "taken for"):
        table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=max((width - 24) // 2, 8))
    table.add_column("videos", justify="right", no_wrap=True)
    table.add_column("% of class", justify="right", no_wrap=True)
    for pair in result.confused[:PAIRS_SHOWN]:
        names = (Text(_printable(pair.true)), Text(_printable(pair.predicted)))
        table.add_row(*names, str(pair.count), _percent(pair.share))
    return table


def _print_files(result: "Result", console: Console) -> None:
    output = Text("\nWritten to ", style="bold").append(_printable(result.output), style="not bold")
    console.print(output, soft_wrap=True)
    console.print(Text("  ".join(result.files), style="dim"))


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)


def _stream(name: str) -> Text:
    return Text(name, style=STREAM_COLOURS[name])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in name)


# ------------------------------------------------------------------ confusion matrix


def render_confusion(result: "Result", console: Console) -> None:
    """Rows true, columns predicted; a row begins with its class's abbreviation, which is also its column's heading.

    Where the names leave no room they move into a legend below; where even that is too wide, the picture has to do.
    """
    names = [_printable(name) for name in result.classes]
    digits = max(2, len(str(max(max(row) for row in result.confusion))))
    label = min(max(cell_len(name) for name in names), 24)
    cell = (console.width - 4 - label) // len(names)
    if cell <= digits:
        label, cell = 0, (console.width - 3) // len(names)
    console.print(Text(f"\nConfusion matrix ({result.headline}): rows true, columns predicted", style="bold"))
    if cell < digits:
        console.print(Text("too wide for this terminal: see confusion_matrix.png", style="dim"))
        return
    codes = abbreviations(names)
    cell = min(cell, digits + 2)
    heading = Text(" " * (4 + label if label else 3))
    for index, code in enumerate(codes):  # every other one dim, since without a gap they would run together
        heading.append(code.rjust(cell), style="bold" if index % 2 else "bold dim")
    console.print(heading)
    for index, counts in enumerate(result.confusion):
        start = Text(codes[index] + " ", style="bold").append(
            set_cell_size(names[index], label) + " " if label else "", style="not bold"
        )
        console.print(start.append_text(_row(index, counts, cell)))
    if not label:
        _print_legend(codes, names, console)


def _row(true: int, counts: "Sequence[int]", cell: int) -> Text:
    row = Text(style="not bold")
    total = max(sum(counts), 1)
    for predicted, count in enumerate(counts):
        style = _shade(count / total, hit=predicted == true) if count else Style(dim=True)
        row.append((str(count) if count else "·").rjust(cell), style=style)
    return row


def _shade(share: float, hit: bool) -> Style:
    """Green for what is right, red for what is not, stronger with its share of the row; white reads on all of them."""
    weak, strong = ((38, 78, 58), (14, 128, 66)) if hit else ((84, 58, 58), (200, 32, 32))
    red, green, blue = (round(a + (b - a) * min(share, 1)) for a, b in zip(weak, strong, strict=True))
    return Style(color="bright_white", bgcolor=f"rgb({red},{green},{blue})", bold=False)


def _print_legend(codes: list[str], names: list[str], console: Console) -> None:
    entries = [
        Text(code, style="bold").append(f" {name}", style="not bold") for code, name in zip(codes, names, strict=True)
    ]
    console.print(Columns(entries, padding=(0, 2)))


def abbreviations(names: "Sequence[str]") -> list[str]:
    """Two characters for each of at most 99 names, no two alike: the first letter and a later one, else all numbers."""
    chosen: list[str] = []
    for name in names:
        letters = [letter for letter in name if letter.isalnum() and cell_len(letter) == 1]
        humps = [letter for before, letter in pairwise(letters) if letter.isupper() and before.islower()]
        free = (code for other in (*humps, *letters[1:]) if (code := letters[0] + other) not in chosen)
        code = next(free, "")
        if not code:
            return [f"{number:02d}" for number in range(1, len(names) + 1)]
        chosen.append(code)
    return chosen
