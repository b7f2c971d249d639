"""What pretrained weights give the two-stream network on small real sets, one thing changed at a time.

    python benchmarks/pretrained.py fight-surv [--data DIR] [--only NAME,NAME] [--seeds 0,1] [--folds 1,2] [--minutes M]
    python benchmarks/pretrained.py weizmann [...]
    python benchmarks/pretrained.py settings [...]  # compared on groups held out of the training, of both sets
    python benchmarks/pretrained.py thirds [...]    # each third of the training groups held out once, by seed
    python benchmarks/pretrained.py table

DIR holds `fight-surv/` and `weizmann/`, each with `videos/<class>/` and `splits3/` in UCF101's list format, and
`weights/opennsfw_resnet50_w32.pth`. Every test of a cell (a variant on a fold and seed) appends a line to `--results`
(JSON lines) with what each stream has right, video by video; lines that are there are not computed again, the most
telling cells come first, `--minutes` says when to begin no further cell, and an interrupted one continues. `table`
prints what there is, McNemar's tests, and what is missing. docs/pretrained.md explains the variants and the result.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from cells import (
    BASE,
    CLIPS,
    RECALIBRATED,
    SEEDS,
    STREAMS,
    TEMPORALS,
    WEIGHTED,
    Data,
    Line,
    Row,
    Variant,
    compute,
    extract,
    held_out,
    merged,
    options,
    read,
    rows,
    show,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.analysis.comparison import mcnemar
from pipelines.datasets.groups import read_groups
from pipelines.datasets.split_lists import GroupRule, read_lists
from pipelines.datasets.splits import write_splits
from pipelines.evaluation.fusion_weight import choose_weight
from pipelines.evaluation.scores import read_scores
from pipelines.evaluation.scoring import with_fused
from pipelines.importing import weights as import_weights
from pipelines.interface.options import ResNetForm
from pipelines.storage.workspace import Workspace

WEIGHTS = "weights/opennsfw_resnet50_w32.pth"  # of form v1
SEQUENCE = "sequence"
CROSS = "sequence, streams weighted by cross-validation"
LEARNT = "sequence, streams fused by logistic regression"
LENGTHS = (240, 80, 480, 160)  # updates of joint1; the recipe's first
INITIAL = ("center", "average", "random")
SCRATCH: dict[str, Any] = {"weights": "none", "depth": 50, "width": 32, "stem_width": 64, "resnet": "v1"}
HELD_OUT = "held-out"  # stands for the list of the videos of a third of the training groups
WRONG_FORM: dict[str, Any] = {"weights": "v1.5"}
SMALL: dict[str, Any] = {"recipe": "small", "weights": "none"}
# The recipe's jittered colours and frozen layers, and neither, as in all rows but `jittered` and `frozen`; a student
# matches features and logits on frames at a distance of 2, unless a row says otherwise.
COLORS: dict[str, Any] = {"overrides": {step: {"color_jitter": 0.5} for step in ("appearance", "joint1")}}
VALIDATED: dict[str, Any] = COLORS | {"validation": HELD_OUT}
FROZEN: dict[str, Any] = {"freeze": 3}  # conv1, conv2_x, conv3_x of joint1
NO_TEACHER: dict[str, Any] = {"feature_weight": 0.0, "logit_weight": 0.0}
FEATURES: dict[str, Any] = {"feature_weight": 1.0, "logit_weight": 0.0}
PLAIN: dict[str, dict[str, Any]] = {step: {"color_jitter": 0.0} for step in COLORS["overrides"]}
PLAIN |= {"joint1": PLAIN["joint1"] | {"freeze": 0}, "joint2": {"freeze": 0}}
PLAIN |= {"student": {"feature_weight": 1.0, "logit_weight": 1.0, "stride": (2, 2)}}


def _late(title: str, base: str = "", training: dict[str, Any] | None = None) -> Variant:
    return Variant(title, step="late", tests=(SEQUENCE,), training=training or {}, base=base)


def _motion(title: str, **changes: Any) -> Variant:
    name = "-".join(("motion", *changes))
    return Variant(title, step="motion", tests=(SEQUENCE,), training={"overrides": {"motion": changes}}, base=name)


def _joint(
    title: str,
    updates: int = LENGTHS[0],
    base: str = "",
    training: dict[str, Any] | None = None,
    joint1: dict[str, Any] | None = None,
    **changes: Any,
) -> Variant:
    settings = {
        "temporal_init": "center",
        "overrides": {"joint1": {"iterations": updates, **(joint1 or {})}},
        **changes,
    }
    return Variant(title, settings, training=training or {}, base=base)


LATE = _late("pretrained: late fusion")
LENGTH_OF_TRAINING = {
    f"{initial}-{updates}": _joint(f"joint, {initial} start, {updates} updates", updates, temporal_init=initial)
    for updates, initial in itertools.product(LENGTHS, INITIAL)
}
# In the order in which they are computed: the first are computed for all seeds before the others are begun.
FIRST = {
    "late": LATE,
    "scratch-late": _late("from scratch: late fusion", "scratch", SCRATCH),
    "center-240": LENGTH_OF_TRAINING["center-240"],
    "average-240": LENGTH_OF_TRAINING["average-240"],
    "jittered-late": _late("pretrained, jittered colours: late fusion", "jittered", COLORS),
    "jittered-240": _joint("joint, center start, jittered colours", base="jittered", training=COLORS),
    "frozen-240": replace(
        _joint("joint, colours, frozen up to conv3_x", base="jittered", training=COLORS, joint1=FROZEN), tests=TEMPORALS
    ),
}


def _student(title: str, **changes: Any) -> Variant:
    """Of the recipe's joint network."""
    joint, settings = FIRST["frozen-240"], {"overrides": {"student": changes}} if changes else {}
    settings = merged(joint.settings, settings)
    return replace(joint, title=title, settings=settings, step="student", tests=(CLIPS,), run_of="frozen-240")


