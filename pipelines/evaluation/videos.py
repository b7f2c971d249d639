"""What a workspace holds of the test side of a run's split: the videos to score, and everything that cannot be."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.datasets.catalogue import Catalogue, Video, flow_provenance, lack_of, load_catalogue, origins_of
from pipelines.datasets.splits import ResolvedSplit, in_no_split, labelled, resolve, what_they_lack
from pipelines.datasets.video_names import spelled_as
from pipelines.errors import MissingError, UsageError
from pipelines.interface.options import BOTH_STREAMS, StreamName
from pipelines.interface.wording import plural, some
from pipelines.runtime.progress import OnProgress, note
from pipelines.sources.videos import class_counts
from pipelines.storage.failures import Failure
from pipelines.storage.provenance import same_origin
from pipelines.storage.workspace import UNLABELLED, Workspace
from pipelines.training.run_config import RunConfig
from pipelines.training.runs import Run, other_sources


@dataclass(frozen=True)
class TestVideos:
    """Each test video of the split stands in one of three lists: `videos`, `missing`, `damaged`."""

    __test__ = False  # no test, whatever pytest makes of the name

    videos: list[Video]
    """Those to score, in the order of the split."""
    labels: list[int]
    """The index of each one's class."""
    training: list[Video]
    """The training videos of the split."""
    held_apart: list[Video]
    """Those that it keeps for validation."""
    missing: list[str]
    """Ids of those without frames or without flow."""
    damaged: list[Failure]
    """Those whose frames or flow are there, but are not what they should be."""
    replaced: str
    """In words, which training videos are others now than when the run was trained."""
    unlisted: Sequence[str] = ()
    """Ids of the workspace's videos that the split names nowhere."""
    is_other: bool = False
    """Whether these are another data set: all labelled videos of the workspace whose classes the run knows by name."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Then the other classes, each with its number of videos."""
    without_videos: Sequence[str] = ()
    """The run's classes that have no test video."""
    lack: str = ""
    """What is known of why videos are missing, and what to do."""
    streams: Collection[StreamName] = BOTH_STREAMS
    """Those of the network."""

    def document(self) -> dict[str, Any]:
        """What `results.json` keeps of another data set."""
        if not self.is_other:
            return {}
        return {
            "dataset": "other",
            "left_out": dict(self.left_out),
            "classes_without_videos": list(self.without_videos),
        }

    def tell(self, on_progress: OnProgress) -> None:
        """Reports those that will not be scored."""
        total = len(self.videos) + len(self.missing) + len(self.damaged)
        messages = [f"test: {class_counts(Counter(video.class_name for video in self.videos))}"]
        messages += [not_scored(row) for row in self.damaged]
        if self.missing:
            example = f"for example {self.missing[0]}" + (f"; {self.lack}" if self.lack else "")
            have = "has" if len(self.missing) == 1 else "have"
            messages.append(
                f"{len(self.missing)} of {plural(total, 'test video')} {have} {lack_of(self.streams)}, {example}"
            )
        if self.replaced:
            messages.append(f"the run was trained on other videos than are stored now: {self.replaced}")
        if self.is_other:
            messages.insert(
                0, "tested on another data set: all labelled videos of the workspace, none of the run's split"
            )
        if self.left_out:
            counted = ", ".join(f"{name} ({number})" for name, number in self.left_out.items())
            messages.append(f"left out, since the run does not know their classes: {counted}")
        if self.without_videos:
            named = some(self.without_videos, 10)
            have = "has" if len(self.without_videos) == 1 else "have"
            messages.append(f"{len(self.without_videos)} of the run's classes {have} no test video: {named}")
        if self.unlisted:
            messages.append(in_no_split(self.unlisted, "the run's split"))
        for message in messages:
            on_progress(note(message))


