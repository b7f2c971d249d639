"""Figures with curves: fusion weight, calibration, training. The page shows their panels, too."""

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes

from pipelines.analysis.calibration import Calibration
from pipelines.analysis.fusion import WeightSweep
from pipelines.drawing.figures import MUTED, TEXT, shortened
from pipelines.interface.wording import percent
from pipelines.reporting.plots.drawing import HURT, STREAM_COLOURS, Panel, PanelGrid, described
from pipelines.reporting.result import Result
from pipelines.reporting.training_log import Curves, thinned

ACCURACY = "training accuracy"


def fusion_weight(result: Result) -> PanelGrid:
    """Top-1 over the weight of the first stream, one panel a pair of streams."""
    panels = [
        Panel(f"{shortened(one.first)} with {shortened(one.second)}", 5.2, 2.8, partial(_draw_sweep, one))
        for one in result.fusion
    ]
    subtitle = f"{described(result)} · a weight chosen on test videos gives no test result"
    return PanelGrid("Fusion weight", subtitle, [[panel] for panel in panels])


def _draw_sweep(sweep: WeightSweep, axes: Axes) -> None:
    top1 = [100 * value for value in sweep.top1]
    axes.plot(sweep.weights, top1, "o-", color=STREAM_COLOURS["fused"], markersize=4)
    label = f"used: {sweep.used_in_words}"
    axes.plot(sweep.used_mean, 100 * sweep.used_top1, "D", color=HURT, markersize=8, label=label)
    axes.set_xlim(-0.02, 1.02)
    first, second = shortened(sweep.first), shortened(sweep.second)
    label = f"weight of {first}  (0: {second} alone, 1: {first} alone)"
    axes.set_xlabel(label, color=MUTED, fontsize=8, parse_math=False)
    axes.set_ylabel("top-1, %", color=MUTED, fontsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=TEXT)


def calibration(result: Result) -> PanelGrid:
    """A reliability curve a stream; a point's area grows with its bin's number of videos."""
    panels = [
        Panel(f"{stream}: ECE {percent(values.ece)} %", 2.7, 2.7, partial(_draw_reliability, stream, values))
        for stream, values in result.calibration.items()
    ]
    return PanelGrid("Calibration", described(result), [panels])


def _draw_reliability(stream: str, values: Calibration, axes: Axes) -> None:
    colour = STREAM_COLOURS[stream]
    bins = [bin_ for bin_ in values.bins if bin_.count]
    most = max(bin_.count for bin_ in bins)
    x, y = [100 * (bin_.confidence or 0) for bin_ in bins], [100 * (bin_.accuracy or 0) for bin_ in bins]
    axes.plot([0, 100], [0, 100], "--", color=MUTED, linewidth=1)
    axes.plot(x, y, color=colour, linewidth=1.5)
    areas = [12 + 110 * bin_.count / most for bin_ in bins]
    axes.scatter(x, y, s=areas, color=colour, alpha=0.85, zorder=3, clip_on=False)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("confidence, %", color=MUTED, fontsize=8)
    axes.set_ylabel("accuracy, %", color=MUTED, fontsize=8)


def training(result: Result, curves: Sequence[Curves]) -> PanelGrid:
    """A row for each run and step: its loss, and its accuracy on training clips; dashed with dots where held out."""
    rows = []
    for each in curves:
        for step, records in each.steps.items():
            shown, name = thinned(records), f"{shortened(each.run)}, {step}"
            rows.append(
                [Panel(f"{name}: {what}", 3.6, 1.9, partial(_draw_log, shown, what)) for what in ("loss", ACCURACY)]
            )
    dashed = " · dashed with dots: held out" if any(each.held_out for each in curves) else ""
    return PanelGrid("Training", f"{described(result)} · loss: mean over frames and streams{dashed}", rows)


def _draw_log(records: list[dict[str, float]], what: str, axes: Axes) -> None:
    columns = {"loss": ("loss", MUTED, 1)}
    if what == ACCURACY:
        columns = {f"{stream}_accuracy": (stream, colour, 100) for stream, colour in STREAM_COLOURS.items()}
    for name, (label, colour, factor) in columns.items():
        for prefix, style, of in (("", "-", ""), ("validation_", "o--", ", held out")):
            points = [(each["iteration"], factor * each[prefix + name]) for each in records if prefix + name in each]
            if points:
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, linewidth=1.2, markersize=3, label=label + of
                )
    axes.set_xlabel("update", color=MUTED, fontsize=8)
    axes.set_ylabel(f"{what}, %" if what == ACCURACY else what, color=MUTED, fontsize=8)
    axes.set_ylim(0, 100 if what == ACCURACY else None)
    if what == ACCURACY and axes.lines:
        axes.legend(frameon=False, fontsize=8, labelcolor=TEXT)
