"""From loaded evaluations to every number of the report. Letters: V videos, C classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.analysis.calibration import calibration, motion_effects
from pipelines.analysis.comparison import Comparison, changed_videos, compare_streams, other_sources
from pipelines.analysis.external import External, add_external, external_name, external_of, read_external
from pipelines.analysis.fusion import weight_sweep
from pipelines.analysis.label_issues import label_issues
from pipelines.analysis.published import published
from pipelines.analysis.score_files import KINDS, is_score_file
from pipelines.errors import MissingError
from pipelines.evaluation.intervals import methods
from pipelines.evaluation.metrics import (
    Scored,
    class_balance,
    class_metrics,
    confused_pairs,
    confusion_matrix,
    pooled_metrics,
    softmax,
    stream_metrics,
)
from pipelines.evaluation.scores import STREAMS
from pipelines.interface.options import Space
from pipelines.reporting.evaluations import SavedEvaluation, find_compared, require_current
from pipelines.reporting.result import Mistake, Result, SplitNumbers
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.runs import SPLIT_FIELD


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made from."""

    evaluations: Sequence[SavedEvaluation]
    """One, or one of each split."""
    tables: Sequence[Scored]
    """Their scores, with another program's streams where `external` says so."""
    external: External | None
    compared: Sequence[SavedEvaluation]
    """As many evaluations of another run, or none."""

    @property
    def headline(self) -> str:
        """The headline stream, whose accuracy is given where there is room for one number."""
        return list(self.tables[0].streams)[-1]


def load(
    workspace: Workspace,
    evaluations: Sequence[SavedEvaluation],
    compared: Sequence[SavedEvaluation] = (),
    other: Path | None = None,
    weight: float = 0.5,
    space: Space | None = None,
) -> ReportInputs:
    """Adds the scores of another program or run to those of the evaluations.

    Args:
        workspace: Where scores lie.
        evaluations: What is reported.
        compared: What it is compared with.
        other: FILE or FILE:ARRAY of another program, or RUN or RUN/PROTOCOL; may hold `{split}`.
        weight: Its share in the fused stream, 0 to 1.
        space: What is averaged; None: as `add_external` chooses.

    Raises:
        MissingError: The file or run is missing, lacks test videos, or is not of the run that has its name now.
        UsageError: It does not hold scores of these classes.
    """
    own = [evaluation.scores for evaluation in evaluations]
    if other is None:
        return ReportInputs(evaluations, own, None, compared)
    classes = own[0].classes
    if is_score_file(other):
        places = [Path(str(other).replace(SPLIT_FIELD, str(evaluation.split))) for evaluation in evaluations]
        videos = [video for scores in own for video in scores.videos]
        read = {place: read_external(place, classes, videos) for place in dict.fromkeys(places)}
        theirs = [read[place] for place in places]
    else:
        _require_run(workspace, other, evaluations)
        runs = find_compared(workspace, str(other), evaluations, "--with")
        require_current(workspace, runs)
        theirs = [external_of(one.folder, one.scores, classes) for one in runs]
    tables, external = add_external(own, theirs, external_name(other), weight, space)
    return ReportInputs(evaluations, tables, external, compared)


def _require_run(workspace: Workspace, other: Path, evaluations: Sequence[SavedEvaluation]) -> None:
    """Raises `MissingError` where the value of --with is no run's name, trained or evaluated: then a file was meant."""
    run = str(other).partition("/")[0]
    names = {run.replace(SPLIT_FIELD, str(evaluation.split)) for evaluation in evaluations}
    places = [folder / name for folder in (workspace.scores, workspace.runs) for name in names if is_plain_name(name)]
    if not any(place.is_dir() for place in places):
        raise MissingError(
            f"--with {other}: there is neither a file of that name nor a run in {workspace.root}: give a file of "
            f"scores ({', '.join(KINDS)}), or a run that `stres runs` lists"
        )


