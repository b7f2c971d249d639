from pipelines import extract_frames as stage
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(example="stres extract-frames UCF-101/ --workspace ucf101", shared=True, interrupted=interrupted_text)
def extract_frames(ui: CommandUI, config: stage.Config) -> None:
    """Store every frame of the videos as JPEG.

    Run it again to do only what is missing. Videos that cannot be read are listed in failures.csv.
    """
    show(ui, stage.run(config, ui.on_progress), config)
