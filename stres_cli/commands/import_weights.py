import shlex

from pipelines.importing import weights as stage
from pipelines.interface.wording import plural
from stres_cli import NOTHING_WRITTEN_IN_PART
from stres_cli.config_options import command
from stres_cli.console import CommandUI


@command(example="stres import-weights imagenet-resnet-50-dag.mat -o resnet50.pth", interrupted=NOTHING_WRITTEN_IN_PART)
def import_weights(ui: CommandUI, config: stage.Config) -> None:
    """Convert a pretrained ResNet of another program into a file that describes itself.

    It reads state dicts with torchvision's names (torchvision, timm; also from DistributedDataParallel), MatConvNet's
    DagNN files and Caffe's ResNets converted to ONNX. The new file holds the network's form and the normalisation of
    its pictures, which train --weights adopts.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    calibrated = f"; batch norm from {plural(result.calibration_frames, 'frame')}" if result.calibration_frames else ""
    ui.out.say(
        f"{result.source}: ResNet-{result.depth} {result.resnet}, first layer of {result.stem_width} channels, "
        f"first stage of {result.width}{calibrated}"
    )
    then = f"stres train --split 1 --weights {shlex.quote(str(result.output))}"
    ui.out.say(f"written: {result.output}; next: {then}")