def compute(inputs: ReportInputs, name: str, output: Path) -> Result:
    """Computes every number of the report; writes nothing.

    Args:
        name: What the report calls its run or runs.
        output: Where the report's files will lie.

    Raises:
        UsageError: The compared run was tested on other videos.
    """
    evaluations, tables, headline = inputs.evaluations, inputs.tables, inputs.headline
    first, streams = evaluations[0], list(tables[0].streams)
    splits = tuple(
        SplitNumbers(one.split, one.run, len(table.videos), {name: stream_metrics([table], name) for name in streams})
        for one, table in zip(evaluations, tables, strict=True)
    )
    several = len(splits) > 1
    matrix = confusion_matrix(tables, headline)
    two_streams = {"appearance", "motion", "fused"} <= set(streams)
    sweeps = []
    if two_streams and (fusions := [one.fusion for one in evaluations if one.fusion]):
        weights = [weight for weight, _ in fusions]
        chosen_on = [one.chosen_weight.videos for one in evaluations if one.chosen_weight]
        sweeps.append(weight_sweep(tables, "appearance", "motion", weights, fusions[0][1], chosen_on))
    if two_streams and (external := inputs.external):
        weights = [external.weight] * len(tables)
        sweeps.append(weight_sweep(tables, external.name, "fused", weights, external.space))
    return Result(
        name=name,
        protocol_name=first.protocol_name,
        protocol=first.protocol,
        videos=sum(len(table.videos) for table in tables),
        unscored=sum(len(evaluation.unscored) for evaluation in evaluations),
        excluded=tuple(sorted({name for evaluation in evaluations for name in evaluation.excluded})),
        classes=tuple(first.scores.classes),
        balance=class_balance(tables),
        headline=headline,
        streams={stream: stream_metrics(tables, stream) for stream in streams} if several else splits[0].streams,
        pooled={stream: pooled_metrics(tables, stream) for stream in streams} if several else {},
        splits=splits,
        per_class=class_metrics(tables, headline),
        confused=confused_pairs(matrix, first.scores.classes),
        confusion=tuple(map(tuple, matrix.tolist())),
        mistakes=_mistakes(inputs),
        label_issues=label_issues(tables, headline),
        motion_effects=motion_effects(tables) if two_streams else (),
        fusion=tuple(sweeps),
        calibration={stream: calibration(tables, stream) for stream in streams if stream in STREAMS},
        published=published(first.scores.classes),
        external=inputs.external,
        comparison=_comparison(inputs) if inputs.compared else None,
        provenance={
            str(one.folder / "scores.h5"): {name: value for name, value in one.attributes.items() if name != "classes"}
            for one in (*evaluations, *inputs.compared)
        },
        output=str(output),
        files={},
        test_set=first.test_set,
        split_set=first.split_set,
        grouped=all(one.grouped for one in evaluations),
        interval_method=methods(len(splits)),
    )


def _mistakes(inputs: ReportInputs) -> tuple[Mistake, ...]:
    mistakes = []
    for evaluation, table in zip(inputs.evaluations, inputs.tables, strict=True):
        logits = table.streams[inputs.headline]
        probabilities, guesses = softmax(logits), logits.argmax(axis=1)
        for index in np.flatnonzero(guesses != table.labels):
            true, guess = int(table.labels[index]), int(guesses[index])
            mistakes.append(
                Mistake(
                    split=evaluation.split,
                    video=table.videos[index],
                    true=table.classes[true],
                    predicted=table.classes[guess],
                    probability=float(probabilities[index, guess]),
                    true_probability=float(probabilities[index, true]),
                )
            )
    return tuple(sorted(mistakes, key=lambda mistake: -mistake.probability))


def _comparison(inputs: ReportInputs) -> Comparison:
    """Each stream that both runs have; last, where it is none of these, the headline of both."""
    second = [evaluation.scores for evaluation in inputs.compared]
    shared = [(stream, stream) for stream in inputs.tables[0].streams if stream in second[0].streams]
    pairs = dict.fromkeys([*shared, (inputs.headline, second[0].headline)])
    names = [
        f"{', '.join(dict.fromkeys(one.run for one in evaluations))} ({evaluations[0].protocol_name})"
        for evaluations in (inputs.evaluations, inputs.compared)
    ]
    return Comparison(
        first=names[0],
        second=names[1],
        second_protocol=inputs.compared[0].protocol_name,
        videos=sum(len(table.videos) for table in inputs.tables),
        streams=tuple(compare_streams(inputs.tables, second, *pair) for pair in pairs),
        changed=changed_videos(inputs.tables, second, *list(pairs)[-1]),
        other_sources=other_sources([evaluation.scores for evaluation in inputs.evaluations], second),
    )
