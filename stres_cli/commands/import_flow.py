"""`stres import-flow`: others' folders of grey pictures to stored optical flow."""

from pipelines import import_flow as stage
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(example="stres import-flow tvl1_flow/ --method tvl1 --bound 20", shared=True, interrupted=interrupted_text)
def import_flow(ui: CommandUI, config: stage.Config) -> None:
    """Store flow that another tool left as grey pictures in folders, value for value.

    Videos whose x and y differ in number, or that do not fit their stored frames (one more than fields), become rows
    of failures.csv. The same command again does only what is not done.
    """
    show(ui, stage.run(config, ui.on_progress), config.workspace, wanted="pictures")
