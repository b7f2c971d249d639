"""The whole pipeline on a real data set: Weizmann's space-time actions, trained from scratch, actor-disjoint folds.

    python benchmarks/weizmann.py DATA [--workspace DIR] [--seed N]

DATA holds `videos/<class>/*.avi` and `splits3/` in UCF101's list format. What is done is kept: the same command
continues. Prints a row a fold and network, and the means; the confusion matrix of the joint network over all folds is
in `reports/` of the workspace. docs/weizmann.md shows the commands that this stands for, and the result.
"""

import argparse
import json
import time
from pathlib import Path

from pipelines import evaluate, extract_flow, extract_frames, report, train
from pipelines.runtime.progress import Progress

FOLDS = (1, 2, 3)
NETWORKS = (("late", "sequence"), ("joint1", "sequence"), ("joint1", "windows"))
FLOW = {"method": "farneback", "bound": 3.0}  # motion at 80x64 is mostly below 2 px
TRAINING = {"recipe": "small", "size": (64, 80), "validation": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--workspace", type=Path, default=Path("weizmann-work"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    work = arguments.workspace
    videos = str(arguments.data / "videos")
    extract_frames.run(extract_frames.Config(work, videos))
    extract_flow.run(extract_flow.Config(work, videos, **FLOW))
    rows = []
    for fold in FOLDS:
        name = f"split{fold}" if not arguments.seed else f"seed{arguments.seed}-split{fold}"
        started = time.monotonic()
        trained = train.run(
            train.Config(work, fold, name, splits=arguments.data / "splits3", seed=arguments.seed, **TRAINING),
            _Every(50),
        )
        minutes = sum(step.seconds for step in trained.steps) / 60
        for step, temporal in NETWORKS:
            result = evaluate.run(evaluate.Config(work, name, step, temporal=temporal)).results
            rows.append({"fold": fold, "network": f"{step}, {temporal}", "minutes": minutes, **result})
        print(f"fold {fold}: {minutes:.1f} minutes of training, {time.monotonic() - started:.0f} s in all", flush=True)
    pattern = "split{split}" if not arguments.seed else f"seed{arguments.seed}-split{{split}}"
    page = report.run(report.Config(work, pattern, splits=FOLDS, protocol="joint1-25frames-full-mirror-windows"))
    print(table(rows))
    (work / f"weizmann-seed{arguments.seed}.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print(page.files["report.html"])


def table(rows: list[dict]) -> str:
    """Markdown: top-1 of each stream by fold, and over the clips of all folds together."""
    lines = ["| fold | network | appearance | motion | fused |", "|---|---|---|---|---|"]
    for row in rows:
        values = " | ".join(f"{100 * row[stream]['top1']:.1f} %" for stream in ("appearance", "motion", "fused"))
        lines.append(f"| {row['fold']} | {row['network']} | {values} |")
    for network in dict.fromkeys(row["network"] for row in rows):
        these = [row for row in rows if row["network"] == network]
        total = sum(row["videos"] for row in these)
        cells = []
        for stream in ("appearance", "motion", "fused"):
            right = sum(round(row[stream]["top1"] * row["videos"]) for row in these)
            cells.append(f"{right}/{total} = {100 * right / total:.1f} %")
        lines.append(f"| all | {network} | {' | '.join(cells)} |")
    return "\n".join(lines)


class _Every:
    """Prints every n-th update."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def __call__(self, progress: Progress) -> None:
        if progress.done % self.updates == 0 or progress.message:
            metrics = " ".join(f"{name} {value:.3f}" for name, value in progress.metrics.items())
            print(f"{progress.phase} {progress.done}/{progress.total} {metrics} {progress.message}", flush=True)


if __name__ == "__main__":
    main()
