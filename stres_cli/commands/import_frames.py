"""`stres import-frames`: others' folders of pictures to stored frames."""

from pipelines import import_frames as stage
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(example="stres import-frames jpegs_256/ --list ucfTrainTestlist/", shared=True, interrupted=interrupted_text)
def import_frames(ui: CommandUI, config: stage.Config) -> None:
    """Store frames that another tool left as pictures in folders.

    JPEGs keep their bytes. Gaps in the numbers, other sizes and pictures that cannot be decoded make a video a row of
    failures.csv. The same command again does only what is not done.
    """
    show(ui, stage.run(config, ui.on_progress), config.workspace, wanted="pictures")
