"""The numbers by which stored bytes are normalised, for training, test and exported files: the one place they stand in.

How clips are cut, mirrored, resized and stacked on the way to the network is in `pipelines.datasets.preparation`.

Letters: H W pixels, L flow fields of a stack (2L channels, x then y of each).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.errors import UsageError
from pipelines.interface.options import CameraMotion
from pipelines.storage.quantise import MAX_LEVEL, NO_MOTION, level_tensor_type


@dataclass(frozen=True)
class Stored:
    """The type and the largest value of an input, which is given as it is stored."""

    type: torch.dtype
    largest: int

    def __str__(self) -> str:
        return str(self.type).removeprefix("torch.")


INPUTS = {"rgb": Stored(torch.uint8, 255), "flow": Stored(level_tensor_type(), MAX_LEVEL)}

# Of torchvision's ImageNet weights, on a scale of 0..1.
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_DEVIATION = (0.229, 0.224, 0.225)
# paper.md 1.4: of bytes 57.6, 255 times ImageNet's mean deviation, which suits first layers made for RGB.
FLOW_MEAN = float(NO_MOTION)
FLOW_DEVIATION = 57.6 * (MAX_LEVEL / 255)


class Normalise(nn.Module):
    """Makes uint8 frames and quantised flow the floats that `STResNet.forward` takes.

    Its constants move with `.to(device)` but enter no state dict.
    """

    rgb_mean: Tensor
    rgb_deviation: Tensor

    def __init__(
        self,
        rgb_mean: Sequence[float] = RGB_MEAN,
        rgb_deviation: Sequence[float] = RGB_DEVIATION,
        camera_motion: CameraMotion = "none",
    ) -> None:
        """
        Args:
            rgb_mean: Of red, green and blue on a scale of 0..1; torchvision's unless given.
            rgb_deviation: Likewise.
            camera_motion: Which displacement is taken for the camera's and subtracted from each field: its mean
                (Simonyan and Zisserman 2014) or its median, of x and of y, over the part of the picture that is given.
        """
        super().__init__()
        self.camera_motion = camera_motion
        for name, values in (("rgb_mean", rgb_mean), ("rgb_deviation", rgb_deviation)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor | None, flow: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Normalises both; None stays None.

        Args:
            rgb: uint8 [..., 3, H, W].
            flow: Levels [..., 2L, H, W].

        Returns:
            (rgb / 255 - mean) / deviation, and (flow - FLOW_MEAN) / FLOW_DEVIATION; with `camera_motion` each field's
            own mean or median stands in the place of FLOW_MEAN.

        Raises:
            UsageError: An input is not as it is stored, so that it may have been normalised before.
        """
        if rgb is not None:
            _require_stored("rgb", rgb)
            if rgb.ndim < 3 or rgb.shape[-3] != 3:
                raise UsageError(f"rgb must be [..., 3, H, W], got {list(rgb.shape)}")
            rgb = self.frames_(self._floats(rgb))
        if flow is not None:
            _require_stored("flow", flow)
            flow = self.fields_(self._floats(flow))
        return rgb, flow

    def frames_(self, values: Tensor) -> Tensor:
        """rgb as floats on 0..255, which is what resizing makes of bytes; changes them in place."""
        # One channel after the other: rows of three to subtract from take six times as long on the CPU.
        moments = zip(self.rgb_mean.flatten(), self.rgb_deviation.flatten(), strict=True)
        for channel, (mean, deviation) in enumerate(moments):
            values.select(-3, channel).sub_(mean).div_(deviation)
        return values

    def fields_(self, values: Tensor) -> Tensor:
        """The same for flow."""
        return values.sub_(self._stillness(values)).div_(FLOW_DEVIATION)

    def _stillness(self, fields: Tensor) -> Tensor | float:
        """The level that stands for no motion: of each component of each field [..., H, W] one, [..., 1, 1].

        Levels are linear in displacement, so it makes no difference that pixels per frame come later, or never.
        """
        if self.camera_motion == "none":
            return FLOW_MEAN
        if self.camera_motion == "mean":
            return fields.mean((-2, -1), keepdim=True)
        pixels = fields.flatten(-2)
        if torch.compiler.is_exporting():  # ONNX knows no median; sorting takes several times as long
            median = pixels.sort(-1).values[..., (pixels.shape[-1] - 1) // 2]
        else:
            median = pixels.median(-1).values
        return median[..., None, None]

    def _floats(self, x: Tensor) -> Tensor:
        """With the channels of a pixel side by side in memory, as the network's kernels have them. That is done with
        bytes, since the first convolution would do it twice, with floats."""
        return x.movedim(-3, -1).contiguous().movedim(-1, -3).to(self.rgb_mean.dtype)


def _require_stored(name: str, x: Tensor) -> None:
    stored = INPUTS[name]
    if x.dtype != stored.type:
        wanted = f"{stored} as it is stored (0..{stored.largest})"
        raise UsageError(f"{name} must be {wanted}, got {x.dtype}: give it before normalising")
