"""Tables for terminals of any width: no number is ever cut, since "10…" may be 10 % or 100 %."""

import copy

import rich.table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_SHORTEST_NAME = 8  # columns, before a row becomes a line for each of its values
_LONGEST_NUMBER = 32  # columns: the factors of a schedule
_BAR = set("━ ")


class Table(rich.table.Table):
    """rich's table with other ways to save room: it drops bars, then shortens names, and in the end prints a line for
    each value of a row.

    Numbers are right-aligned columns, and columns of short texts with a digit in one of them, unless they are marked as
    names by `no_wrap`.
    """

    def add_numbers(self, *headings: str | Text) -> None:
        """Adds a right-aligned column for each heading."""
        for heading in headings:
            self.add_column(heading, justify="right")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = copy.copy(self)
        table.columns = [copy.copy(column) for column in self.columns]
        texts = [[_text(cell, console) for cell in column._cells] for column in self.columns]
        room = options.max_width
        if (least := table._give_widths(texts, room)) > room:
            kept = [number for number, cells in enumerate(texts) if not _is_bar(cells)]
            table.columns = [table.columns[number] for number in kept]
            texts = [texts[number] for number in kept]
            least = table._give_widths(texts, room)
        if least > room:
            yield from table._lines(texts, console)
        else:
            yield from rich.table.Table.__rich_console__(table, console, options)

    def _give_widths(self, texts: list[list[Text]], room: int) -> int:
        """Sets the columns' widths for `room` columns; returns how many the table takes, which may be more."""
        for number, column in enumerate(self.columns):
            column._index = number
        headings = [
            column.header.plain if isinstance(column.header, Text) else str(column.header) for column in self.columns
        ]
        widest = [max((text.cell_len for text in cells), default=0) for cells in texts]
        for number, (column, cells) in enumerate(zip(self.columns, texts, strict=True)):
            words = max(map(cell_len, headings[number].split()), default=0)
            if _is_bar(cells) or _is_number(column, cells):
                column.no_wrap, column.width = False, max(widest[number], words)
            else:
                column.width = max(min(widest[number], _SHORTEST_NAME), words)
        taken = self._extra_width + sum(
            (column.width or 0) + self._get_padding_width(number) for number, column in enumerate(self.columns)
        )
        left = room - taken
        for wanted in (widest, list(map(cell_len, headings))):
            while left > 0 and (
                short := [c for c, width in zip(self.columns, wanted, strict=True) if (c.width or 0) < width]
            ):
                for column in short[:left]:
                    column.width = (column.width or 0) + 1
                    left -= 1
        return taken

    def _lines(self, texts: list[list[Text]], console: Console) -> RenderResult:
        """Prints a heading for each row, and a line for each of its values."""
        if self.title:
            yield _text(self.title, console)
        for number, row in enumerate(self.rows):
            cells = [cells[number] for cells in texts]
            for place, (column, text) in enumerate(zip(self.columns, cells, strict=True)):
                header = " ".join(_text(column.header, console).plain.split())  # some are written on two lines
                if not text.plain.strip():
                    continue
                if place == 0 and column.justify != "right":  # a name, of what is below
                    line = Text(style=row.style or "").append_text(text)
                elif cell_len(header) + text.cell_len + 3 <= console.width:
                    line = Text(f"  {header} " if header else "  ").append_text(text)
                else:
                    if header:
                        yield Text(f"  {header}")
                    line = Text(" " * max(0, min(4, console.width - text.cell_len))).append_text(text)
                line.overflow = "fold"
                yield line


def _text(cell: object, console: Console) -> Text:
    return cell.copy() if isinstance(cell, Text) else console.render_str(str(cell))


def _is_bar(cells: list[Text]) -> bool:
    return any(text.plain for text in cells) and all(set(text.plain) <= _BAR for text in cells)


def _is_number(column: rich.table.Column, cells: list[Text]) -> bool:
    if column.justify == "right":
        return True
    short = max((text.cell_len for text in cells), default=0) <= _LONGEST_NUMBER
    return short and not column.no_wrap and any(letter.isdigit() for text in cells for letter in text.plain)
