"""The stage `report`: from saved scores to tables, pictures and one HTML page.

Every number is of `scores/<run>/<protocol>/`; training curves and configuration come from `runs/`, the page's
thumbnails from `frames/` and `flow/`, where these are there. Leaves its files in `reports/<run>-<protocol>/`.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Option, Space
from pipelines.interface.wording import numbered
from pipelines.reporting.result import Result
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress, note
from pipelines.storage.atomic import remove_left_over_temporary_files, require_writable
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.runs import ALL_SPLITS, DEFAULT_RUNS, SPLIT_FIELD, Run, splits_left_out

if TYPE_CHECKING:
    from pipelines.analysis.near_duplicates import NearDuplicate
    from pipelines.prediction.attention import Attention
    from pipelines.reporting.compute import ReportInputs
    from pipelines.reporting.evaluations import SavedEvaluation

THUMBNAILS = 400  # clips with pictures on the page, unless told otherwise: of UCF101 4.5 kB each, 1.8 MB
PLAYING = 12  # of these, as many as a list opens with
PAIRS = 30  # near duplicates of which both are shown
OTHERS = "Other runs and programs"


def _numbers(texts: Sequence[str]) -> tuple[int, ...] | str:
    """`["1,2", "3"]` as numbers, `["all"]` as it is. Raises `ValueError`."""
    if list(texts) == [ALL_SPLITS]:
        return ALL_SPLITS
    return tuple(int(part) for text in texts for part in text.replace(",", " ").split())


@dataclass(frozen=True)
class Config:
    """Settings of `report`."""

    workspace: options.WorkspaceFolder
    run: Annotated[
        str | None, Option(metavar="NAME", default="the newest finished run; with --splits those named split{split}")
    ] = None
    """Run, by name or folder; with --splits a pattern that contains {split}."""
    protocol: Annotated[
        str | None, Option(metavar="NAME", default="the paper's protocol of the last step, else the newest")
    ] = None
    """Evaluation, by the name of its folder."""
    splits: Annotated[
        tuple[int, ...] | Literal["all"],
        Option(
            metavar="N N N|all",
            repeated=True,
            read=_numbers,
            wanted="integers, such as 1,2,3, or all",
            distinct=True,
            trailing="name a run with --run, splits with --splits 1 2 3",
        ),
    ] = ()
    """Average over several splits, as papers do: 1 2 3 or 1,2,3, or all that were tested."""
    compare: Annotated[str | None, Option(metavar="RUN[/STEP]", group=OTHERS)] = None
    """Compare with another run, or with one of its steps or protocols, on the same videos (McNemar's exact test)."""
    with_file: Annotated[Path | None, Option(flag="--with", metavar="FILE[:ARRAY]|RUN", group=OTHERS)] = None
    """Fuse in another program's scores (CSV, npz or HDF5 with a row per video) or another run's; the name may contain
    {split}."""
    with_weight: Annotated[float, Option(metavar="SHARE", minimum=0, maximum=1, group=OTHERS)] = 0.5
    """Weight of these scores, 0 to 1."""
    with_space: Annotated[Literal["auto", Space], Option(group=OTHERS)] = "auto"
    """What to average: logits, softmax, l2 (L2-normalised scores, as ST-ResNet with IDT), or auto (softmax if the file
    holds probabilities, else logits)."""
    thumbnails: Annotated[int, Option(metavar="N", minimum=0)] = THUMBNAILS
    """Maximum number of clips shown with pictures on the page."""
    playing: Annotated[int, Option(metavar="N", minimum=0)] = PLAYING
    """Maximum number of these that play, the most confident mistakes first."""
    attention: bool = False
    """Show in the clips that play what speaks for the predicted class (puts them through the network once more)."""
    device: options.DeviceName = "auto"
    near_duplicates: bool = False
    """Also find videos in training and test with near-identical middle frames (reads a frame of every video)."""
    publication: bool = False
    """Also write every figure as SVG and PDF."""
    output: Annotated[Path | None, Option(metavar="DIR", default="a folder in the workspace's reports/")] = None
    """Folder for the report."""

    def __post_init__(self) -> None:
        options.check(self)
        if self.with_file is None:
            for flag, value in (("weight", self.with_weight), ("space", self.with_space)):
                if value != getattr(Config, f"with_{flag}"):
                    raise UsageError(f"--with-{flag} {value} goes with --with only")
        is_folder = self.run is not None and (Path(self.run) / "config.json").is_file()
        names = [("--run", None if is_folder else self.run), ("--protocol", self.protocol)]
        for flag, name in names:
            if name is not None and not is_plain_name(name):
                raise UsageError(f"{flag} {name!r} is not a name: give the name of a folder under scores/, not a path")
        if self.compare is not None and not all(map(is_plain_name, self.compare.split("/", 1))):
            raise UsageError(
                f"--compare {self.compare!r} is not a name, nor RUN/PROTOCOL: give the name of a folder under scores/, "
                "not a path"
            )
        for flag, pattern in (("--run", self.run), ("--compare", self.compare)):
            if self.splits and pattern is not None and "{split}" not in pattern:
                raise UsageError(
                    f"{flag} {pattern!r} names one run, but --splits asks for several: put {{split}} in the place of "
                    f"the split's number, as in {flag} my-run-{{split}}"
                )


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Computes the report's numbers from saved scores, and writes its files.

    Raises:
        MissingError: Nothing was evaluated, or other scores are missing.
        ArtifactError: Scores are damaged.
        UsageError: Splits cannot be averaged, or runs not be compared.
        StorageError: Writing fails.
    """
    from pipelines.analysis.score_files import is_score_file
    from pipelines.reporting.compute import compute, load
    from pipelines.reporting.evaluations import find_compared, find_evaluations, require_current, tested_splits
    from pipelines.reporting.training_log import findings, read_configurations, read_curves

    workspace = Workspace(config.workspace)
    wanted = tested_splits(workspace, config.run) if isinstance(config.splits, str) else config.splits
    evaluations = find_evaluations(workspace, config.run, config.protocol, wanted, lambda text: on_progress(note(text)))
    compared = find_compared(workspace, config.compare, evaluations) if config.compare else []
    require_current(workspace, [*evaluations, *compared])
    space = None if config.with_space == "auto" else config.with_space
    inputs = load(workspace, evaluations, compared, config.with_file, config.with_weight, space)
    # These load torch and matplotlib, which would only delay the refusals above.
    from pipelines.reporting import files, html
    from pipelines.reporting.thumbnails import middle_frame, thumbnails

    name = evaluations[0].run
    if config.splits:
        name = (config.run or DEFAULT_RUNS).replace(SPLIT_FIELD, "+".join(map(str, wanted)))
    # Named after what was fused in, and how, or compared, too: reports of different content do not overwrite another.
    folder = name
    if inputs.external is not None:
        folder += f"+{_plain(inputs.external.name)}"
        if config.with_weight != Config.with_weight:
            folder += f"-{config.with_weight:g}"
        if space is not None:
            folder += f"-{space}"
    if config.compare:
        folder += f"-vs-{_plain(config.compare)}"
    other = config.with_file
    if other is not None and is_score_file(other):
        other = other.absolute()
    beside = " ".join(str(each) for each in (other, config.compare) if each)
    output = config.output or _free_folder(workspace.reports / f"{folder}-{evaluations[0].protocol_name}", beside)
    require_writable(output)
    configurations = read_configurations(workspace, [one.run for one in evaluations])
    curves = read_curves(workspace, configurations)
    result = dataclasses.replace(
        compute(inputs, name, output), training=tuple(findings(workspace, configurations, curves))
    )
    if config.near_duplicates:
        pairs, groups = _near_duplicates(workspace, evaluations, on_progress)
        result = dataclasses.replace(result, near_duplicates=pairs, near_duplicate_groups=groups)
    look = _attention(workspace, evaluations, inputs, config.device) if config.attention else lambda index: None
    if config.splits == ALL_SPLITS:
        left_out = splits_left_out(workspace, result.split_set, wanted)
        result = dataclasses.replace(result, splits_left_out=tuple(left_out))

    def make_page(names: Collection[str]) -> str:
        sources = {
            video: source
            for one in evaluations
            for video, source in zip(one.scores.videos, one.scores.sources or [], strict=False)
        }

        def on_clip(done: int, total: int) -> None:
            on_progress(Progress("thumbnails", done, total))

        pictures = thumbnails(workspace, inputs.tables, config.thumbnails, on_clip, sources, config.playing, look)
        pairs = (result.near_duplicates or ())[:PAIRS]
        duplicates = {video: middle_frame(workspace, video) for one in pairs for video in (one.first, one.second)}
        others = read_configurations(workspace, [one.run for one in compared])
        return html.page(result, inputs, curves, pictures, configurations | others, names, beside, duplicates)

    if workspace.reports.is_dir():
        remove_left_over_temporary_files(workspace.reports)
    written = files.write(output, files.contents(result, inputs, curves, make_page, config.publication), on_progress)
    return dataclasses.replace(result, files=written)


def _attention(
    workspace: Workspace, evaluations: "Sequence[SavedEvaluation]", inputs: "ReportInputs", device: str
) -> "Callable[[int], Attention | None]":
    """What speaks for the class that the report's headline stream predicts, by the clip's index. Raises
    `MissingError`, `UsageError`."""
    from pipelines.reporting.attention import ClipAttention
    from pipelines.runtime.devices import device_for

    networks = [ClipAttention(workspace, one, device_for(device, "fp32")) for one in evaluations]
    clips = [
        (network, video, int(guess))
        for network, table in zip(networks, inputs.tables, strict=True)
        for video, guess in zip(table.videos, table.streams[inputs.headline].argmax(axis=1), strict=True)
    ]

    def look(index: int) -> "Attention | None":
        network, video, guess = clips[index]
        return network.look(video, guess)

    return look


def _near_duplicates(
    workspace: Workspace, evaluations: "Sequence[SavedEvaluation]", on_progress: OnProgress
) -> "tuple[tuple[NearDuplicate, ...], dict[str, str]]":
    """Of the videos that were tested and of those that the runs were trained on; and the groups of all of them, where
    near duplicates have one. Raises `MissingError`, and `UsageError` where the groups of the splits do not fit."""
    from pipelines.analysis.near_duplicates import joined_groups, near_duplicates
    from pipelines.datasets.groups import groups_of
    from pipelines.datasets.splits import groups_in_use, sets_of_splits

    if not workspace.frames.is_dir():
        raise MissingError(
            f"--near-duplicates needs frames, and {workspace.frames} has none: run `stres extract-frames`"
        )
    if absent := [one.run for one in evaluations if not (workspace.runs / one.run).is_dir()]:
        raise MissingError(
            f"--near-duplicates needs to know the videos that {', '.join(absent)} was trained on, and {workspace.runs} "
            "does not hold it: report a run that was trained here"
        )
    made_from = [Run(workspace.runs / one.run).split() for one in evaluations]
    splits = [
        (one.split, split.train, [*one.scores.videos, *one.unscored])
        for one, split in zip(evaluations, made_from, strict=True)
    ]
    pairs = near_duplicates(workspace, splits, lambda done, total: on_progress(Progress("compare", done, total)))
    videos = sorted({video for _, train, test in splits for video in (*train, *test)})
    if not pairs:
        return pairs, {}
    folder = sets_of_splits(workspace).get(made_from[0].set_name)  # a run's own split does not keep the groups
    return pairs, joined_groups(groups_of(videos, groups_in_use(folder) if folder else None), pairs)


def _free_folder(folder: Path, beside: str) -> Path:
    """The folder, with a number behind its name where it holds the report with another file or run beside it."""
    from pipelines.reporting.html import beside_in

    folders = (folder.with_name(name) for name in numbered(folder.name))
    return next(each for each in folders if beside_in(each / "report.html") in ("", beside))


def _plain(text: str) -> str:
    """As part of a file name."""
    return re.sub(r"[^\w.+-]+", "-", text.replace(SPLIT_FIELD, "N")).strip("-")
