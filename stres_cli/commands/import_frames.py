from pipelines.importing import frames as stage
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(example="stres import-frames jpegs_256/ --list ucfTrainTestlist/", shared=True, interrupted=interrupted_text)
def import_frames(ui: CommandUI, config: stage.Config) -> None:
    """Import frames that another tool stored as pictures in folders.

    JPEGs are kept byte for byte. Videos with gaps in their numbering, with pictures of several sizes or with pictures
    that cannot be decoded are listed in failures.csv. Run it again to do only what is missing.
    """
    show(ui, stage.run(config, ui.on_progress), config)
