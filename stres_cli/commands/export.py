from pipelines import export as stage
from pipelines.interface.options import python_command
from pipelines.interface.wording import percent
from stres_cli import NOTHING_WRITTEN_IN_PART
from stres_cli.config_options import command
from stres_cli.console import CommandUI


@command(example="stres export model.onnx --run split1", interrupted=NOTHING_WRITTEN_IN_PART)
def export(ui: CommandUI, config: stage.Config) -> None:
    """Write a run's network as one file that runs without stres, with a model card.

    The file takes frames and flow as bytes at the network's size, for any number of videos and frames, and returns
    probabilities. It is kept only if its output agrees with the run to 1e-4.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    ui.out.say(f"run {result.run}, {result.step}: {result.file}, {result.bytes / 1e6:.1f} MB")
    for name, shape in (*result.inputs.items(), *result.outputs.items()):
        ui.out.print(f"  {name:13} {shape}")
    ui.out.print(f"  B 1 or more, T {result.fewest_frames} or more")
    found = result.check
    seen = f"{found.video}: {found.class_name} {percent(found.probability)} %" if found.video else "noise"
    ui.out.say(f"checked on {seen}, largest difference from the run {found.largest_difference:.1e}")
    ui.out.say(f"model card: {result.card}; next: {python_command(result.usage)}")
