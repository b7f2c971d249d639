"""`stres import-weights`: converts a pretrained ResNet of another program for `train --weights`."""

import shlex

from pipelines.importing import weights as stage
from pipelines.interface.wording import plural
from stres_cli.config_options import command
from stres_cli.console import CommandUI, printable


@command(
    example="stres import-weights imagenet-resnet-50-dag.mat -o resnet50.pth",
    interrupted="interrupted: no incomplete file is left; run the command again",
)
def import_weights(ui: CommandUI, config: stage.Config) -> None:
    """Convert a pretrained ResNet of another program into a file that describes itself.

    It reads state dicts with torchvision's names (torchvision, timm; also from DistributedDataParallel), MatConvNet's
    DagNN files and Caffe's ResNets converted to ONNX. The new file holds the network's form and the normalisation of
    its pictures, which train --weights adopts.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    calibrated = f"; batch norm from {plural(result.calibration_frames, 'frame')}" if result.calibration_frames else ""
    ui.out.print(
        printable(
            f"{result.source}: ResNet-{result.depth} {result.resnet}, first layer of {result.stem_width} channels, "
            f"first stage of {result.width}{calibrated}"
        ),
        soft_wrap=True,
    )
    then = f"stres train --split 1 --weights {shlex.quote(str(result.output))}"
    ui.out.print(printable(f"written: {result.output}; next: {then}"), soft_wrap=True)
