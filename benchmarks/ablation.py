"""What each of the paper's ideas does: the same data, seeds and base streams, one thing changed at a time.

    python benchmarks/ablation.py weizmann --data DIR [--folds 1,2,3] [--seeds 0,1,2] [--cells NAME,NAME] [--minutes M]
    python benchmarks/ablation.py synthetic [...]
    python benchmarks/ablation.py flow --data DIR [...]        # Weizmann's motion stream on other flow
    python benchmarks/ablation.py validation --data DIR [...]  # settings, compared on actors held out of the training
    python benchmarks/ablation.py precision --data DIR [...]   # Weizmann trained in bf16
    python benchmarks/ablation.py splits9 --data DIR [...]     # Weizmann, one actor left out a fold
    python benchmarks/ablation.py table [--output DIR]

DIR holds `videos/<class>/*.avi`, and `splits3/` or `splits9/` in UCF101's list format. Every cell is a fold, a seed
and a variant; each test of it appends a line to `--results` (JSON lines), and lines that are there are not computed
again, on whatever machine: call it as often as there is time, `--minutes` says when to begin no further cell, an
interrupted one continues. Base streams are trained once a fold and seed and shared by all variants. `table` prints what
there is, says which cells are missing, and draws the figure. docs/ablation.md explains the variants and the result.
"""

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pipelines import demo, evaluate, extract_flow, extract_frames, train
from pipelines.datasets.split_lists import Split, read_lists
from pipelines.datasets.splits import write_splits
from pipelines.evaluation.scores import read_scores
from pipelines.storage.workspace import Workspace
from pipelines.video.synthetic import write_clips

RESULTS = Path(__file__).with_suffix(".jsonl")
STREAMS = ("appearance", "motion", "fused")
RECALIBRATION_VIDEOS = 1000  # all of these data sets' training videos
BASE = ("appearance", "motion")
STEPS = {"motion": ("motion",)}  # that a base run trains for a tested step, where they are not both
JOINT_STEPS = {"joint1": ("joint1",), "joint2": ("joint1", "joint2")}
TEMPORALS = ("sequence", "windows")  # from one pass over the videos
RECALIBRATED = "sequence, recalibrated"


@dataclass(frozen=True)
class Variant:
    """One row of the table: what differs from the paper's joint network, and the step that is tested."""

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    step: str = "joint1"
    tests: tuple[str, ...] = (*TEMPORALS, RECALIBRATED)

    @property
    def streams(self) -> tuple[str, ...]:
        return STEPS.get(self.step, STREAMS)


VARIANTS: dict[str, Variant] = {
    "late": Variant("two streams alone, late fusion", step="late", tests=("sequence",)),
    "joint": Variant("joint: motion into appearance, added (the paper)"),
    "a2m": Variant("appearance into motion", {"direction": "appearance-to-motion"}),
    "both": Variant("both directions", {"direction": "both"}),
    "multiply": Variant("multiplied instead of added", {"fusion": "multiply"}),
    "unconnected": Variant("no connection", {"fusion": "none"}),
    "flat": Variant("no temporal kernels", {"temporal_kernels": False}),
    "identity": Variant("temporal kernels start as identity", {"temporal_init": "center"}),
    "pool": Variant("with temporal pooling (joint2)", step="joint2"),
}
MOTION = Variant("motion alone", step="motion", tests=("sequence",))


@dataclass(frozen=True)
class Data:
    """A data set of the table, and its flow. `training`: what is the same in all its cells."""

    name: str
    folds: tuple[int, ...]
    training: dict[str, Any]
    flow: dict[str, Any]
    variants: dict[str, Variant] = field(default_factory=lambda: VARIANTS)
    splits: str = "splits3"  # the folder of `--data` that the folds are read from

    @property
    def is_synthetic(self) -> bool:
        return self.name == "synthetic"

    @property
    def makes_splits(self) -> bool:
        return self.name in ("synthetic", "validation")


def _weizmann(name: str, variants: dict[str, Variant], **flow: Any) -> Data:
    return Data(name, (1, 2, 3), {"recipe": "small", "size": (64, 80), "validation": 0.0}, flow, variants)


