"""`stres show-flow`: draws optical flow."""

from pipelines import show_flow as stage
from pipelines.interface.wording import plural
from stres_cli.config_options import command
from stres_cli.console import CommandUI


@command(example="stres show-flow clip.avi --all --output flow.mp4")
def show_flow(ui: CommandUI, config: stage.Config) -> None:
    """Draw the flow of a video: in colour with a key, its magnitude, and as stored.

    One frame gives a PNG picture, all frames give a video. With CLASS/VIDEO nothing is computed.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    what = f"frame {result.frame}" if result.frame is not None else plural(result.pictures, "frame")
    ui.out.print(
        f"{what} by {result.method}: colours full at {result.max_flow:.3g} px, longest vector {result.largest:.3g} "
        f"px, {100 * result.at_bound:.2g} % of the vectors at the bound of {result.bound:g} px",
        soft_wrap=True,
    )
    ui.out.print(f"written: {result.output}", soft_wrap=True)
