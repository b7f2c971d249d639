from pipelines import export_flow as stage
from pipelines.interface.options import python_command
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.extraction_view import show


@command(example="stres export-flow tvl1_flow/ --layout denseflow", shared=True, interrupted=interrupted_text)
def export_flow(ui: CommandUI, config: stage.Config) -> None:
    """Write the stored flow as grey pictures in folders, for other tools.

    OUT/flow.json describes them: layout, method, bound and step. Run it again to do only what is missing.
    """
    result = stage.run(config, ui.on_progress)
    show(ui, result, config)
    if result.usage:
        then = f"pictures in {config.output}; next, one of them in pixels of motion: {python_command(result.usage)}"
        ui.out.say(then)
