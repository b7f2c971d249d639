import shlex
from pathlib import Path

from pipelines import show_flow as stage
from pipelines.interface.options import command_line, fields_of
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
    ui.out.say(
        f"{what} by {result.method}: colours full at {result.max_flow:.3g} px, longest vector {result.largest:.3g} "
        f"px, {100 * result.at_bound:.2g} % of the vectors at the bound of {result.bound:g} px"
    )
    ui.out.say(f"written: {result.output}{_then(config)}")


def _then(config: stage.Config) -> str:
    """Of a video file, where no flow is stored yet, the command that stores such flow of all videos."""
    if not Path(config.video).is_file() or any((config.workspace / "flow").glob("*/*.h5")):
        return ""
    given, words = config.given(), ["extract-flow", "VIDEOS"]
    for field in fields_of(stage.Config):
        value = given.get(field.name)
        texts = [f"{name}={text}" for name, text in value.items()] if isinstance(value, dict) else [value]
        words += [shlex.quote(word) for text in texts if text is not None for word in (field.flag, field.typed(text))]
    return f"; next: {command_line(config.workspace, *words)}"
