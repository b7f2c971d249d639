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
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cells import STREAMS, TEMPORALS, Data, Row, Variant, compute, extract, held_out, options, read, rows, show

from pipelines import demo
from pipelines.datasets.split_lists import read_lists
from pipelines.datasets.splits import write_splits
from pipelines.storage.workspace import Workspace
from pipelines.video.synthetic import write_clips

ACTOR = r"/([^/_]+)_"  # of Weizmann's names

VARIANTS: dict[str, Variant] = {
    "late": Variant("two streams alone, late fusion", step="late", tests=("sequence",)),
    "joint": Variant("joint: motion into appearance, added (the paper)"),
    "a2m": Variant("appearance into motion", {"direction": "appearance-to-motion"}),
    "both": Variant("both directions", {"direction": "both"}),
    "multiply": Variant("multiplied instead of added", {"fusion": "multiply"}),
    "unconnected": Variant("no connection", {"fusion": "none"}),
    "flat": Variant("no temporal kernels", {"temporal_kernels": False}),
    "identity": Variant("temporal kernels start as identity", {"temporal_init": "center"}),
    "pool": Variant("with temporal pooling (joint2)", step="joint2", run_of="joint"),
}
MOTION = Variant("motion alone", step="motion", tests=("sequence",))
TRAINING = {"recipe": "small", "size": (64, 80), "validation": 0.0}


def _weizmann(name: str, variants: dict[str, Variant], **flow: Any) -> Data:
    return Data(name, (1, 2, 3), TRAINING, flow, variants)


def _joint1(title: str, **changes: Any) -> Variant:
    return Variant(title, {"overrides": {"joint1": changes}}, tests=TEMPORALS)


# Motion at 80x64 is mostly below 2 px.
FARNEBACK: dict[str, Any] = {"method": "farneback", "bound": 3.0}
WEIZMANN = _weizmann("weizmann", {"motion": MOTION, **VARIANTS}, **FARNEBACK)
VALIDATION = replace(
    WEIZMANN,
    name="validation",
    variants={
        "late": VARIANTS["late"],
        "joint": replace(VARIANTS["joint"], title="joint: recipe small", tests=TEMPORALS),
        "rate 0.002": _joint1("joint: rate 0.002", lr=0.002),
        "short": _joint1("joint: rate 0.004, 200 updates", lr=0.004, iterations=200),
        "sharp": _joint1("joint: no label smoothing", label_smoothing=0.0),
        "dropout 0.2": _joint1("joint: dropout 0.2", dropout=0.2),
    },
    splits=None,
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
SYNTHETIC = Data(
    "synthetic",
    (1,),
    {**demo.NETWORK, "overrides": demo.OVERRIDES},
    {"method": "farneback", "bound": demo.FLOW_BOUND},
    VARIANTS,
    splits=None,
    clips=(8, 12),
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
    parser.add_argument("--cells", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--output", type=Path, help="table: folder for ablation.png")
    options(parser, "ablation")
    arguments = parser.parse_args()
    if arguments.what == "table":
        every = list(rows(read(arguments.results), itertools.chain(*DATA.values())))
        show(every)
        if arguments.output is not None:
            draw([row for row in every if row.seeds], arguments.output / "ablation.png")
        return
    torch.set_num_threads(1)  # in networks this small two threads wait for each other more than they compute
    if arguments.what != "synthetic" and arguments.data is None:
        parser.error(f"{arguments.what} needs --data")
    end = time.monotonic() + 60 * arguments.minutes
    for seed, data in itertools.product(arguments.seeds, DATA[arguments.what]):
        for name, fold in itertools.product(arguments.cells or data.variants, arguments.folds or data.folds):
            if time.monotonic() > end:
                return
            splits = arguments.data / data.splits if data.splits else None
            made = partial(prepare, data, seed, arguments)
            compute(data, name, fold, seed, arguments, prepare=made, splits=splits)


def prepare(data: Data, seed: int, arguments: argparse.Namespace) -> Workspace:
    """The workspace with frames and flow; the synthetic set has other clips for each seed."""
    folder = arguments.workspace / data.name.replace(", ", "-").replace(" ", "-")
    if data.clips:
        workspace = Workspace(folder.with_name(f"{folder.name}-seed{seed}"))
        videos = workspace.root / "videos"
        write_clips(videos, sum(data.clips), seed)
        write_splits(workspace.splits, [demo.clip_split(*data.clips, "ablation")])
    else:
        workspace = Workspace(folder)
        videos = arguments.data / "videos"
        if data.splits is None:
            write_splits(workspace.splits, [held_out(split, ACTOR) for split in read_lists(arguments.data / "splits3")])
    extract(workspace, videos, data.flow)
    return workspace


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
        axis.set_yticks(range(len(these)), [f"{row.variant.title}, {row.test}" for row in these], fontsize=8)
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