STUDENTS = {
    "student": _student("student of the joint network, features and logits"),
    "student-features": _student("student, features alone", **FEATURES),
    "student-stride-4": _student("student, features alone, distance 4", **FEATURES, stride=(4, 4)),
    "no-teacher": _student("student without its teacher", **NO_TEACHER),
}
VARIANTS = (
    FIRST
    | STUDENTS
    | {
        "scratch-joint": _joint(
            "from scratch: joint, average start", base="scratch", training=SCRATCH, temporal_init="average"
        ),
        "v1.5-late": _late("weights in the wrong form (v1.5): late fusion", "v1.5", WRONG_FORM),
        "none": _joint("joint, no connection", direction="none"),
        "center-80": LENGTH_OF_TRAINING["center-80"],
        "average-80": LENGTH_OF_TRAINING["average-80"],
        "a2m": _joint("joint, appearance into motion", direction="appearance-to-motion"),
        "both": _joint("joint, both directions", direction="both"),
        "validated-late": replace(
            _late("late fusion, a third of the training held out", "validated", VALIDATED), tests=(SEQUENCE, WEIGHTED)
        ),
        "validated-240": replace(
            _joint("joint, a third of the training held out", training=VALIDATED, base="validated", joint1=FROZEN),
            tests=(SEQUENCE, WEIGHTED),
        ),
        "pool": replace(
            LENGTH_OF_TRAINING["center-240"], title="joint2, temporal pooling", step="joint2", run_of="center-240"
        ),
        "v1.5-joint": _joint("weights in the wrong form (v1.5): joint, center start", base="v1.5", training=WRONG_FORM),
        "small-late": _late("from scratch, recipe small: late fusion", "small", SMALL),
        "small-joint": Variant("from scratch, recipe small: joint", training=SMALL, base="small"),
    }
    | LENGTH_OF_TRAINING
)
SETTINGS = {
    "late": LATE,
    "half-late": _late(
        "late fusion, half the rates", "half", {"overrides": {"appearance": {"lr": 0.0025}, "motion": {"lr": 0.005}}}
    ),
    "double-late": _late(
        "late fusion, twice the rates", "double", {"overrides": {"appearance": {"lr": 0.01}, "motion": {"lr": 0.02}}}
    ),
    "short-late": _late(
        "late fusion, half the updates",
        "short",
        {"overrides": {"appearance": {"iterations": 60}, "motion": {"iterations": 100}}},
    ),
    "long-late": _late(
        "late fusion, twice the updates",
        "long",
        {"overrides": {"appearance": {"iterations": 240}, "motion": {"iterations": 400}}},
    ),
    "center-240": LENGTH_OF_TRAINING["center-240"],
    "center-80": LENGTH_OF_TRAINING["center-80"],
    "center-480": LENGTH_OF_TRAINING["center-480"],
    "rate-0.001": _joint("joint, center start, rate 0.001", joint1={"lr": 0.001}),
    "rate-0.002": _joint("joint, center start, rate 0.002", joint1={"lr": 0.002}),
    "jittered-late": FIRST["jittered-late"],
    "jittered-240": FIRST["jittered-240"],
    "frozen-240": FIRST["frozen-240"],
    "motion": _motion("motion"),
    "motion-scaled": _motion("motion, scaled flow", flow_scale=1.5),
}
CROSS_VALIDATED = ("jittered-late", "frozen-240")  # the recipe
STUDENT_SETTINGS = STUDENTS | {
    "student-0.1": _student("student, a tenth of both weights", feature_weight=0.1, logit_weight=0.1),
    "student-logits": _student("student, logits alone", feature_weight=0.0, logit_weight=1.0),
    "student-features-3": _student("student, features alone, weight 3", **FEATURES | {"feature_weight": 3.0}),
    "student-stride-1": _student("student, features alone, distance 1", **FEATURES, stride=(1, 1)),
    "no-teacher-stride-4": _student("student without its teacher, distance 4", **NO_TEACHER, stride=(4, 4)),
    "student-stride-8": _student("student, features alone, distance 8", **FEATURES, stride=(8, 8)),
    "student-frames-8": _student("student, features alone, 8 frames", **FEATURES, frames=8),
}
TRAINING: dict[str, Any] = {"recipe": "finetune", "weights": "v1", "size": (112, 112), "validation": 0.0}
TRAINING |= {"precision": "bf16", "overrides": PLAIN}
FLOW: dict[str, Any] = {"method": "tvl1", "short_side": 128}


