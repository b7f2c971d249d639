"""Tables for papers: LaTeX (booktabs) made of the report's CSV, in percent, intervals beside their number."""

import csv
import io
import re

from pipelines.interface.wording import interval, p_value, percent, printable
from pipelines.storage.failures import typed_text

PRINTED = (
    "summary", "per_class", "confusion_matrix", "confused_pairs", "motion_effect", "published", "comparison",
    "comparison_videos", "label_issues", "near_duplicates", "fusion_weight", "calibration",
)  # fmt: skip
"""The tables that the page shows; the others have a row for every video or update."""
_FRACTION = re.compile(r"-?\d+\.\d{6}")  # as `tables` writes it
_SPECIAL = {letter: f"\\{letter}" for letter in "&%$#_{}"}
_SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def latex_table(text: str, comment: str, *, intervals: bool = True) -> str:
    """Makes a `tabular` of a CSV table.

    Args:
        comment: Stands above it, on one line.
        intervals: Whether columns `<name>_low` and `<name>_high` are the ends of an interval, which stands behind the
            number of column `<name>`; not where columns are called after classes.
    """
    header, *rows = csv.reader(io.StringIO(text))
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    with_interval = {name for name in columns if intervals and {f"{name}_low", f"{name}_high"} <= columns.keys()}
    titles, shown, sides = [], [], ""
    for name, cells in columns.items():
        base, _, end = name.rpartition("_")
        if end in ("low", "high") and base in with_interval:
            continue
        low, high = (
            columns[f"{name}_{end}"] if name in with_interval else [""] * len(cells) for end in ("low", "high")
        )
        is_share = name != "p_value" and any(map(_FRACTION.fullmatch, cells))
        is_number = all(re.fullmatch(r"[-+\d.e]*", cell) for cell in cells)
        titles.append(_escaped(typed_text(name)) + (r" (\%)" if is_share else ""))
        shown.append([_cell(*each, name, is_share) for each in zip(cells, low, high, strict=True)])
        sides += "r" if is_number else "l"
    lines = [" & ".join(row) + r" \\" for row in zip(*shown, strict=True)]
    above = [f"% {printable(comment)}", r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{sides}}}", r"\toprule"]
    return "\n".join([*above, " & ".join(titles) + r" \\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(text: str, low: str, high: str, name: str, is_share: bool) -> str:
    if not text:
        return "--"
    if name == "p_value":
        return f"${p_value(float(text))}$"
    if not is_share:
        return _escaped(typed_text(text))
    ends = f" ({interval((float(low), float(high))).replace('–', '--')})" if low and high else ""
    return percent(float(text)) + ends


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in printable(text))
