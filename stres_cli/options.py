"""The shared options of `train`, whose options are not yet made from its `Config` as those of all others are."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer


def number(kind: type[int] | type[float], low: int | None = None) -> Callable[[Any], Any]:
    """An option's `parser`: a number, `low` or more. Its error echoes the value."""
    wanted = ("a whole number" if kind is int else "a finite number") + ("" if low is None else f" from {low} up")

    def read(text: Any) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not {wanted}") from None
        if not math.isfinite(value) or (low is not None and value < low):
            raise typer.BadParameter(f"{text} is not {wanted}")
        return value

    return read


# ------------------------------------------------------------------ shared options

FLAG = ""  # the metavar of an option without a value

Workspace = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="STRES_WORKSPACE", metavar="DIR", help="Folder that holds every stage's artifacts."
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
LoaderWorkers = Annotated[
    int,
    typer.Option(
        parser=number(int, 0), metavar="N", help="Loader processes; 0: one a core beside a GPU, none on the CPU."
    ),
]
Seed = Annotated[int, typer.Option(parser=number(int, 0), metavar="N", help="Seed of every random draw.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar=FLAG, help="Say how much work and disk this would take; write nothing."),
]
Json = Annotated[
    bool, typer.Option("--json", metavar=FLAG, help="One JSON document on stdout, everything else on stderr.")
]
Debug = Annotated[
    bool, typer.Option("--debug", envvar="STRES_DEBUG", metavar=FLAG, help="Show the traceback of an error.")
]
VIDEOS = typer.Argument(
    metavar="VIDEOS", help="A folder of class folders, a list file (path label), one video, or a glob."
)


DEFAULT_WORKSPACE = Path("stres-work")