def _joint1(title: str, **changes: Any) -> Variant:
    return Variant(title, {"overrides": {"joint1": changes}}, tests=TEMPORALS)


# Motion at 80x64 is mostly below 2 px.
FARNEBACK: dict[str, Any] = {"method": "farneback", "bound": 3.0}
WEIZMANN = _weizmann("weizmann", {"motion": MOTION, **VARIANTS}, **FARNEBACK)
VALIDATION = _weizmann(
    "validation",
    {
        "late": VARIANTS["late"],
        "joint": replace(VARIANTS["joint"], title="joint: recipe small", tests=TEMPORALS),
        "rate 0.002": _joint1("joint: rate 0.002", lr=0.002),
        "short": _joint1("joint: rate 0.004, 200 updates", lr=0.004, iterations=200),
        "sharp": _joint1("joint: no label smoothing", label_smoothing=0.0),
        "dropout 0.2": _joint1("joint: dropout 0.2", dropout=0.2),
    },
    **FARNEBACK,
)
FLOWS = tuple(
    _weizmann(f"weizmann, {title}", {"motion": MOTION}, **flow)
    for title, flow in {
        "tvl1": {"method": "tvl1", "bound": 3.0},
        "tvl1 enlarged 3 times": {"method": "tvl1", "bound": 9.0, "short_side": 192},
        "tvl1 lambda 0.05": {"method": "tvl1", "bound": 3.0, "method_options": {"lambda": "0.05"}},
        "farneback enlarged 3 times": {"method": "farneback", "bound": 9.0, "short_side": 192},
    }.items()
)
PRECISION = replace(
    WEIZMANN,
    name="weizmann, bf16",
    training=WEIZMANN.training | {"precision": "bf16"},
    variants={name: WEIZMANN.variants[name] for name in ("motion", "late", "joint")},
)
LEAVE_ONE_OUT = replace(
    WEIZMANN,
    name="weizmann, 9 folds",
    folds=tuple(range(1, 10)),
    variants={name: WEIZMANN.variants[name] for name in ("motion", "late", "joint")},
    splits="splits9",
)
# A third of the demo's training clips a class, since with 24 everything joined is right.
SYNTHETIC_TRAIN, SYNTHETIC_TEST = 8, 12
SYNTHETIC = Data(
    "synthetic",
    (1,),
    {**demo.NETWORK, "overrides": demo.OVERRIDES},
    {"method": "farneback", "bound": demo.FLOW_BOUND},
)
DATA = {
    "weizmann": (WEIZMANN,),
    "synthetic": (SYNTHETIC,),
    "flow": FLOWS,
    "precision": (PRECISION,),
    "validation": (VALIDATION,),
    "splits9": (LEAVE_ONE_OUT,),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*DATA, "table"))
    parser.add_argument("--data", type=Path, help="all but synthetic: the folder of videos/ and the split lists")
    parser.add_argument("--workspace", type=Path, default=Path("ablation-work"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--folds", type=_numbers, help="default: all")
    parser.add_argument("--seeds", type=_numbers, default=(0, 1, 2))
    parser.add_argument("--cells", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so many")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="table: folder for ablation.png")
    arguments = parser.parse_args()
    if arguments.what == "table":
        show(read(arguments.results), arguments.output)
        return
    torch.set_num_threads(1)  # in networks this small two threads wait for each other more than they compute
    if arguments.what != "synthetic" and arguments.data is None:
        parser.error(f"{arguments.what} needs --data")
    end = time.monotonic() + 60 * arguments.minutes
    for seed, data in itertools.product(arguments.seeds, DATA[arguments.what]):
        for name, fold in itertools.product(arguments.cells or data.variants, arguments.folds or data.folds):
            if time.monotonic() > end:
                return
            compute(data, name, fold, seed, arguments)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


# ------------------------------------------------------------------ one cell


def compute(data: Data, name: str, fold: int, seed: int, arguments: argparse.Namespace) -> None:
    """Trains and tests what `--results` does not hold of one cell."""
    variant = data.variants[name]
    cell = {"data": data.name, "cell": name, "fold": fold, "seed": seed, "recipe": digest(data, name)}
    done = [{key: line.get(key) for key in (*cell, "test")} for line in read(arguments.results)]
    tests = [test for test in variant.tests if cell | {"test": test} not in done]
    if not tests:
        return
    workspace = prepare(data, seed, arguments)
    base = f"fold{fold}-seed{seed}"
    shared: dict[str, Any] = {"workspace": workspace.root, "device": arguments.device}
    training: dict[str, Any] = {**shared, **data.training, "split": fold, "seed": seed}
    if not data.makes_splits:
        training["splits"] = arguments.data / data.splits
    started = time.monotonic()
    train.run(train.Config(**training, name=base, steps=STEPS.get(variant.step, BASE)))
    run = base
    if variant.step in JOINT_STEPS:
        run = f"{base}-{'joint' if name == 'pool' else name}"
        steps = JOINT_STEPS[variant.step]
        train.run(train.Config(**training, **variant.settings, name=run, steps=steps, base_run=base))
    seconds = time.monotonic() - started
    for together, settings in passes(tests):
        result = evaluate.run(evaluate.Config(**shared, run=run, step=variant.step, **settings))
        for test, evaluation in zip(together, result.evaluations, strict=True):
            line = cell | {"test": test, **counts(evaluation.folder), "seconds": round(seconds), "when": today()}
            append(arguments.results, line)
            print(json.dumps(line), flush=True)


def passes(tests: Sequence[str]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The tests that one pass over the videos serves, and its settings."""
    temporals = [test for test in tests if test in TEMPORALS]
    if temporals:
        yield temporals, {"temporal": tuple(temporals)}
    if RECALIBRATED in tests:
        yield [RECALIBRATED], {"temporal": "sequence", "recalibrate_bn": RECALIBRATION_VIDEOS}


def prepare(data: Data, seed: int, arguments: argparse.Namespace) -> Workspace:
    """The workspace with frames and flow; the synthetic set has other clips for each seed."""
    folder = arguments.workspace / data.name.replace(", ", "-").replace(" ", "-")
    short_side = {"short_side": data.flow["short_side"]} if "short_side" in data.flow else {}
    if data.is_synthetic:
        workspace = Workspace(folder.with_name(f"{folder.name}-seed{seed}"))
        videos = workspace.root / "videos"
        write_clips(videos, SYNTHETIC_TRAIN + SYNTHETIC_TEST, seed)
        write_splits(workspace.splits, [demo.clip_split(SYNTHETIC_TRAIN, SYNTHETIC_TEST, "ablation")])
    else:
        workspace = Workspace(folder)
        videos = arguments.data / "videos"
        if data.makes_splits:
            write_splits(workspace.splits, [held_out(split) for split in read_lists(arguments.data / data.splits)])
    extract_frames.run(extract_frames.Config(workspace.root, str(videos), **short_side))
    extract_flow.run(extract_flow.Config(workspace.root, str(videos), **data.flow))
    return workspace


def held_out(split: Split) -> Split:
    """Every third of a split's training actors, from the second on, tests what the others train; the split's own
    test actors take no part."""

    def actor(id_: str) -> str:
        return id_.split("/")[1].split("_")[0]

    tested = sorted({actor(id_) for id_ in split.train})[1::3]
    train_ids, test_ids = ([id_ for id_ in split.train if (actor(id_) in tested) == test] for test in (False, True))
    return replace(split, train=train_ids, test=test_ids, source="training actors held out")


def digest(data: Data, name: str) -> str:
    """Short hash of everything a cell's result depends on: a changed recipe makes old lines count no more."""
    variant = data.variants[name]
    config = train.Config(Path(), **data.training)
    names = (*STEPS.get(variant.step, BASE), *JOINT_STEPS.get(variant.step, ()))
    recipe = [str(config.step(step)) for step in names]
    rest = [config.depth or config.base.depth, config.width or config.base.width, config.size or config.base.size]
    clips = [SYNTHETIC_TRAIN, SYNTHETIC_TEST] if data.is_synthetic else []
    content = json.dumps([recipe, "full batches", rest, data.flow, variant.settings, clips])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def counts(folder: Path) -> dict[str, Any]:
    """How many videos each stream has right, of how many."""
    scores = read_scores(folder / "scores.h5")
    right = {name: int((logits.argmax(1) == scores.labels).sum()) for name, logits in scores.streams.items()}
    return {"right": right, "videos": len(scores.videos)}


def today() -> str:
    return time.strftime("%Y-%m-%d")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines there are; a last one that was cut short is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# ------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Row:
    """One variant under one test: for each seed that has all folds, the share of videos each stream has right."""

    data: Data
    title: str
    test: str
    seeds: int
    accuracy: dict[str, list[float]]
    missing: list[str]


def rows(lines: Sequence[dict[str, Any]], seeds: Sequence[int] = (0, 1, 2)) -> Iterator[Row]:
    """All rows of the table, those without any result too. Accuracies pool the folds of a seed."""
    for data in itertools.chain(*DATA.values()):
        for name, variant in data.variants.items():
            current = [x for x in lines if (x["data"], x["cell"], x["recipe"]) == (data.name, name, digest(data, name))]
            for test in variant.tests:
                found = {(x["fold"], x["seed"]): x for x in current if x["test"] == test}
                wanted = [(fold, seed) for seed in seeds for fold in data.folds]
                whole = [seed for seed in seeds if all((fold, seed) in found for fold in data.folds)]
                accuracy = {
                    stream: [pooled([found[fold, seed] for fold in data.folds], stream) for seed in whole]
                    for stream in variant.streams
                }
                missing = [f"fold {fold} seed {seed}" for fold, seed in wanted if (fold, seed) not in found]
                yield Row(data, variant.title, test, len(whole), accuracy, missing)


def pooled(lines: Sequence[dict[str, Any]], stream: str) -> float:
    return sum(line["right"][stream] for line in lines) / sum(line["videos"] for line in lines)


def show(lines: Sequence[dict[str, Any]], output: Path | None) -> None:
    """Prints the tables in Markdown and the cells that are missing; draws `ablation.png` into `output`."""
    every = list(rows(lines))
    for data in itertools.chain(*DATA.values()):
        print(f"\n{data.name}: mean over seeds of the share of all folds' test videos (spread: lowest to highest)\n")
        print("| network | test | seeds | appearance | motion | fused |\n|---|---|---|---|---|---|")
        for row in every:
            if row.data is data and row.seeds:
                values = " | ".join(shown(row.accuracy.get(stream, [])) for stream in STREAMS)
                print(f"| {row.title} | {row.test} | {row.seeds} | {values} |")
    missing = [row for row in every if row.missing]
    print("\nnot yet computed:" if missing else "\nnothing is missing")
    for row in missing:
        cells = ", ".join(row.missing) if len(row.missing) <= 3 else f"{len(row.missing)} cells"
        print(f"* {row.data.name}: {row.title}, {row.test}: {cells}")
    if output is not None:
        draw([row for row in every if row.seeds], output / "ablation.png")


def shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * sum(values) / len(values):.1f} %"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def draw(every: Sequence[Row], path: Path) -> None:
    """One dot a seed and stream, one line a network and test, a panel a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [data for data in (WEIZMANN, SYNTHETIC) if any(row.data is data for row in every)]
    heights = [sum(row.data is data for row in every) for data in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(9, 1.5 + 0.3 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    colours = dict(zip(STREAMS, ("#9a9a9a", "#e08214", "#2166ac"), strict=True))
    for axis, data in zip(axes[:, 0], panels, strict=True):
        these = [row for row in every if row.data is data]
        for y, row in enumerate(these):
            for stream, accuracies in row.accuracy.items():
                values = [100 * value for value in accuracies]
                axis.plot(values, [y] * len(values), "o", color=colours[stream], alpha=0.8)
        axis.set_yticks(range(len(these)), [f"{row.title}, {row.test}" for row in these], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel("accuracy, % (one dot a seed)")
        axis.set_title(data.name, loc="left")
        axis.grid(axis="x", alpha=0.3)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=colour) for colour in colours.values()]
    figure.legend(handles, colours, loc="outside upper right", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
