"""Options that mean the same in every command, and how values of options are read."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.errors import UsageError


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


def numbers(flag: str, text: str | None) -> tuple[int, ...]:
    """`1,2,3` or `1 2 3` as numbers; none where nothing is given. Raises `UsageError`."""
    try:
        return tuple(int(part) for part in (text or "").replace(",", " ").split())
    except ValueError:
        raise UsageError(f"{flag} {text!r} cannot be read: give whole numbers, such as 1,2,3") from None


def names(text: str) -> tuple[str, ...]:
    """`full,10` as its parts, without the spaces around them."""
    return tuple(part.strip() for part in text.split(","))


def name_and_value(text: str) -> tuple[str, str]:
    """`warps=3` as its two parts. Raises `UsageError`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--method-option {text!r} cannot be read: give NAME=VALUE, such as warps=3")
    return name.strip(), value.strip()


# ------------------------------------------------------------------ shared options

FLAG = ""  # the metavar of an option without a value

Workspace = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="STRES_WORKSPACE", metavar="DIR", help="Folder that holds every stage's artifacts."
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
TestPrecision = Annotated[str, typer.Option(metavar="NAME", help="fp32 or bf16; fp16 on a GPU.")]
RunOrFolder = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NAME|DIR",
        help="A run of the workspace, or the folder of another; default: the newest finished one.",
    ),
]
UsedStep = Annotated[
    str | None,
    typer.Option("--step", metavar="STEP", help="The run's network: a training step, or late; default: the last."),
]
Workers = Annotated[int, typer.Option(parser=number(int, 0), metavar="N", help="Worker processes; 0: one a CPU core.")]
Patience = Annotated[
    float,
    typer.Option(
        parser=number(float, 1),
        metavar="SECONDS",
        help="A video that comes no further for so long fails, and its process is replaced.",
    ),
]
LoaderWorkers = Annotated[
    int,
    typer.Option(
        parser=number(int, 0), metavar="N", help="Loader processes; 0: one a core beside a GPU, none on the CPU."
    ),
]
Seed = Annotated[int, typer.Option(parser=number(int, 0), metavar="N", help="Seed of every random draw.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", metavar=FLAG, help="Make again what is already there.")]
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
AllowTruncated = Annotated[
    bool,
    typer.Option(
        "--allow-truncated", metavar=FLAG, help="Store what decodes of truncated videos, marked, instead of failing."
    ),
]
AllowDamaged = Annotated[
    bool,
    typer.Option(
        "--allow-damaged", metavar=FLAG, help="Store videos with damaged frames, marked, instead of failing them."
    ),
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        parser=number(int, 1),
        metavar="PIXELS",
        help="Short side, exactly. Default: 256, but small videos are enlarged by at most 1.25 (240 becomes 256; "
        "smaller ones keep their size).",
    ),
]
Compression = Annotated[str, typer.Option(metavar="NAME", help="zstd, or gzip for files that must open anywhere.")]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A parameter of the method by its library's name; may be given again."),
]
VIDEOS = typer.Argument(
    metavar="VIDEOS", help="A folder of class folders, a list file (path label), one video, or a glob."
)
VIDEOS_OR_FRAMES = typer.Argument(
    metavar="VIDEOS",
    help="A folder of class folders, a list file (path label), one video, or a glob; default: the workspace's frames.",
)

_READING = "VIDEOS (where it does not say itself)"
ClassesAt = Annotated[
    int | None,
    typer.Option(
        "--classes-at",
        parser=number(int, 1),
        metavar="N",
        help="The class is the Nth folder below VIDEOS, whatever else the layout looks like.",
        rich_help_panel=_READING,
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--class-names",
        metavar="FILE",
        help="Names for a list's numbers: a line each, with or without the number, or JSON; default: classInd.txt, "
        "classes.txt, labels.txt or *label_map*.txt beside the list.",
        rich_help_panel=_READING,
    ),
]
RelativeTo = Annotated[
    Path | None,
    typer.Option(
        "--relative-to",
        metavar="DIR",
        help="Folder that a list's paths are relative to; default: the list's own, or the current one.",
        rich_help_panel=_READING,
    ),
]

PICTURES = typer.Argument(
    metavar="DIR",
    help="Folder of the videos' folders: [CLASS/]VIDEO/, u/VIDEO/ and v/VIDEO/, or VIDEO/u/ and VIDEO/v/.",
)
ClassList = Annotated[
    Path | None,
    typer.Option(
        "--list",
        metavar="PATH",
        help="Classes by video, where folders do not tell: a folder of split lists, or a file of lines path label.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(parser=number(float), metavar="N", help="Frames a second, which pictures do not tell. Default: 25."),
]
FirstPicture = Annotated[
    int | None,
    typer.Option(
        "--first",
        parser=number(int, 0),
        metavar="N",
        help="Number of the first picture to take. Default: all of them, from 0 or 1 on.",
    ),
]

DEFAULT_WORKSPACE = Path("stres-work")
