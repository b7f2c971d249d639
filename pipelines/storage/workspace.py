"""The paths of everything in a workspace.

Layout (docs/artifacts.md): `frames/<class>/<video>.h5`, `flow/<class>/<video>.h5`, `splits/`, `split-sets/<name>/`,
`runs/<name>/`, `scores/<run>/<protocol>/`, `features/<run>/`, `reports/`, `failures.csv`, `dataset.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pipelines.errors import MissingError

Kind = Literal["frames", "flow"]
"""Of an artifact."""
KINDS: tuple[Kind, ...] = get_args(Kind)
UNLABELLED = "unlabelled"  # the class of a video that was given without one


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace. Nothing is created until something is written."""

    root: Path

    @property
    def frames(self) -> Path:
        return self.root / "frames"

    @property
    def flow(self) -> Path:
        return self.root / "flow"

    @property
    def splits(self) -> Path:
        """The lists of the first set of splits."""
        return self.root / "splits"

    @property
    def split_sets(self) -> Path:
        """A folder of lists for each further set."""
        return self.root / "split-sets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def scores(self) -> Path:
        return self.root / "scores"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def set_aside(self) -> Path:
        """What `verify --fix` took out of `frames/` and `flow/`."""
        return self.root / "set-aside"

    @property
    def dataset_file(self) -> Path:
        return self.root / "dataset.json"

    @property
    def source_hashes_file(self) -> Path:
        """Hashes of videos that were moved or touched, so that they need not be read again."""
        return self.root / "source-hashes.json"

    @property
    def failures_file(self) -> Path:
        return self.root / "failures.csv"

    def unfinished_file(self, kind: Kind) -> Path:
        """Is there, and locked, while a command stores frames or flow; stays after one that was stopped."""
        return self.root / f"{kind}.unfinished"

    def frames_file(self, class_name: str, video: str) -> Path:
        return self.frames / class_name / f"{video}.h5"

    def flow_file(self, class_name: str, video: str) -> Path:
        return self.flow / class_name / f"{video}.h5"

    def artifact_file(self, kind: Kind, class_name: str, video: str) -> Path:
        return self.frames_file(class_name, video) if kind == "frames" else self.flow_file(class_name, video)

    def require(self) -> None:
        """Raises `MissingError` if there is no such workspace."""
        if not self.root.is_dir():
            if self.root.exists():
                raise MissingError(f"the workspace {self.root} is a file: name a folder with --workspace")
            raise MissingError(
                f"there is no workspace at {self.root}: run `stres extract-frames` and `stres extract-flow` first, "
                "or name another with --workspace"
            )


def is_plain_name(name: str) -> bool:
    """Whether `name` is that of one file or folder, and leads nowhere else."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\0"}
