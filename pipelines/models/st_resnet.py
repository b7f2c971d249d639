"""The spatiotemporal residual network (paper.md 2): two ResNets, joined at block b of every stage.

Letters: B videos, T frames, T' frames after temporal pooling, L flow fields of a stack, H W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from pipelines.errors import UsageError
from pipelines.interface import options
from pipelines.interface.options import CameraMotion, Depth, Direction, Fusion, ResNetForm, StreamName, TemporalInit
from pipelines.models.blocks import BlockOutput
from pipelines.models.normalise import RGB_DEVIATION, RGB_MEAN, Normalise
from pipelines.models.stream import Stream


class StreamLogits(NamedTuple):
    """Both classifiers' outputs before softmax."""

    appearance: Tensor | None = None
    """[B, T', classes]; None where the network lacks the stream."""
    motion: Tensor | None = None
    """[B, T', classes]; None where the network lacks the stream."""


class STResNet(nn.Module):
    """ST-ResNet (Feichtenhofer et al., NIPS 2016) over torchvision-shaped ResNets.

    The state dict's keys are `appearance.<key>` and `motion.<key>`, with the keys of torchvision's ResNet. It takes any
    T and any image size.
    """

    def __init__(
        self,
        num_classes: int,
        depth: Depth = 50,
        width: int = 64,
        flow_channels: int = 20,
        fusion: Fusion = "add",
        temporal_kernels: bool = True,
        temporal_pool: Sequence[int] | None = None,
        *,
        direction: Direction = "motion-to-appearance",
        temporal_init: TemporalInit = "average",
        dropout: float = 0.0,
        streams: Sequence[StreamName] = ("appearance", "motion"),
        resnet: ResNetForm = "v1.5",
        stem_width: int | None = None,
        rgb_mean: Sequence[float] | None = None,
        rgb_deviation: Sequence[float] | None = None,
        camera_motion: CameraMotion = "none",
    ) -> None:
        """
        Args:
            num_classes: Classes of each of the two classifiers.
            depth: Layers, all in bottleneck blocks.
            width: Channels of the 3x3 convolutions of the first stage; the paper's are 64.
            flow_channels: 2L, x and y of L flow fields.
            fusion: How one stream enters the other (paper.md 2.1). With one stream only, nothing is connected.
            temporal_kernels: Whether block b of every stage has 3x1x1 kernels (paper.md 2.2).
            temporal_pool: (size, stride) in frames of the max pooling after the last stage (paper.md 2.3), or None.
            direction: Which stream enters the other.
            temporal_init: How the 3x1x1 kernels start.
            dropout: Probability before the classifiers, from 0 to below 1.
            streams: The streams to build; one alone is what the base steps train.
            resnet: Form of both ResNets (see `blocks`); the weights do not tell which one is theirs.
            stem_width: Channels of the first layer; None: as many as `width`.
            rgb_mean: Of red, green and blue on a scale of 0..1, by which `normalise` makes the input; None for
                torchvision's.
            rgb_deviation: Likewise.
            camera_motion: What `normalise` subtracts from each flow field (`Normalise`).

        Raises:
            UsageError: An argument is out of range.
        """
        super().__init__()
        stem_width = width if stem_width is None else stem_width
        sizes = {"num_classes": num_classes, "width": width, "stem_width": stem_width, "flow_channels": flow_channels}
        for name, value in sizes.items():
            options.require(name, options.Positive, value)
        options.require("resnet", ResNetForm, resnet)
        options.require("fusion", Fusion, fusion)
        options.require("direction", Direction, direction)
        options.require("temporal_init", TemporalInit, temporal_init)
        options.require("camera_motion", CameraMotion, camera_motion)
        options.require("dropout", options.Probability, dropout)
        if temporal_pool is not None and (len(temporal_pool) != 2 or min(temporal_pool) < 1):
            raise UsageError(f"temporal_pool must be (size, stride), each at least 1, got {temporal_pool!r}")
        accepted = get_args(StreamName)
        if isinstance(streams, str) or not streams or any(name not in accepted for name in streams):
            raise UsageError(f"streams must hold one or both of {', '.join(accepted)}, got {streams!r}")
        mean, deviation = tuple(rgb_mean or RGB_MEAN), tuple(rgb_deviation or RGB_DEVIATION)
        if len(mean) != 3 or len(deviation) != 3 or min(deviation) <= 0:
            raise UsageError(
                "rgb_mean and rgb_deviation must be three numbers each, the latter positive, "
                f"got {rgb_mean} and {rgb_deviation}"
            )
        self.num_classes, self.depth, self.flow_channels = num_classes, depth, flow_channels
        self.resnet, self.width, self.stem_width = resnet, width, stem_width
        self.rgb_mean, self.rgb_deviation, self.camera_motion = mean, deviation, camera_motion

        def stream(name: StreamName, in_channels: int) -> Stream | None:
            if name not in streams:
                return None
            return Stream(
                in_channels,
                num_classes,
                depth=depth,
                width=width,
                stem_width=stem_width,
                form=resnet,
                temporal=temporal_init if temporal_kernels else None,
                temporal_pool=(temporal_pool[0], temporal_pool[1]) if temporal_pool is not None else None,
                dropout=dropout,
            )

        self.appearance = stream("appearance", 3)
        self.motion = stream("motion", flow_channels)
        self.fusion, self.direction = fusion, direction
        _store_channels_last(self)

    @property
    def streams(self) -> dict[StreamName, Stream]:
        """The streams that there are, by name."""
        both: dict[StreamName, Stream | None] = {"appearance": self.appearance, "motion": self.motion}
        return {name: stream for name, stream in both.items() if stream is not None}

    def normalise(self) -> Normalise:
        """What makes this network's input from stored bytes."""
        return Normalise(self.rgb_mean, self.rgb_deviation, self.camera_motion)

    def forward(self, rgb: Tensor | None, flow: Tensor | None) -> StreamLogits:
        """Classifies clips.

        Args:
            rgb: [B, T, 3, H, W], normalised; ignored by a network without appearance stream.
            flow: [B, T, 2L, H, W], normalised; ignored by a network without motion stream. Both may have zeros as
                further channels, up to a multiple of 8 (`Prepare`).

        Raises:
            UsageError: An input is missing or of another shape.
        """
        maps = self.feature_maps(rgb, flow)
        return StreamLogits(**{name: stream.classify(maps[name]) for name, stream in self.streams.items()})

    def feature_maps(self, rgb: Tensor | None, flow: Tensor | None) -> dict[StreamName, Tensor]:
        """Each stream's last feature maps, pooled over time but not over space: [B, T', C, H', W']. The arguments and
        errors are those of `forward`."""
        self._check_inputs(rgb, flow)
        if self.appearance is None or self.motion is None:
            return {
                name: _alone(stream, rgb if name == "appearance" else flow) for name, stream in self.streams.items()
            }
        assert rgb is not None
        assert flow is not None
        frames = rgb.shape[1]
        appearance, motion = self.appearance.stem(rgb), self.motion.stem(flow)
        for appearance_stage, motion_stage in zip(self.appearance.stages, self.motion.stages, strict=True):
            a, m = appearance_stage.block_a(appearance, frames), motion_stage.block_a(motion, frames)
            # paper.md 2.1, eq. 3: f(x_a) + F(x_a + f(x_m)); and the same with the streams exchanged.
            appearance = appearance_stage.from_block_b(a, self.connected(a, m, "motion-to-appearance"), frames)
            motion = motion_stage.from_block_b(m, self.connected(m, a, "appearance-to-motion"), frames)
        return {
            "appearance": self.appearance.pool_over_time(appearance, frames),
            "motion": self.motion.pool_over_time(motion, frames),
        }

    def connected(self, own: BlockOutput, other: BlockOutput, direction: Direction) -> Tensor | None:
        """What F of a stream's block b takes instead of f(x); None where the other stream does not enter it."""
        if self.fusion == "none" or self.direction not in (direction, "both"):
            return None
        return (torch.add if self.fusion == "add" else torch.mul)(own.before_relu, other.after_relu)

    def _check_inputs(self, rgb: Tensor | None, flow: Tensor | None) -> None:
        if self.appearance is not None:
            _check_input("rgb", rgb, 3)
        if self.motion is not None:
            _check_input("flow", flow, self.flow_channels)
        if self.appearance is None or self.motion is None or rgb is None or flow is None:
            return
        if rgb.shape[:2] != flow.shape[:2] or rgb.shape[3:] != flow.shape[3:]:
            raise UsageError(
                "rgb and flow must be of the same videos, frames and pixels, "
                f"got rgb {list(rgb.shape)} and flow {list(flow.shape)}"
            )


