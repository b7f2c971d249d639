"""Whether the splits in use can be read, name videos that are there, and keep groups on one side."""

from collections.abc import Mapping, Sequence

from pipelines.datasets.catalogue import Catalogue
from pipelines.datasets.dataset_file import video_id
from pipelines.datasets.split_lists import Split, list_files
from pipelines.datasets.splits import resolve, splits_in_use
from pipelines.errors import StresError
from pipelines.verification.faults import Fault, some
from pipelines.workspace import Failure, Workspace


def check_splits(workspace: Workspace, catalogue: Catalogue, failures: Sequence[Failure]) -> list[Fault]:
    """The faults of all splits in use. `catalogue` lists the videos whose files are there, sound or not; `failures`
    may say why others are not."""
    if not list_files(workspace.splits):
        return []
    reasons = {video_id(row.class_name, row.video): f"{row.stage}: {row.reason}" for row in failures}
    try:
        return [
            fault
            for split in splits_in_use(workspace.splits)
            for fault in _faults(split, workspace, catalogue, reasons)
        ]
    except StresError as error:
        return [Fault("splits", "splits", str(workspace.splits), str(error))]


def in_no_split(workspace: Workspace, catalogue: Catalogue) -> list[str]:
    """Ids of the videos that no split in use names; none without splits, or where they cannot be read."""
    if not list_files(workspace.splits):
        return []
    try:
        left_out = [set(resolve(split, catalogue).unlisted) for split in splits_in_use(workspace.splits)]
    except StresError:
        return []  # a fault of its own
    return sorted(set.intersection(*left_out))


def _faults(split: Split, workspace: Workspace, catalogue: Catalogue, reasons: Mapping[str, str]) -> list[Fault]:
    resolved = resolve(split, catalogue)
    absent = [*resolved.missing_train, *resolved.missing_test]
    faults = []
    if absent:
        named = some([f"{id_} ({reasons[id_]})" if id_ in reasons else id_ for id_ in absent])
        of = len(split.train) + len(split.test)
        detail = f"names {of} videos, of which {len(absent)} have no frames or no flow: {named}"
        faults.append(Fault("split names absent videos", split.name, str(workspace.splits), detail))
    if resolved.leaking_groups:
        detail = f"has videos of {len(resolved.leaking_groups)} groups on both sides: {some(resolved.leaking_groups)}"
        faults.append(Fault("group on both sides", split.name, str(workspace.splits), detail))
    return faults
