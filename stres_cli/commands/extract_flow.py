from pipelines import extract_flow as stage
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(example="stres extract-flow --method tvl1 --device cuda", shared=True, interrupted=interrupted_text)
def extract_flow(ui: CommandUI, config: stage.Config) -> None:
    """Compute and store the optical flow between consecutive frames.

    Run it again to do only what is missing. Videos that cannot be read are listed in failures.csv.
    """
    show(ui, stage.run(config, ui.on_progress), config)