def _data(name: str, bound: float) -> Data:
    return Data(
        name, (1, 2, 3), TRAINING, FLOW | {"bound": bound}, VARIANTS, testing={"precision": TRAINING["precision"]}
    )


FIGHT = _data("fight-surv", 10.0)
WEIZMANN = _data("weizmann", 6.0)  # 80x64 enlarged to 160x128: most of its motion is below 4 px
OF_SETTINGS = tuple(
    replace(
        data,
        name=f"{data.name}, held out",
        variants={name: replace(one, base=f"held-out-{one.base}") for name, one in SETTINGS.items()},
        splits=None,
    )
    for data in (FIGHT, WEIZMANN)
)
# The weight of the streams is chosen on all training groups, each third held out of another seed's training.
THIRDS = tuple(
    replace(
        data,
        name=f"{data.name}, thirds held out",
        variants={name: replace(data.variants[name], base="thirds", tests=(SEQUENCE,)) for name in CROSS_VALIDATED}
        | {name: replace(one, base="thirds") for name, one in STUDENT_SETTINGS.items()},
        splits=None,
    )
    for data in (FIGHT, WEIZMANN)
)
DATA = {"fight-surv": (FIGHT,), "weizmann": (WEIZMANN,), "settings": OF_SETTINGS, "thirds": THIRDS}
# Compared by McNemar's test: (cell, test, stream) of the one and of the other.
COMPARED = (
    *((("late", SEQUENCE, stream), ("scratch-late", SEQUENCE, stream)) for stream in STREAMS),
    (("late", SEQUENCE, "fused"), ("late", SEQUENCE, "motion")),
    *((("late", SEQUENCE, stream), ("v1.5-late", SEQUENCE, stream)) for stream in STREAMS),
    *(
        ((f"center-{updates}", test, stream), (other.format(updates), other_test or test, other_stream))
        for updates, test in itertools.product((240, 80), (*TEMPORALS, RECALIBRATED))
        for stream, other, other_test, other_stream in (
            ("fused", "late", SEQUENCE, "fused"),
            ("fused", "late", SEQUENCE, "motion"),
            ("motion", "late", SEQUENCE, "motion"),
            ("fused", "center-{}", None, "motion"),
            ("fused", "average-{}", None, "fused"),
        )
    ),
    (("center-240", "windows", "fused"), ("center-240", SEQUENCE, "fused")),
    (("center-240", RECALIBRATED, "fused"), ("center-240", SEQUENCE, "fused")),
    *((("center-240", "windows", "fused"), (other, "windows", "fused")) for other in ("none", "a2m", "both", "pool")),
    *((("center-240", "windows", "motion"), (other, "windows", "motion")) for other in ("none", "a2m", "both")),
    (("average-240", "windows", "fused"), ("none", "windows", "fused")),
    *((("jittered-240", SEQUENCE, stream), ("center-240", SEQUENCE, stream)) for stream in STREAMS),
    *((("frozen-240", SEQUENCE, stream), ("jittered-240", SEQUENCE, stream)) for stream in STREAMS),
    *((("jittered-late", SEQUENCE, stream), ("late", SEQUENCE, stream)) for stream in STREAMS),
    *(
        ((name, test, "fused"), other)
        for name, test in itertools.product(("frozen-240", "jittered-240"), TEMPORALS)
        for other in (
            ("jittered-late", SEQUENCE, "fused"),
            ("jittered-late", SEQUENCE, "motion"),
            (name, test, "motion"),
            (name, test, "appearance"),
            ("scratch-late", SEQUENCE, "fused"),
        )
    ),
    *(((name, WEIGHTED, "fused"), (name, SEQUENCE, "fused")) for name in ("validated-late", "validated-240")),
    *(
        ((name, test, "fused"), (name, SEQUENCE, stream))
        for name, test, stream in itertools.product(CROSS_VALIDATED, (CROSS, LEARNT), reversed(STREAMS))
    ),
    (("frozen-240", CROSS, "fused"), ("jittered-late", CROSS, "fused")),
    *((("frozen-240", CROSS, "fused"), ("jittered-late", SEQUENCE, stream)) for stream in ("fused", "motion")),
    *(
        (("validated-240", WEIGHTED, "fused"), other)
        for other in (
            ("validated-240", SEQUENCE, "motion"),
            ("validated-240", SEQUENCE, "appearance"),
            ("validated-late", WEIGHTED, "fused"),
            ("validated-late", SEQUENCE, "fused"),
            ("validated-late", SEQUENCE, "motion"),
        )
    ),
    *(((name, CLIPS, "appearance"), ("jittered-late", SEQUENCE, "appearance")) for name in STUDENTS),
    *(
        ((one, CLIPS, "appearance"), (other, CLIPS, "appearance"))
        for one, other in itertools.combinations(reversed(STUDENTS), 2)
    ),
    *((("frozen-240", SEQUENCE, "fused"), (name, CLIPS, "appearance")) for name in STUDENTS),
    (("center-240", "windows", "fused"), ("scratch-joint", "windows", "fused")),
    (("scratch-joint", "windows", "fused"), ("scratch-late", SEQUENCE, "fused")),
    (("center-240", "windows", "fused"), ("v1.5-joint", "windows", "fused")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*DATA, "table"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="default: %(default)s")
    parser.add_argument("--only", type=lambda text: text.split(","), help="variants; default: all")
    options(parser, "pretrained")
    arguments = parser.parse_args()
    if arguments.what == "table":
        table(read(arguments.results))
        return
    if unknown := set(arguments.only or ()) - {name for data in DATA[arguments.what] for name in data.variants}:
        parser.error(f"--only: no variants of {arguments.what}: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes
    for data, name, fold, seed, tests in cells(DATA[arguments.what], arguments):
        if time.monotonic() > end:
            return
        third = seed if data in THIRDS else 1
        compute(
            data,
            name,
            fold,
            seed,
            arguments,
            prepare=partial(prepare, data, arguments),
            splits=lists(data, arguments) if data.splits else held_out_lists(data, arguments, third),
            tests=tests,
            files={**imported(arguments), HELD_OUT: held_out_lists(data, arguments) / f"testlist{fold:02}.txt"},
            record=hits,
        )


def cells(
    tables: Iterable[Data], arguments: argparse.Namespace
) -> Iterator[tuple[Data, str, int, int, tuple[str, ...]]]:
    """Data set, variant, fold, seed and tests of what is to be computed, the most telling first; what takes another
    pass over the videos comes last."""
    for tests, later in itertools.product(((*TEMPORALS, CLIPS), (RECALIBRATED, WEIGHTED)), (False, True)):
        for seed, data in itertools.product(arguments.seeds, tables):
            names = [name for name in arguments.only or data.variants if (name not in FIRST) == later]
            for fold, name in itertools.product(arguments.folds or data.folds, names):
                yield data, name, fold, seed, tests


def imported(arguments: argparse.Namespace) -> dict[str, str]:
    """The weights as files of both forms."""
    files = {}
    for form in get_args(ResNetForm):
        file = arguments.workspace / f"weights-{form}.pth"
        if not file.exists():
            arguments.workspace.mkdir(parents=True, exist_ok=True)
            import_weights.run(import_weights.Config(arguments.data / WEIGHTS, file, form))
        files[form] = str(file)
    return files


def folder(data: Data) -> str:
    """Of its videos, and of its workspace, which it shares with the settings compared on it."""
    return data.name.split(",")[0]


def lists(data: Data, arguments: argparse.Namespace) -> Path:
    """The folder of the data's own split lists."""
    return arguments.data / folder(data) / "splits3"


def held_out_lists(data: Data, arguments: argparse.Namespace, third: int = 1) -> Path:
    """The folder of the split lists whose test is a third of the training groups, held out of the others' training."""
    return arguments.workspace / f"{folder(data)}-held-out{'' if third == 1 else f'-{third}'}"


def prepare(data: Data, arguments: argparse.Namespace) -> Workspace:
    """The workspace with frames and flow; the lists of the groups held out."""
    splits = read_lists(lists(data, arguments))
    source = arguments.data / folder(data)
    groups: GroupRule = r"/([^/_]+)_"  # the actors of Weizmann's names
    if (sources := source / "files.csv").exists():
        groups = read_groups(sources, [*splits[0].train, *splits[0].test])
    for third in range(3):
        write_splits(held_out_lists(data, arguments, third), [held_out(split, groups, third) for split in splits])
    workspace = Workspace(arguments.workspace / folder(data))
    extract(workspace, source / "videos", data.flow)
    return workspace


def hits(tested: Path) -> Line:
    """What a line holds of each video, in the order of their ids: which streams have it right, 1 or 0 each; where there
    are two streams, their logits and the true classes as well."""
    scores = read_scores(tested / "scores.h5")
    order = sorted(range(len(scores.videos)), key=scores.videos.__getitem__)
    line: Line = {
        "hits": {name: marks((logits.argmax(1) == scores.labels)[order]) for name, logits in scores.streams.items()}
    }
    if "fused" in scores.streams:
        line["labels"] = scores.labels[order].tolist()
        line["logits"] = {name: scores.streams[name][order].astype(float).round(3).tolist() for name in BASE}
    return line


def marks(right: Iterable[Any]) -> str:
    """1 or 0 for each video."""
    return "".join(str(int(one)) for one in right)


# ------------------------------------------------------------------ the table


def table(lines: Sequence[Line]) -> None:
    """Prints the tables of the seeds that have all folds, what is missing, the cells of the other seeds, and McNemar's
    tests."""
    every = list(rows(lines, itertools.chain(*DATA.values())))
    every += fused_otherwise(every)
    show(every)
    print("\nvideos right in single cells, of seeds that lack a fold\n")
    print("| data | network | test | seed | fold | videos | appearance | motion | fused |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in every:
        for fold, seed in row.found:
            if seed not in row.seeds:
                line = row.found[fold, seed]
                right = " | ".join(str(line["right"].get(stream, "-")) for stream in STREAMS)
                place = f"{row.data.name} | {row.variant.title} | {row.test} | {seed} | {fold}"
                print(f"| {place} | {line['videos']} | {right} |")
    for row in every:
        if weights := {fold: line["weight"] for (fold, _), line in sorted(row.found.items()) if row.test == CROSS}:
            print(f"\n{row.data.name}, {row.variant.title}: weight of appearance by fold: {weights}")
    print("\nMcNemar's exact test over all cells that both have\n")
    print("| data | first | second | cells | only first right | only second right | difference | p |")
    print("|---|---|---|---|---|---|---|---|")
    for data in (FIGHT, WEIZMANN):
        found = {(row.name, row.test): row for row in every if row.data is data}
        for first, second in COMPARED:
            one, other = found[first[:2]], found[second[:2]]
            if places := one.found.keys() & other.found.keys():
                names = f"{named(one, first[2])} | {named(other, second[2])}"
                print(f"| {data.name} | {names} | {len(places)} | {compared(one, first[2], other, second[2])} |")


def fused_otherwise(rows_: Iterable[Row]) -> Iterator[Row]:
    """The rows of the recipe with its streams fused as `FUSIONS` learn it for each fold on all of its training videos,
    each third of their groups scored by a network that the others have trained. Of the folds that have all thirds."""
    found = {(row.data.name, row.name, row.test): row for row in rows_}
    for data, name, (test, learn) in itertools.product(THIRDS, CROSS_VALIDATED, FUSIONS.items()):
        held, tested = found[data.name, name, SEQUENCE], found[folder(data), name, SEQUENCE]
        learnt = {
            fold: learn([held.found[fold, third] for third in SEEDS])
            for fold in data.folds
            if all((fold, third) in held.found for third in SEEDS)
        }
        lines = {}
        for (fold, seed), line in tested.found.items():
            if fold in learnt and "logits" in line:
                fuse, kept = learnt[fold]
                right = fuse(line) == line["labels"]
                hits, counted = line["hits"] | {"fused": marks(right)}, line["right"] | {"fused": int(right.sum())}
                lines[fold, seed] = line | {"hits": hits, "right": counted} | kept
        yield replace(tested, test=test, found=lines)


def weighted(lines: Sequence[Line]) -> tuple[Callable[[Line], np.ndarray], Line]:
    """Fuses by the one weight of appearance that is chosen on the videos of these lines together."""
    videos = [
        dict(zip(BASE, two, strict=True)) for line in lines for two in zip(*map(line["logits"].get, BASE), strict=True)
    ]
    weight = choose_weight(videos, [label for line in lines for label in line["labels"]]).weight

    def fuse(line: Line) -> np.ndarray:
        logits = {stream: np.asarray(line["logits"][stream]) for stream in BASE}
        return with_fused(logits, weight)["fused"].argmax(1)

    return fuse, {"weight": weight}


def regressed(lines: Sequence[Line]) -> tuple[Callable[[Line], np.ndarray], Line]:
    """Fuses by a logistic regression on both streams' logits, with a bias for each class."""

    def features(line: Line) -> np.ndarray:
        return np.hstack([line["logits"][stream] for stream in BASE])

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(np.vstack([features(line) for line in lines]), np.concatenate([line["labels"] for line in lines]))
    return lambda line: model.predict(features(line)), {}


FUSIONS = {CROSS: weighted, LEARNT: regressed}


def named(row: Row, stream: str) -> str:
    return f"{row.variant.title}, {row.test}, {stream}"


def compared(one: Row, stream: str, other: Row, other_stream: str) -> str:
    """Videos that only one of the two has right, the difference of their accuracies, and McNemar's p."""
    places = sorted(one.found.keys() & other.found.keys())
    ours, theirs = (
        "".join(row.found[place]["hits"][which] for place in places)
        for row, which in ((one, stream), (other, other_stream))
    )
    pairs = [*zip(ours, theirs, strict=True)]
    only_first, only_second = pairs.count(("1", "0")), pairs.count(("0", "1"))
    difference = 100 * (only_first - only_second) / len(pairs)
    return f"{only_first} | {only_second} | {difference:+.1f} % | {mcnemar(only_first, only_second):.3f}"


if __name__ == "__main__":
    main()
