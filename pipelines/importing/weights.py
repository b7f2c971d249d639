"""Stage `import-weights`: a pretrained ResNet of another program, as one file that says what it is."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Depth, Option, ResNetForm
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress
from pipelines.storage.placeholders import placeholder_in

if TYPE_CHECKING:
    from torch import Tensor

STAGE = "import-weights"
_CALIBRATION_SIDE = 224


@dataclass(frozen=True)
class Config:
    """Settings of `import-weights`."""

    file: Annotated[Path, Option(metavar="FILE", argument=True)]
    """A state dict (.pth, .pt), a MatConvNet DagNN (.mat), or a converted Caffe network (.onnx)."""
    output: Annotated[Path, Option(flag="--output -o", metavar="FILE")]
    """File to write, for train --weights."""
    resnet: Annotated[ResNetForm | None, Option(default="what the file says")] = None
    """v1 (stride in the first 1x1 of a block) or v1.5 (in the 3x3; torchvision's and timm's)."""
    mean: Annotated[tuple[float, float, float] | None, Option(metavar="R,G,B", default="what the file says")] = None
    """Mean to subtract from red, green and blue (0..255); torchvision's: 123.675,116.28,103.53."""
    deviation: Annotated[
        tuple[float, float, float] | None, Option(metavar="R,G,B", above=0, default="what the file says")
    ] = None
    """Standard deviation to divide by then; Caffe's: 1,1,1, torchvision's: 58.395,57.12,57.375."""
    bgr: bool = False
    """The network takes blue, green, red, as Caffe's do; --mean and --deviation stay in the order red, green, blue."""
    calibrate: Annotated[str | None, Option(metavar="VIDEOS")] = None
    """Re-estimate the batch-norm statistics on frames of these videos; its output in a test stays the same."""
    frames: Annotated[int, Option(metavar="N", minimum=8, maximum=100_000)] = 256
    """Number of frames to calibrate with."""

    def __post_init__(self) -> None:
        options.check(self)
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if values is not None and len(values) != 3:
                raise UsageError(f"--{name}: give three numbers, of red, green and blue")
        if told := placeholder_in(self.file):
            raise MissingError(f"{self.file} cannot be read: {told}")
        if self.output.suffix not in (".pth", ".pt"):
            raise UsageError(f"--output {self.output}: give a name that ends with .pth")
        if self.file.suffix == ".onnx" and (self.mean is None or self.deviation is None):
            raise UsageError(
                f"{self.file} does not tell how its pictures are normalised: give --mean and --deviation, for Caffe's "
                "networks of ImageNet --mean 123.68,116.779,103.939 --deviation 1,1,1 --bgr"
            )


@dataclass(frozen=True)
class Result:
    """What was written."""

    output: Path
    source: str
    depth: Depth
    width: int
    stem_width: int
    resnet: ResNetForm
    calibration_frames: int


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Reads the network, and writes it as `train --weights` takes it.

    Raises:
        MissingError: The file is missing, damaged or another network, or there is no video to calibrate with.
        UsageError: Nothing tells the form of the network, or its batch norms are folded and there is no `calibrate`.
        StorageError: Writing fails.
    """
    import io

    import torch

    from pipelines.models.backbones import FORM_UNKNOWN, from_matconvnet, from_onnx, recalibrate
    from pipelines.models.weights import read_backbone
    from pipelines.storage.atomic import require_writable, write_bytes

    require_writable(files=[config.output])
    folded = False
    mean, deviation = (
        None if values is None else tuple(value / 255 for value in values) for values in (config.mean, config.deviation)
    )
    if config.file.suffix == ".mat":
        backbone = from_matconvnet(config.file)
    elif config.file.suffix == ".onnx":
        assert mean is not None
        assert deviation is not None
        backbone, folded = from_onnx(config.file, mean, deviation, bgr=config.bgr)
    else:
        backbone = read_backbone(config.file)
    form = backbone.form or config.resnet
    if form is None:
        raise UsageError(f"{config.file} {FORM_UNKNOWN}")
    if config.resnet not in (None, form):
        raise UsageError(f"{config.file} is of form {form}: leave --resnet {config.resnet} out")
    if folded and config.calibrate is None:
        raise UsageError(
            f"the batch norms of {config.file} are folded into its convolutions, which leaves nothing to train with: "
            "add --calibrate VIDEOS, some hundred frames of what it is to be trained on"
        )
    state = dict(backbone.state)
    if config.bgr and config.file.suffix != ".onnx":
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    backbone = replace(
        backbone,
        state=state,
        form=form,
        rgb_mean=mean or backbone.rgb_mean,
        rgb_deviation=deviation or backbone.rgb_deviation,
        source=backbone.source or config.file.name,
    )
    pictures = 0
    if config.calibrate is not None:
        shown = _pictures(config.calibrate, config.frames, on_progress)
        pictures = len(shown)
        backbone = recalibrate(backbone, shown)
    content = io.BytesIO()
    torch.save(backbone.document(), content)
    write_bytes(config.output, content.getvalue())
    return Result(config.output, backbone.source, backbone.depth, backbone.width, backbone.stem_width, form, pictures)


def _pictures(videos: str, count: int, on_progress: OnProgress) -> "Tensor":
    """Every eighth frame of the videos, as many of each, its center: uint8 [N, 3, 224, 224]."""
    import torch
    import torchvision.transforms.v2.functional as transforms

    from pipelines.errors import MissingError, VideoError
    from pipelines.sources.videos import find_videos
    from pipelines.video.decoding import VideoReader

    sources = find_videos(videos, to_store=False).videos
    each = -(-count // max(1, len(sources)))
    pictures: list[Tensor] = []
    for done, source in enumerate(sources):
        try:
            with VideoReader(source.path) as reader:
                shown = [frame for _, frame in itertools.islice(reader.pick(lambda index: index % 8 == 0), each)]
        except VideoError:
            continue
        for frame in shown:
            picture = torch.from_numpy(frame).permute(2, 0, 1)
            picture = transforms.resize(picture, [_CALIBRATION_SIDE * 8 // 7], antialias=True)
            pictures.append(transforms.center_crop(picture, [_CALIBRATION_SIDE] * 2))
        on_progress(Progress(STAGE, done + 1, len(sources), "videos"))
        if len(pictures) >= count:
            break
    if not pictures:
        raise MissingError(f"--calibrate {videos}: no frame of its videos could be decoded")
    return torch.stack(pictures[:count])
