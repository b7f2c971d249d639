"""One stream: a bottleneck ResNet whose state-dict keys are torchvision's, taken stage by stage.

Letters: B videos, T frames, N = B*T frames of all videos end to end, T' time steps after pooling, C channels, H W
pixels.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.interface import options
from pipelines.interface.options import Depth, ResNetForm, TemporalInit
from pipelines.models.blocks import EXPANSION, BlockOutput, Bottleneck, batch_norm, convolution
from pipelines.models.dropout import VideoDropout
from pipelines.models.temporal import TemporalConv, TemporalMaxPool

BLOCKS: dict[Depth, tuple[int, ...]] = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CLASSIFIER_DEVIATION = 0.01  # paper.md 2.6


class Stage(nn.ModuleList):
    """Blocks a, b, c, ... of one resolution, opened between a and b, where the streams meet."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        blocks: int,
        *,
        stride: int,
        form: ResNetForm,
        temporal: TemporalInit | None,
    ) -> None:
        out_channels = EXPANSION * width
        super().__init__(
            [
                Bottleneck(in_channels, width, stride=stride, form=form),
                Bottleneck(out_channels, width, temporal=temporal),  # paper.md 2.2: block b of every stage
                *(Bottleneck(out_channels, width) for _ in range(blocks - 2)),
            ]
        )

    def block_a(self, x: Tensor, frames: int) -> BlockOutput:
        """Block a: [N, C, H, W] -> [N, C', H', W'] before and after its ReLU."""
        return cast(Bottleneck, self[0]).opened(x, frames)

    def from_block_b(self, a: BlockOutput, residual_input: Tensor | None, frames: int) -> Tensor:
        """Block b, with another input of its residual branch where one is given, and the blocks after it."""
        x = self[1](a.after_relu, frames, residual_input)
        for block in list(self)[2:]:
            x = block(x, frames)
        return x


class Stream(nn.Module):
    """A ResNet over N frames: `stem`, four `stages`, `classify`."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: Depth,
        width: int,
        stem_width: int,
        form: ResNetForm,
        temporal: TemporalInit | None,
        temporal_pool: tuple[int, int] | None,
        dropout: float,
    ) -> None:
        """
        Args:
            in_channels: Of its input.
            num_classes: Of its classifier.
            depth: Layers.
            width: Channels of the 3x3 convolutions of the first stage.
            stem_width: Channels of the first layer.
            form: Of the ResNet (see `blocks`).
            temporal: How the temporal kernels of each block b start; None for none.
            temporal_pool: (size, stride) of the max pooling over frames, or None.
            dropout: Probability before the classifier.
        """
        super().__init__()
        options.require("depth", Depth, depth)
        self.form = form
        self.conv1 = convolution(in_channels, stem_width, 7, stride=2)
        self.bn1 = batch_norm(stem_width)
        blocks = BLOCKS[depth]
        self.layer1 = Stage(stem_width, width, blocks[0], stride=1, form=form, temporal=temporal)
        self.layer2 = Stage(EXPANSION * width, 2 * width, blocks[1], stride=2, form=form, temporal=temporal)
        self.layer3 = Stage(EXPANSION * 2 * width, 4 * width, blocks[2], stride=2, form=form, temporal=temporal)
        self.layer4 = Stage(EXPANSION * 4 * width, 8 * width, blocks[3], stride=2, form=form, temporal=temporal)
        self.temporal_pool = TemporalMaxPool(*temporal_pool) if temporal_pool else None
        self.dropout = VideoDropout(dropout)
        self.fc = nn.Linear(EXPANSION * 8 * width, num_classes)
        nn.init.normal_(self.fc.weight, std=CLASSIFIER_DEVIATION)
        nn.init.zeros_(self.fc.bias)

    @property
    def stages(self) -> tuple[Stage, Stage, Stage, Stage]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    def freeze(self, groups: int) -> None:
        """Lets all parameters be trained but those of the first so many of the groups conv1 (with its batch norm),
        conv2_x, ..., conv5_x, for which no gradient is computed.

        Of these groups the convolutions over time stay trained: whoever keeps pretrained layers means what single
        frames taught them, and that cannot be kept in kernels that are yet to learn what to do with time. Batch norm
        goes on taking the statistics of each batch, and its running ones move: with those of the pretrained network a
        joint network diverged, since the other stream is added to what they were measured on.
        """
        self.requires_grad_(True)
        for group in ((self.conv1, self.bn1), *self.stages)[:groups]:
            for part in group:
                part.requires_grad_(False)
        for layer in self.modules():
            if isinstance(layer, TemporalConv):
                layer.requires_grad_(True)

    def stem(self, x: Tensor) -> Tensor:
        """[B, T, C, H, W] -> [N, stem_width, about H/4, about W/4]: rounded up in form v1.5, down in v1.
        Channels beyond those of the first convolution are ignored."""
        conv, frames = self.conv1, x.flatten(0, 1)
        if added := x.shape[2] - conv.in_channels:
            weight = F.pad(conv.weight, (0, 0, 0, 0, 0, added))
            features = F.conv2d(frames, weight, conv.bias, conv.stride, conv.padding)
        else:
            features = conv(frames)
        x = F.relu(self.bn1(features), inplace=True)
        if self.form == "v1":
            return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)

    def pool_over_time(self, x: Tensor, frames: int) -> Tensor:
        """[N, C, H, W] of the last stage -> feature maps [B, T', C, H, W]."""
        if self.temporal_pool is not None:
            x, frames = self.temporal_pool(x, frames)
        return x.unflatten(0, (-1, frames))

    def features(self, maps: Tensor) -> Tensor:
        """Feature maps [B, T', C, H, W] -> what the classifier is given: [B, T', C], averaged over whatever H and W
        are."""
        return maps.flatten(0, 1).mean(dim=(2, 3)).unflatten(0, maps.shape[:2])

    def classify(self, maps: Tensor) -> Tensor:
        """Feature maps [B, T', C, H, W] -> logits [B, T', classes]."""
        features = self.features(maps)
        frames = features.shape[1]
        return self.fc(self.dropout(features.flatten(0, 1), frames)).unflatten(0, (-1, frames))

    def class_activation_maps(self, maps: Tensor) -> Tensor:
        """Feature maps [B, T', C, H, W] -> [B, T', classes, H, W]: the classifier at each pixel, weights times features
        plus bias, without dropout. It is linear, so that the mean over H and W is `classify`'s logits (Zhou, Khosla,
        Lapedriza, Oliva and Torralba, "Learning deep features for discriminative localization", CVPR 2016).
        """
        return self.fc(maps.movedim(2, -1)).movedim(-1, 2)
