"""What can be wrong with a workspace, by kind, and what to do about each."""

from dataclasses import dataclass
from typing import Literal

from pipelines.datasets.dataset_file import Kind

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

_AGAIN = "`stres verify --fix` sets it aside, the extracting command makes it again"
NEXT: dict[FaultKind, str] = {
    "missing": "run the extracting command again",
    "damaged": _AGAIN,
    "truncated": _AGAIN,
    "wrong schema": _AGAIN,
    "checksum": f"{_AGAIN}; if it comes back, check the disk",
    "inconsistent": _AGAIN,
    "out of step": _AGAIN,
    "settings": "run `stres extract-flow --overwrite`, so that all flow has the same settings",
    "constant flow": _AGAIN,
    "saturated flow": f"{_AGAIN}; if it comes back, its motion is beyond the bound: extract all with a larger --bound",
    "repeated flow": _AGAIN,
    "duplicated flow": _AGAIN,
    "duplicated video": "remove one of them, above all if they stand on both sides of a split",
    "turned flow": f"{_AGAIN}; if it was imported, import it with its axes and signs put right",
    "foreign flow": _AGAIN,
    "wrong flow": _AGAIN,
    "suspect flow": "`stres verify` without --quick computes it again; what it cannot, extract again with --overwrite",
    "recomputation": "extract the video into another --workspace: that fails too, or gives flow to compare this with",
    "source changed": _AGAIN,
    "dataset file": "`stres verify --fix` removes it, the next command makes it again",
    "splits": "correct the lists, or give others by `stres train --splits DIR --overwrite`",
    "split names absent videos": "extract them, or take them out of the lists; training leaves them out",
    "group on both sides": "put the group's videos on one side, or accuracies will be too high",
    "run": "train it again with `stres train --overwrite`, or delete the file named to repeat its step",
    "scores": "run `stres evaluate` again",
    "temporary files": "`stres verify --fix` removes them",
}
"""Every kind in the order in which they are shown, and what its user does next."""


@dataclass(frozen=True)
class Fault:
    """One thing found wrong.

    `subject`: the video (`class/video`), split or run; `path`: the file, or the folder, that is at fault; `remake`:
    which artifacts of the video `--fix` has made again.
    """

    kind: FaultKind
    subject: str
    path: str
    detail: str
    remake: tuple[Kind, ...] = ()


class Broken(Exception):
    """An artifact is of no use: ends its checks, and becomes a fault of this kind."""

    def __init__(self, kind: FaultKind, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


Depth = Literal["quick", "stored", "full"]
"""quick   attributes and shapes
stored  every stored byte against its checksum, and a sample of what the bytes mean
full    everything decoded, and compared with the hash of the content"""
