"""What can be wrong with a workspace, by kind, and how closely `verify` looks for it."""

from dataclasses import dataclass
from typing import Literal, get_args

from pipelines.storage.workspace import Kind

FaultKind = Literal[
    "missing",
    "damaged",
    "truncated",
    "wrong schema",
    "checksum",
    "inconsistent",
    "out of step",
    "settings",
    "constant flow",
    "saturated flow",
    "repeated flow",
    "duplicated flow",
    "duplicated video",
    "turned flow",
    "foreign flow",
    "wrong flow",
    "suspect flow",
    "recomputation",
    "source changed",
    "dataset file",
    "splits",
    "split names absent videos",
    "group on both sides",
    "run",
    "scores",
    "temporary files",
]
"""In the order in which they are reported."""

_REMAKE = "`stres verify --fix` sets it aside, the extracting command makes it again"
FIXES: dict[FaultKind, str] = {
    **dict.fromkeys(get_args(FaultKind), _REMAKE),
    "missing": "run the extracting command again",
    "checksum": f"{_REMAKE}; if it comes back, check the disk",
    "settings": "run `stres extract-flow --overwrite`, so that all flow has the same settings",
    "saturated flow": f"{_REMAKE}; if it comes back, its motion exceeds the bound: extract all with a larger --bound",
    "duplicated video": "remove one of them, above all if one is in train and the other in test",
    "turned flow": f"{_REMAKE}; if it was imported, correct its axes and signs and import it again",
    "suspect flow": "`stres verify` without --quick recomputes it; what cannot be recomputed, extract with --overwrite",
    "recomputation": "extract the video into another --workspace: that fails too, or gives flow to compare this with",
    "dataset file": "`stres verify --fix` removes it, the next command makes it again",
    "splits": "correct the lists, or replace them with `stres train --splits DIR --overwrite`",
    "split names absent videos": "extract them, or remove them from the lists; training leaves them out",
    "group on both sides": "put all videos of the group on one side, or accuracy will be inflated",
    "run": "train it again with `stres train --overwrite`, or delete the file named to repeat its step",
    "scores": "run `stres evaluate` again",
    "temporary files": "`stres verify --fix` removes them",
}
"""What the user does about each kind."""

CheckLevel = Literal["quick", "stored", "full"]
"""How closely `verify` looks.

* `quick`: attributes and shapes.
* `stored`: every stored byte against its checksum, a sample of what the bytes mean, and some flow fields recomputed.
* `full`: everything decoded and compared with the hash of the content, and all flow fields recomputed.
"""


@dataclass(frozen=True)
class Fault:
    """One thing found wrong."""

    kind: FaultKind
    subject: str
    """The video (`class/video`), split or run."""
    path: str
    """The file or folder at fault."""
    detail: str
    remake: tuple[Kind, ...] = ()
    """Which artifacts of the video `--fix` queues to be made again."""


class FaultFound(Exception):
    """Ends the checks of an artifact that is of no use; becomes a fault of this kind."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail
