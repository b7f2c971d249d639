from pipelines import predict as stage
from pipelines.errors import Interrupted
from pipelines.prediction.results import Prediction
from pipelines.runtime.devices import keep_freed_memory
from stres_cli.config_options import command
from stres_cli.console import CommandUI
from stres_cli.prediction_view import show, show_partly


@command(
    example="stres predict clip.avi --run split1",
    shared=True,
    interrupted="interrupted: what was predicted so far is above",
)
def predict(ui: CommandUI, config: stage.Config) -> None:
    """Classify videos directly from file.

    Frames and flow are made as for the run's training, but only where the network looks; only timelines are stored.
    """
    keep_freed_memory()
    done: list[Prediction] = []
    try:
        result = stage.run(config, ui.on_progress, done.append)
    except Interrupted:
        show_partly(ui, done)
        raise
    show(ui, result, config)
