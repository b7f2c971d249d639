"""What the accuracy benchmarks share: cells of a table, trained and tested one by one, each test a line of JSON.

A cell is a variant of the training on one data set, fold and seed. Lines that are there are not computed again, so a
benchmark is called as often as there is time, on whatever machine. Base streams are trained once a fold and seed and
shared by all variants that have the same.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pipelines import evaluate, extract_flow, extract_frames, train
from pipelines.datasets.groups import group_of
from pipelines.datasets.split_lists import GroupRule, Split
from pipelines.evaluation.scores import read_scores
from pipelines.storage.workspace import Workspace
from pipelines.training.recipes import Step

STREAMS = ("appearance", "motion", "fused")
SEEDS = (0, 1, 2)
BASE = ("appearance", "motion")
STEPS = {"motion": ("motion",)}  # that a base run trains for a tested step, where they are not both
JOINT_STEPS = {"joint1": ("joint1",), "joint2": ("joint1", "joint2"), "student": ("joint1", "student")}
TESTED = STEPS | {"student": ("appearance",)}  # the streams of a tested step, where they are not all
TEMPORALS = ("sequence", "windows")  # from one pass over the videos
CLIPS = "clips"
RECALIBRATED = "sequence, recalibrated"
WEIGHTED = "sequence, streams weighted by the held-out videos"
RECALIBRATION_VIDEOS = 1000  # all of these data sets' training videos
# The fields of a step when the first lines were written; later ones count only where they are not their default.
FIRST_FIELDS = (
    *("name", "lr", "schedule", "epochs", "factor", "batch_size", "micro_batch", "frames", "stride", "dropout"),
    *("augmentation", "mirror", "temporal_pool", "iterations", "momentum", "nesterov", "weight_decay"),
    "label_smoothing",
)
TESTS = (*TEMPORALS, CLIPS, RECALIBRATED, WEIGHTED)
Line = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Of `train`, for the joint network."""
    step: str = "joint1"
    """The one that is tested."""
    tests: tuple[str, ...] = (*TEMPORALS, RECALIBRATED)
    training: dict[str, Any] = field(default_factory=dict)
    """Of `train`, for the base streams too; `base` is then these streams' name."""
    base: str = ""
    run_of: str = ""
    """The variant whose joint1 it goes on from, as joint2; of a student: whose joint network it learns from, which is
    there."""

    @property
    def streams(self) -> tuple[str, ...]:
        return TESTED.get(self.step, STREAMS)


