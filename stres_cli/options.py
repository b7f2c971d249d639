"""Options that mean the same in every command."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import UsageError

Workspace = Annotated[
    Path,
    typer.Option("--workspace", "-w", envvar="STRES_WORKSPACE", help="Folder that holds every stage's artifacts."),
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 means one a CPU core.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random draw.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make again what is already there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how much work and disk this would take; write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", envvar="STRES_DEBUG", help="Show the traceback of an error.")]
AllowTruncated = Annotated[
    bool, typer.Option("--allow-truncated", help="Store what decodes of truncated videos, marked, instead of failing.")
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        help="Short side in pixels, exactly. Default: 256, but small videos are enlarged by at most 1.25 "
        "(240 becomes 256; smaller ones keep their size)."
    ),
]
VIDEOS = typer.Argument(help="A folder of class folders, a list file (path label), one video, or a glob.")
VIDEOS_OR_FRAMES = typer.Argument(
    metavar="[VIDEOS]",
    help="A folder of class folders, a list file (path label), one video, or a glob; default: the workspace's frames.",
)

DEFAULT_WORKSPACE = Path("stres-work")


def numbers(flag: str, text: str | None) -> tuple[int, ...]:
    """`1,2,3` or `1 2 3` as numbers; none where nothing is given. Raises `UsageError`."""
    try:
        return tuple(int(part) for part in (text or "").replace(",", " ").split())
    except ValueError:
        raise UsageError(f"{flag} {text!r} cannot be read: give whole numbers, such as 1,2,3") from None
