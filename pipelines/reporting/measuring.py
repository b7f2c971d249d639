"""From loaded evaluations to every number of the report. Letters: V videos, C classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.analysis.calibration import calibration, motion_effects
from pipelines.analysis.comparison import Comparison, compare_streams, other_sources
from pipelines.analysis.external import External, add_external, external_name, read_external
from pipelines.analysis.fusion import Space, WeightSweep, weight_sweep
from pipelines.analysis.published import published
from pipelines.evaluation.intervals import methods
from pipelines.evaluation.metrics import (
    Scored,
    class_metrics,
    confused_pairs,
    confusion_matrix,
    pooled_metrics,
    softmax,
    stream_metrics,
)
from pipelines.evaluation.scores import STREAMS
from pipelines.reporting.evaluations import SPLIT_FIELD, Evaluation
from pipelines.reporting.result import Mistake, Result, SplitNumbers


@dataclass(frozen=True)
class Material:
    """What is reported: evaluations of one or several splits, the scores to use for each, and what stands beside them.

    `tables` are the evaluations' scores, with another program's streams where `external` says so; `compared` holds as
    many evaluations of another run, or none.
    """

    evaluations: Sequence[Evaluation]
    tables: Sequence[Scored]
    external: External | None
    compared: Sequence[Evaluation]

    @property
    def headline(self) -> str:
        """The stream a single number stands for."""
        return list(self.tables[0].streams)[-1]


def gather(
    evaluations: Sequence[Evaluation],
    compared: Sequence[Evaluation],
    file: Path | None,
    weight: float,
    space: Space | None,
) -> Material:
    """Adds the scores of `file`, whose name may hold `{split}`. Raises `MissingError`, `UsageError`."""
    own = [evaluation.scores for evaluation in evaluations]
    if file is None:
        return Material(evaluations, own, None, compared)
    paths = [Path(str(file).replace(SPLIT_FIELD, str(evaluation.split))) for evaluation in evaluations]
    videos = [video for scores in own for video in scores.videos]
    read = {path: read_external(path, own[0].classes, videos) for path in dict.fromkeys(paths)}
    tables, external = add_external(own, [read[path] for path in paths], external_name(file), weight, space)
    return Material(evaluations, tables, external, compared)


def measure(material: Material, name: str, output: Path) -> Result:
    """Every number of the report, before any file is written.

    Raises `UsageError` where the compared run was tested on other videos.
    """
    evaluations, tables, headline = material.evaluations, material.tables, material.headline
    first, streams = evaluations[0], list(tables[0].streams)
    matrix = confusion_matrix(tables, headline)
    splits = tuple(_split_numbers(one, table) for one, table in zip(evaluations, tables, strict=True))
    several = len(splits) > 1
    both = {"appearance", "motion", "fused"} <= set(streams)
    return Result(
        name=name,
        protocol_name=first.protocol_name,
        protocol=first.protocol,
        videos=sum(len(one.videos) for one in tables),
        unscored=sum(len(evaluation.unscored) for evaluation in evaluations),
        excluded=tuple(sorted({name for evaluation in evaluations for name in evaluation.excluded})),
        classes=tuple(first.scores.classes),
        headline=headline,
        streams={stream: stream_metrics(tables, stream) for stream in streams} if several else splits[0].streams,
        pooled={stream: pooled_metrics(tables, stream) for stream in streams} if several else {},
        splits=splits,
        per_class=class_metrics(tables, headline),
        confused=confused_pairs(matrix, first.scores.classes),
        confusion=tuple(tuple(int(count) for count in row) for row in matrix),
        mistakes=_mistakes(material),
        motion_effects=motion_effects(tables) if both else (),
        fusion=_sweeps(material) if both else (),
        calibration={stream: calibration(tables, stream) for stream in streams if stream in STREAMS},
        published=published(first.scores.classes),
        external=material.external,
        comparison=_comparison(material) if material.compared else None,
        provenance={str(e.folder / "scores.h5"): _without_classes(e) for e in (*evaluations, *material.compared)},
        output=str(output),
        files={},
        test_set=first.test_set,
        interval_method=methods(len(splits)),
    )


def _split_numbers(evaluation: Evaluation, table: Scored) -> SplitNumbers:
    streams = {stream: stream_metrics([table], stream) for stream in table.streams}
    return SplitNumbers(evaluation.split, evaluation.run, len(table.videos), streams)


def _without_classes(evaluation: Evaluation) -> dict[str, object]:
    return {name: value for name, value in evaluation.attributes.items() if name != "classes"}


def _mistakes(material: Material) -> tuple[Mistake, ...]:
    found = []
    for evaluation, table in zip(material.evaluations, material.tables, strict=True):
        logits = table.streams[material.headline]
        probabilities, guesses = softmax(logits), logits.argmax(axis=1)
        for index in np.flatnonzero(guesses != table.labels):
            true, guess = int(table.labels[index]), int(guesses[index])
            found.append(
                Mistake(
                    evaluation.split,
                    table.videos[index],
                    table.classes[true],
                    table.classes[guess],
                    float(probabilities[index, guess]),
                    float(probabilities[index, true]),
                )
            )
    return tuple(sorted(found, key=lambda mistake: -mistake.probability))


def _sweeps(material: Material) -> tuple[WeightSweep, ...]:
    """Of appearance against motion, and of another program's scores against ours."""
    sweeps = [weight_sweep(material.tables, "appearance", "motion")]
    if material.external is not None:
        external = material.external
        sweeps.append(weight_sweep(material.tables, external.name, "fused", external.weight, external.space))
    return tuple(sweeps)


def _comparison(material: Material) -> Comparison:
    """Each stream that both runs have; last, where it is none of these, the headline of both."""
    second = [evaluation.scores for evaluation in material.compared]
    pairs = [(stream, stream) for stream in material.tables[0].streams if stream in second[0].streams]
    headlines = material.headline, second[0].headline
    streams = tuple(compare_streams(material.tables, second, *pair) for pair in dict.fromkeys([*pairs, headlines]))
    return Comparison(
        first=_described(material.evaluations),
        second=_described(material.compared),
        second_protocol=material.compared[0].protocol_name,
        videos=sum(len(table.videos) for table in material.tables),
        streams=streams,
        other_sources=other_sources([evaluation.scores for evaluation in material.evaluations], second),
    )


def _described(evaluations: Sequence[Evaluation]) -> str:
    return f"{', '.join(dict.fromkeys(e.run for e in evaluations))} ({evaluations[0].protocol_name})"
