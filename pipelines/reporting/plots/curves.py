"""Pictures with lines: fusion weight, calibration, training."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from pipelines.reporting.plots.drawing import (
    MUTED,
    STREAM_COLOURS,
    TEXT,
    add_axes,
    add_title,
    described,
    new_figure,
    png,
    shortened,
)
from pipelines.wording import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.analysis.calibration import Calibration
    from pipelines.analysis.fusion import WeightSweep
    from pipelines.reporting.result import Result
    from pipelines.reporting.training_log import Curves

LOSS = "#59636e"


def fusion_weight(result: "Result") -> bytes:
    """Top-1 over the weight of the first stream, one panel a pair of streams."""
    wide, tall = 5.6, 3.0
    figure = new_figure(0.7 + wide + 0.35, 0.65 + len(result.fusion) * (tall + 0.75))
    for index, sweep in enumerate(result.fusion):
        axes = add_axes(figure, 0.7, 0.55 + (len(result.fusion) - 1 - index) * (tall + 0.75), wide, tall)
        _draw_sweep(axes, sweep)
    subtitle = f"{described(result)} · a weight chosen on test videos gives no test result"
    add_title(figure, 0.7 / figure.get_figwidth(), "Fusion weight", subtitle)
    return png(figure)


def _draw_sweep(axes: Axes, sweep: "WeightSweep") -> None:
    axes.plot(sweep.weights, [100 * value for value in sweep.top1], "o-", color=STREAM_COLOURS["fused"], markersize=4)
    axes.plot(sweep.used, 100 * sweep.used_top1, "D", color="#d55e00", markersize=8, label=f"used: {sweep.used:g}")
    axes.set_xlim(-0.02, 1.02)
    first, second = shortened(sweep.first), shortened(sweep.second)
    label = f"weight of {first}  (0: {second} alone, 1: {first} alone)"
    axes.set_xlabel(label, color=MUTED, fontsize=8, parse_math=False)
    axes.set_ylabel("top-1, %", color=MUTED, fontsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=TEXT)


def calibration(result: "Result") -> bytes:
    """A reliability curve a stream; a point's area grows with its bin's number of videos."""
    side, gap, left, bottom = 2.7, 0.55, 0.65, 0.5
    figure = new_figure(left + len(result.calibration) * (side + gap) - gap + 0.3, bottom + side + 0.95)
    for index, (stream, values) in enumerate(result.calibration.items()):
        axes = add_axes(figure, left + index * (side + gap), bottom, side, side)
        _draw_reliability(axes, values, STREAM_COLOURS[stream])
        axes.set_title(f"{stream}: ECE {percent(values.ece)} %", loc="left", fontsize=9, color=TEXT)
        if not index:
            axes.set_ylabel("accuracy, %", color=MUTED, fontsize=8)
    add_title(figure, left / figure.get_figwidth(), "Calibration", described(result))
    return png(figure)


def _draw_reliability(axes: Axes, values: "Calibration", colour: str) -> None:
    bins = [one for one in values.bins if one.count]
    axes.plot([0, 100], [0, 100], "--", color=MUTED, linewidth=1)
    x, y = [100 * (one.confidence or 0) for one in bins], [100 * (one.accuracy or 0) for one in bins]
    most = max(one.count for one in bins)
    axes.plot(x, y, color=colour, linewidth=1.5)
    areas = [12 + 110 * one.count / most for one in bins]
    axes.scatter(x, y, s=areas, color=colour, alpha=0.85, zorder=3, clip_on=False)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("confidence, %", color=MUTED, fontsize=8)


def training(result: "Result", curves: "Sequence[Curves]") -> bytes:
    """A row a run and a column a step: loss, and the accuracies on training clips."""
    steps = list(dict.fromkeys(step for each in curves for step in each.steps))
    wide, tall, left, between = 3.0, 1.9, 0.6, 0.95
    figure = new_figure(left + len(steps) * (wide + between), 0.65 + len(curves) * (tall + 0.75))
    for row, each in enumerate(curves):
        for column, step in enumerate(steps):
            if step in each.steps:
                bottom = 0.5 + (len(curves) - 1 - row) * (tall + 0.75)
                axes = add_axes(figure, left + column * (wide + between), bottom, wide, tall)
                _draw_step(axes, each.steps[step])
                axes.set_title(f"{shortened(each.run)}, {step}", loc="left", fontsize=9, color=TEXT, parse_math=False)
    named = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend(
        handles=list(named.values()), labels=list(named), ncols=len(named), frameon=False, fontsize=8, labelcolor=TEXT,
        loc="upper right", bbox_to_anchor=(1 - between / figure.get_figwidth(), 1),
    )  # fmt: skip
    add_title(figure, left / figure.get_figwidth(), "Training", described(result))
    return png(figure)


def _draw_step(axes: Axes, records: "list[dict[str, float]]") -> None:
    def draw(on: Axes, name: str, colour: str, label: str, factor: float = 1) -> None:
        points = [(record["iteration"], factor * record[name]) for record in records if name in record]
        if points:
            on.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, label=label)

    draw(axes, "loss", LOSS, "loss, mean over frames and streams (left)")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("update", color=MUTED, fontsize=8)
    right = axes.twinx()
    for stream, colour in STREAM_COLOURS.items():
        draw(right, f"{stream}_accuracy", colour, f"{stream} training accuracy, % (right)", 100)
    right.set_ylim(0, 100)
    right.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    for spine in right.spines.values():
        spine.set_visible(False)
