from pipelines.importing import flow as stage
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(example="stres import-flow tvl1_flow/ --method tvl1 --bound 20", shared=True, interrupted=interrupted_text)
def import_flow(ui: CommandUI, config: stage.Config) -> None:
    """Import flow that another tool stored as grey pictures in folders, value for value.

    Videos with different numbers of x and y pictures, or whose number does not fit the stored frames (one more frame
    than fields), are listed in failures.csv. Run it again to do only what is missing.
    """
    show(ui, stage.run(config, ui.on_progress), config)
