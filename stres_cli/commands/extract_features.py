from pipelines import extract_features as stage
from pipelines.interface.options import python_command, python_literal
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(
    example="stres extract-features videos/ --window 16f --hop 8f --stream both",
    shared=True,
    interrupted=interrupted_text,
)
def extract_features(ui: CommandUI, config: stage.Config) -> None:
    """Store the features that a run's network gives its classifiers, for other programs.

    For each video a .npy file and an HDF5 file with times. Frames and flow are made as predict makes them.
    """
    result = stage.run(config, ui.on_progress)
    show(ui, result, config)
    if result.channels:
        sizes = ", ".join(f"{channels} channels of {name}" for name, channels in result.channels.items())
        array = python_literal(min(result.folder.glob("*/[!.]*.npy")))
        then = python_command(["import numpy", f"print(numpy.load({array}).shape)"])
        text = f"a row for each {config.per}, {sizes}: {result.folder}; next: {then}"
        ui.out.say(text)