def find_test_videos(
    workspace: Workspace,
    run: Run,
    config: RunConfig,
    force: bool,
    *,
    streams: Collection[StreamName] = BOTH_STREAMS,
    write: bool = True,
) -> TestVideos:
    """Finds the videos of the run's split, or all labelled ones where the workspace has none of the split's videos.

    Args:
        workspace: Where frames and flow lie.
        streams: Those of the network to be tested.
        force: Accept other flow and other videos than the run was trained with.
        write: Whether `dataset.json` is brought up to date.

    Raises:
        MissingError: There is no workspace, or nothing to test on.
        UsageError: The workspace's flow or videos are not what the run was trained with.
    """
    catalogue = load_catalogue(workspace, write=write)
    if not force and "motion" in streams:
        flow = flow_provenance(catalogue)  # without any its videos are missing, as another line says
        if flow and (difference := flow.difference(config.flow)):
            raise UsageError(
                f"run {run.name} was trained with other flow than {workspace.root} holds: {difference}; extract the "
                "flow as it was, or accept the difference with --force"
            )
    split = resolve(run.split(), catalogue, config.excluded_classes, streams)
    if catalogue.videos and not _has_videos_of(run, config, split, workspace, catalogue):
        return _other_videos(run, config.classes, catalogue, streams)
    if not split.test and not split.missing_test:
        raise MissingError(
            f"the split of run {run.name} has no test video ({run.split_file}): there is nothing to evaluate; train on "
            "a split whose test list names some, or give single videos to `stres predict`"
        )
    replaced = other_sources(run, origins_of(split.test))
    if replaced and not force:
        raise UsageError(
            f"run {run.name} is to be tested on other videos than it was trained beside: {replaced}; train again, or "
            "accept the difference with --force"
        )
    label = class_finder(config.classes)
    found = {video.class_name: label(video.class_name) for video in split.test}
    if strange := sorted(name for name, index in found.items() if index is None):
        raise MissingError(
            f"{run.split_file} names videos of class {strange[0]!r}, which {run.config_file} does not have: restore "
            "both, or train the run again"
        )
    damaged = {row.id: replace(row, stage="evaluate") for row in catalogue.problems}
    missing = [id_ for id_ in split.missing_test if id_ not in damaged]
    return TestVideos(
        videos=split.test,
        labels=[index for video in split.test if (index := found[video.class_name]) is not None],
        training=split.train,
        held_apart=split.held_apart,
        missing=missing,
        damaged=[damaged[id_] for id_ in split.missing_test if id_ in damaged],
        unlisted=split.unlisted,
        lack=what_they_lack(missing, catalogue),
        replaced=other_sources(run, origins_of(split.train)),
        streams=streams,
        without_videos=[name for index, name in enumerate(config.classes) if index not in found.values()],
    )


def held_out_videos(test: TestVideos, run: Run, config: RunConfig) -> TestVideos:
    """The videos that were held out of the run's training, in place of its test videos.

    Raises:
        MissingError: There are none, it is not known which they are, or the workspace has none of them.
    """
    ids, instead = run.held_out(), "give a number as --fusion-weight"
    if not config.validation:
        raise MissingError(
            f"no videos were held out of the training of run {run.name} to choose a weight on: train with "
            f"--validation, or {instead}"
        )
    if ids is None:
        raise MissingError(
            f"run {run.name} does not tell which videos were held out of its training, since an older version began "
            f"it: give its `stres train` command once more, which adds them, or {instead}"
        )
    held, spelled, label = set(ids), spelled_as([*run.split().train, *ids]), class_finder(config.classes)
    found = [
        (video, label(video.class_name)) for video in (*test.training, *test.held_apart) if spelled(video.id) in held
    ]
    pairs = [(video, index) for video, index in found if index is not None]
    if not pairs:
        raise MissingError(
            f"the workspace has none of the {plural(len(ids), 'video')} held out of the training of run {run.name}: "
            f"{instead}"
        )
    videos, labels = zip(*pairs, strict=True)
    return replace(test, videos=list(videos), labels=list(labels), damaged=[])


def _has_videos_of(
    run: Run, config: RunConfig, split: ResolvedSplit, workspace: Workspace, catalogue: Catalogue
) -> bool:
    """Whether the workspace holds a video of the run's split, usable or not. For a run that lies elsewhere one of the
    same name does not do, where what it was made from is known to be another."""
    unlisted = set(split.unlisted)
    named = [video for video in labelled(catalogue, config.excluded_classes) if video.id not in unlisted]
    if not run.lies_in(workspace):
        known = run.sources_of(video.id for video in named)
        named = [video for video in named if same_origin(known.get(video.id, video.origin), video.origin)]
    missing = {*split.missing_train, *split.missing_test}
    return bool(named) or any(row.id in missing for row in catalogue.problems)


def class_finder(classes: Sequence[str]) -> Callable[[str], int | None]:
    """Gives the index of a class by its name, upper and lower case alike where that is unambiguous; None: none."""
    spelled, index = spelled_as(classes), {name: number for number, name in enumerate(classes)}
    return lambda name: index.get(spelled(name) or "")


def _other_videos(
    run: Run, classes: Sequence[str], catalogue: Catalogue, streams: Collection[StreamName]
) -> TestVideos:
    """All labelled videos whose class the run knows by name."""
    known = class_finder(classes)
    videos = labelled(catalogue)
    test = [video for video in videos if known(video.class_name) is not None]
    left_out = Counter(video.class_name for video in videos if known(video.class_name) is None)
    damaged = [row for row in catalogue.problems if known(row.class_name) is not None]
    if not test and not damaged:
        raise MissingError(
            f"the workspace holds no video of the split of run {run.name}, nor of a class it knows: it has "
            f"{some(sorted(left_out) or [UNLABELLED])}, the run knows {some(classes)}"
        )
    usable = [video for video in test if video.has(streams)]
    labels = [known(video.class_name) for video in usable]
    found = {known(video.class_name) for video in test}
    return TestVideos(
        videos=usable,
        labels=[index for index in labels if index is not None],
        training=[],
        held_apart=[],
        missing=[video.id for video in test if not video.has(streams)],
        damaged=[replace(row, stage="evaluate") for row in damaged],
        replaced="",
        is_other=True,
        left_out=left_out,
        streams=streams,
        without_videos=[name for index, name in enumerate(classes) if index not in found],
    )


def not_scored(row: Failure) -> str:
    """The line about a video that is left out."""
    return f"not scored: {row.id}: {row.reason}"