def _alone(stream: Stream, x: Tensor | None) -> Tensor:
    """The feature maps of a stream with nothing connected to it."""
    assert x is not None
    frames = x.shape[1]
    features = stream.stem(x)
    for stage in stream.stages:
        features = stage.from_block_b(stage.block_a(features, frames), None, frames)
    return stream.pool_over_time(features, frames)


def _store_channels_last(model: nn.Module) -> None:
    """Keeps kernels channels_last in memory, and with them every feature: what `TemporalConv` is fast on.

    Measured forward + backward on one CPU core, depth 50, width 16, 8 videos of 5 frames 64x80: 0.56 s, without 0.83 s.
    """
    # Clones have the strides of gradients, even in dimensions of one: DistributedDataParallel warns of others.
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.clone(memory_format=torch.channels_last)
        elif parameter.ndim == 5:
            parameter.data = parameter.data.squeeze(-1).clone(memory_format=torch.channels_last).unsqueeze(-1)


# ------------------------------------------------------------------ checks


def _check_input(name: str, x: Tensor | None, channels: int) -> None:
    if x is None:
        raise UsageError(f"{name} is None, but the network has the stream that takes it: give {name}")
    if x.ndim != 5 or x.shape[2] not in (channels, channels + -channels % 8) or min(x.shape) < 1:
        raise UsageError(f"{name} must be [B, T, {channels}, H, W], got {list(x.shape)}")
    if not x.is_floating_point():
        raise UsageError(f"{name} must hold normalised floats, got {x.dtype}: pass it through Normalise first")
