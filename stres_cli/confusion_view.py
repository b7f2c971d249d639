"""The confusion matrix in a terminal."""

from collections.abc import Sequence
from itertools import pairwise

from rich.cells import cell_len, set_cell_size
from rich.columns import Columns
from rich.console import Console
from rich.style import Style
from rich.text import Text

from pipelines.interface.wording import printable
from pipelines.reporting.result import Result


def render_confusion(result: Result, console: Console) -> None:
    """Prints the matrix: rows true, columns predicted, each headed by the abbreviation of its class.

    If the names take too much room they move to a legend below; if the matrix itself does, only the picture is named.
    """
    names = [printable(name) for name in result.classes]
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
    for index, code in enumerate(codes):  # every other one dim: without a gap they would run together
        heading.append(code.rjust(cell), style="bold" if index % 2 else "bold dim")
    console.print(heading)
    for index, counts in enumerate(result.confusion):
        start = Text(codes[index] + " ", style="bold").append(
            set_cell_size(names[index], label) + " " if label else "", style="not bold"
        )
        console.print(start.append_text(_row(index, counts, cell)))
    if not label:
        legend = [
            Text(code, style="bold").append(f" {name}", style="not bold")
            for code, name in zip(codes, names, strict=True)
        ]
        console.print(Columns(legend, padding=(0, 2)))


def _row(true: int, counts: Sequence[int], cell: int) -> Text:
    row = Text(style="not bold")
    total = max(sum(counts), 1)
    for predicted, count in enumerate(counts):
        style = _shade(count / total, hit=predicted == true) if count else Style(dim=True)
        row.append((str(count) if count else "·").rjust(cell), style=style)
    return row


def _shade(share: float, hit: bool) -> Style:
    """Green for correct, red for wrong, stronger with the share of the row; white text is legible on all of them."""
    weak, strong = ((38, 78, 58), (14, 128, 66)) if hit else ((84, 58, 58), (200, 32, 32))
    red, green, blue = (round(a + (b - a) * min(share, 1)) for a, b in zip(weak, strong, strict=True))
    return Style(color="bright_white", bgcolor=f"rgb({red},{green},{blue})", bold=False)


def abbreviations(names: Sequence[str]) -> list[str]:
    """Two characters for each of up to 99 names, all different: the first letter and a later one, else numbers."""
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
