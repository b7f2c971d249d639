from pipelines import demo as stage
from pipelines.interface.wording import duration, percent
from stres_cli.config_options import command
from stres_cli.confusion_view import render_confusion
from stres_cli.console import CommandUI
from stres_cli.tables import Table


@command(example="stres demo --workspace demo-work")
def demo(ui: CommandUI, config: stage.Config) -> None:
    """Run every stage on a small synthetic data set, and report.

    The clips show balls of three colours that rise, fall or cross: appearance tells the colour, motion the movement,
    and only both tell the class. Needs no data and no internet; everything is stored in WORKSPACE/demo.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    table = Table("", "top-1", "95 % interval", title=f"{result.test_videos} held-out clips, 9 classes")
    rows = {
        "appearance alone": result.appearance,
        "motion alone": result.motion,
        "late fusion": result.late_fusion,
        "spatiotemporal residual network": result.fused,
    }
    for name, values in rows.items():
        low, high = values["top1_interval"]
        table.add_row(name, f"{percent(values['top1'])} %", f"{percent(low)} - {percent(high)} %")
    render_confusion(result.report, ui.out)
    ui.out.print(table)
    times = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in result.seconds.items())
    ui.out.say(f"{duration(sum(result.seconds.values()))}: {times}")
    ui.out.say(
        f"report: {result.report.files['report.html']}; next, with videos of your own: stres extract-frames VIDEOS"
    )