@dataclass(frozen=True)
class Data:
    """A data set of the table, and its flow. `training`: what is the same in all its cells."""

    name: str
    folds: tuple[int, ...]
    training: dict[str, Any]
    flow: dict[str, Any]
    variants: dict[str, Variant]
    splits: str | None = "splits3"
    """The folder of `--data` that the folds are read from; None: they are made in the workspace."""
    testing: dict[str, Any] = field(default_factory=dict)
    """Of `evaluate`."""
    clips: tuple[int, int] | None = None
    """Of a synthetic set: training and test clips of a class."""


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def options(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds the options that the benchmarks share; `name` is the benchmark's."""
    parser.add_argument("--workspace", type=Path, default=Path(f"{name}-work"))
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name(f"{name}.jsonl"))
    parser.add_argument("--folds", type=numbers, help="default: all")
    parser.add_argument("--seeds", type=numbers, default=SEEDS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so many")
    parser.add_argument("--device", default="auto")


# ------------------------------------------------------------------ one cell


def compute(
    data: Data,
    name: str,
    fold: int,
    seed: int,
    arguments: argparse.Namespace,
    *,
    prepare: Callable[[], Workspace],
    splits: Path | None,
    tests: Iterable[str] = TESTS,
    files: Mapping[str, str | Path] | None = None,
    record: Callable[[Path], Line] = lambda folder: {},
) -> None:
    """Trains and tests what `--results` does not hold of one cell.

    Args:
        data: Whose cell it is.
        name: Of the variant.
        fold: The number of the split.
        seed: Of the training.
        arguments: `results` and `device` of them.
        prepare: Makes the workspace, or finds it.
        splits: The folder of the split lists; None for the workspace's.
        tests: Those wanted, of the variant's.
        files: Files by the names that settings of the training have for them.
        record: What a line holds besides the counts, from the folder of the scores.
    """
    variant = data.variants[name]
    cell = {"data": data.name, "cell": name, "fold": fold, "seed": seed, "recipe": digest(data, name)}
    done = [{key: line.get(key) for key in (*cell, "test")} for line in read(arguments.results)]
    wanted = [test for test in variant.tests if test in tests and cell | {"test": test} not in done]
    if not wanted:
        return
    workspace = prepare()
    base = f"fold{fold}-seed{seed}{variant.base and '-'}{variant.base}"
    shared: dict[str, Any] = {"workspace": workspace.root, "device": arguments.device}
    training = merged(data.training, variant.training)
    training |= {key: files[training[key]] for key in ("weights", "validation") if files and training.get(key) in files}
    training |= {**shared, "split": fold, "splits": splits, "seed": seed}
    started = time.monotonic()
    train.run(train.Config(**training, name=base, steps=STEPS.get(variant.step, BASE)))
    run = base
    if variant.step in JOINT_STEPS:
        run, begins, steps = f"{base}-{variant.run_of or name}", base, JOINT_STEPS[variant.step]
        if variant.step == "student":  # a run of its own, from a joint network that is there
            run, begins, steps = f"{base}-{name}", run, ("student",)
        train.run(train.Config(**merged(training, variant.settings), name=run, steps=steps, base_run=begins))
    seconds = time.monotonic() - started
    for together, settings in passes(wanted):
        result = evaluate.run(evaluate.Config(**shared, **data.testing, run=run, step=variant.step, **settings))
        for test, evaluation in zip(together, result.evaluations, strict=True):
            found = counts(evaluation.folder) | record(evaluation.folder)
            line = cell | {"test": test, **found, "seconds": round(seconds), "when": today()}
            append(arguments.results, line)
            print(json.dumps(line), flush=True)


def merged(*settings: Mapping[str, Any]) -> dict[str, Any]:
    """The later ones count; what they change of a step's settings is put together."""
    together = {name: value for one in settings for name, value in one.items()}
    overrides: dict[str, dict[str, Any]] = {}
    for one in settings:
        for step, changes in one.get("overrides", {}).items():
            overrides[step] = overrides.get(step, {}) | changes
    return together | ({"overrides": overrides} if overrides else {})


def passes(tests: Sequence[str]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The tests that one pass over the videos serves, and its settings."""
    temporals = [test for test in tests if test in (*TEMPORALS, CLIPS)]
    if temporals:
        yield temporals, {"temporal": tuple(temporals)}
    if RECALIBRATED in tests:
        yield [RECALIBRATED], {"temporal": "sequence", "recalibrate_bn": RECALIBRATION_VIDEOS}
    if WEIGHTED in tests:
        yield [WEIGHTED], {"temporal": "sequence", "fusion_weight": "held-out"}


def extract(workspace: Workspace, videos: Path, flow: Mapping[str, Any]) -> None:
    """Stores the frames and the flow that are not there; the frames at the flow's short side, where it has one."""
    short_side = {"short_side": flow["short_side"]} if "short_side" in flow else {}
    extract_frames.run(extract_frames.Config(workspace.root, str(videos), **short_side))
    extract_flow.run(extract_flow.Config(workspace.root, str(videos), **flow))


def held_out(split: Split, groups: GroupRule, first: int = 1) -> Split:
    """Every third of a split's training groups, from number `first` on, tests what the others train; the split's own
    test videos take no part."""

    def group(id_: str) -> str:
        return group_of(*id_.split("/"), groups) or id_

    tested = sorted({group(id_) for id_ in split.train})[first::3]
    train_ids, test_ids = ([id_ for id_ in split.train if (group(id_) in tested) == test] for test in (False, True))
    return replace(split, train=train_ids, test=test_ids, source="training groups held out")


def digest(data: Data, name: str) -> str:
    """Short hash of everything a cell's result depends on: a changed recipe makes old lines count no more."""
    variant = data.variants[name]
    config = train.Config(Path(), **merged(data.training, variant.training))
    names = (*STEPS.get(variant.step, BASE), *JOINT_STEPS.get(variant.step, ()))
    recipe = [text_of(config.step(step)) for step in names]
    rest = [config.depth or config.base.depth, config.width or config.base.width, config.size or config.base.size]
    content = [recipe, "full batches", rest, data.flow, variant.settings, list(data.clips or ())]
    content += [part for part in (variant.training, data.testing) if part]
    text = json.dumps(content).replace('"center"', '"centre"')  # as it was once spelled
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def text_of(step: Step) -> str:
    """A step as the first lines had it, so that a field that came later, or has another name now, changes nothing."""
    kept = [one for one in fields(step) if one.name in FIRST_FIELDS or getattr(step, one.name) != one.default]
    text = ", ".join(f"{one.name}={getattr(step, one.name)!r}" for one in kept)
    return f"Step({text})".replace("augmentation=", "crops=").replace("'center'", "'centre'")


def counts(folder: Path) -> Line:
    """How many videos each stream has right, of how many."""
    scores = read_scores(folder / "scores.h5")
    right = {name: int((logits.argmax(1) == scores.labels).sum()) for name, logits in scores.streams.items()}
    return {"right": right, "videos": len(scores.videos)}


def today() -> str:
    return time.strftime("%Y-%m-%d")


def read(path: Path) -> list[Line]:
    """The lines there are; a last one that was cut short is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def append(path: Path, line: Line) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# ------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Row:
    """One variant under one test: for each seed that has all folds, the share of videos each stream has right."""

    data: Data
    name: str
    test: str
    found: dict[tuple[int, int], Line]
    """By fold and seed."""

    @property
    def variant(self) -> Variant:
        return self.data.variants[self.name]

    @property
    def seeds(self) -> list[int]:
        """Those that have all folds."""
        return [seed for seed in SEEDS if all((fold, seed) in self.found for fold in self.data.folds)]

    @property
    def accuracy(self) -> dict[str, list[float]]:
        return {
            stream: [self._pooled([self.found[fold, seed] for fold in self.data.folds], stream) for seed in self.seeds]
            for stream in self.variant.streams
        }

    @property
    def missing(self) -> list[str]:
        cells = [(fold, seed) for seed in SEEDS for fold in self.data.folds]
        return [f"fold {fold} seed {seed}" for fold, seed in cells if (fold, seed) not in self.found]

    @staticmethod
    def _pooled(lines: Sequence[Line], stream: str) -> float:
        return sum(line["right"][stream] for line in lines) / sum(line["videos"] for line in lines)


def rows(lines: Sequence[Line], tables: Iterable[Data]) -> Iterator[Row]:
    """All rows of the tables, those without any result too."""
    for data in tables:
        for name, variant in data.variants.items():
            current = [x for x in lines if (x["data"], x["cell"], x["recipe"]) == (data.name, name, digest(data, name))]
            for test in variant.tests:
                yield Row(data, name, test, {(x["fold"], x["seed"]): x for x in current if x["test"] == test})


def show(every: Sequence[Row]) -> None:
    """Prints the tables in Markdown, and the cells that are missing."""
    for name in dict.fromkeys(row.data.name for row in every if row.seeds):
        print(f"\n{name}: mean over seeds of the share of all folds' test videos (spread: lowest to highest)\n")
        print("| network | test | seeds | appearance | motion | fused |\n|---|---|---|---|---|---|")
        for row in every:
            if row.data.name == name and row.seeds:
                values = " | ".join(shown(row.accuracy.get(stream, [])) for stream in STREAMS)
                print(f"| {row.variant.title} | {row.test} | {len(row.seeds)} | {values} |")
    missing = [row for row in every if row.missing]
    print("\nnot yet computed:" if missing else "\nnothing is missing")
    for row in missing:
        cells = ", ".join(row.missing) if len(row.missing) <= 3 else f"{len(row.missing)} cells"
        print(f"* {row.data.name}: {row.variant.title}, {row.test}: {cells}")


def shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * sum(values) / len(values):.1f} %"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"
