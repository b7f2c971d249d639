"""What a workspace holds of the test side of a run's split: the videos to score, and everything that cannot be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.datasets.catalogue import Video, flow_provenance, load_catalogue
from pipelines.datasets.splits import resolve
from pipelines.errors import MissingError, UsageError
from pipelines.progress import OnProgress, Progress
from pipelines.training.configuration import first_difference, other_sources
from pipelines.training.runs import Run
from pipelines.workspace import Failure, Workspace


@dataclass(frozen=True)
class TestVideos:
    """Each test video of the split stands in one of three lists: `videos`, `missing`, `damaged`.

    videos, labels  those to score, in the order of the split, and the index of each one's class
    training        the training videos of the split
    missing         ids of those without frames or without flow
    damaged         those whose frames or flow are there, but are not what they should be
    replaced        in words, which training videos are others now than when the run was trained
    """

    __test__ = False  # no test, whatever pytest makes of the name

    videos: list[Video]
    labels: list[int]
    training: list[Video]
    missing: list[str]
    damaged: list[Failure]
    replaced: str

    def tell(self, on_progress: OnProgress) -> None:
        """Reports those that will not be scored."""
        total = len(self.videos) + len(self.missing) + len(self.damaged)
        messages = [not_scored(row) for row in self.damaged]
        if self.missing:
            example = f"for example {self.missing[0]}"
            messages.append(f"{len(self.missing)} of {total} test videos have no frames or no flow, {example}")
        if self.replaced:
            messages.append(f"the run was trained on other videos than are stored now: {self.replaced}")
        for message in messages:
            on_progress(Progress("evaluate", 0, len(self.videos), message=message))

    def why_none(self, failures: list[Failure]) -> str:
        """Why nothing is left to score when `failures` came of everything that was there."""
        reasons = [f"{len(self.missing)} have no frames or no flow"] if self.missing else []
        reasons += [f"{len(failures)} cannot be read, for example: {failures[0].reason}"] if failures else []
        return " and ".join(reasons)


def find_test_videos(
    workspace: Workspace, run: Run, settings: Mapping[str, Any], force: bool, *, write: bool = True
) -> TestVideos:
    """The test videos of `run`, whose `config.json` holds `settings`. Without `write`, `dataset.json` stays as it is.

    Raises `UsageError` where the workspace's flow is not what the run was trained with, unless `force`; `MissingError`
    without a workspace.
    """
    catalogue = load_catalogue(workspace, write=write)
    if not force:
        _require_same_flow(workspace, run, settings["flow"], flow_provenance(catalogue))
    split = resolve(run.split(), catalogue)
    replaced = other_sources(run, _sources(split.test))
    if replaced and not force:
        raise UsageError(
            f"run {run.name} is to be tested on other videos than it was trained beside: {replaced}; train again, or "
            "accept the difference with --force"
        )
    label = {name: index for index, name in enumerate(settings["classes"])}
    strange = sorted({video.class_name for video in split.test} - label.keys())
    if strange:
        raise MissingError(
            f"{run.split_file} names videos of class {strange[0]!r}, which {run.config_file} does not have: restore "
            "both, or train the run again"
        )
    damaged = {f"{row.class_name}/{row.video}": replace(row, stage="evaluate") for row in catalogue.problems}
    return TestVideos(
        videos=split.test,
        labels=[label[video.class_name] for video in split.test],
        training=split.train,
        missing=[id_ for id_ in split.missing_test if id_ not in damaged],
        damaged=[damaged[id_] for id_ in split.missing_test if id_ in damaged],
        replaced=other_sources(run, _sources(split.train)),
    )


def _sources(videos: Sequence[Video]) -> dict[str, str]:
    return {video.id: video.source_sha256 for video in videos if video.source_sha256}


def _require_same_flow(workspace: Workspace, run: Run, trained: dict[str, Any], found: dict[str, Any]) -> None:
    difference = first_difference(trained, found)
    if found and difference:  # without any flow the videos are missing, which has a message of its own
        raise UsageError(
            f"run {run.name} was trained with other flow than {workspace.root} holds: {difference}; extract the flow "
            "as it was, or accept the difference with --force"
        )


def not_scored(row: Failure) -> str:
    """The line about a video that is left out."""
    return f"not scored: {row.class_name}/{row.video}: {row.reason}"
