"""A student of the joint network: the appearance stream with kernels over time, which sees close frames and no flow.

It is trained by cross-entropy, and by matching what the joint network, frozen, makes of the same frames and their flow:
its motion features (Crasto et al., "MARS", CVPR 2019; Stroud et al., "D3D", WACV 2020), and its class probabilities
(Hinton et al., "Distilling the knowledge in a neural network", 2015).

Letters: B videos, T frames, T' time steps of the logits, C classes, K channels of a stream's features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models import StreamLogits, STResNet

MATCHING_LOSSES = {"feature_loss": "feature_weight", "logit_loss": "logit_weight"}
"""Those that `matching_losses` gives, and the field of `Step` that is the weight of each."""


class Teacher(nn.Module):
    """The joint network, frozen: in evaluation mode, without gradients."""

    def __init__(self, network: STResNet) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, rgb: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised [B, T, 3, H, W] and [B, T, 2L, H, W] -> float32 logits [B, C], the mean of both streams, and
        motion features [B, K]; both averaged over time."""
        maps = self.network.feature_maps(rgb, flow)
        logits = [self.network.streams[name].classify(of).float().mean(1) for name, of in maps.items()]
        motion = self.network.streams["motion"].features(maps["motion"]).float().mean(1)
        return torch.stack(logits).mean(0), motion


class Student(nn.Module):
    """The network to be trained, and a linear map from its features to the teacher's motion features.

    Through the map the network can keep what tells appearances apart beside what predicts motion. It begins as the
    identity, and is not part of the finished network.
    """

    def __init__(self, network: STResNet) -> None:
        super().__init__()
        self.network = network
        classifier = network.streams["appearance"].fc
        channels = classifier.in_features
        self.feature_map = nn.Linear(channels, channels, bias=False, dtype=classifier.weight.dtype)
        nn.init.eye_(self.feature_map.weight)

    def forward(self, rgb: Tensor, flow: Tensor | None = None) -> tuple[StreamLogits, Tensor]:
        """Normalised [B, T, 3, H, W] -> the network's logits [B, T', C], and the motion features that it predicts:
        [B, K], averaged over time. `flow` is not looked at."""
        stream = self.network.streams["appearance"]
        maps = self.network.feature_maps(rgb, None)["appearance"]
        return StreamLogits(appearance=stream.classify(maps)), self.feature_map(stream.features(maps).mean(1))


def matching_losses(
    logits: StreamLogits, features: Tensor, taught: tuple[Tensor, Tensor], temperature: float
) -> dict[str, Tensor]:
    """How far a student is from its teacher.

    Args:
        logits: The student's, [B, T', C].
        features: The motion features that it predicts, [B, K].
        taught: The teacher's logits [B, C] and motion features [B, K].
        temperature: By which both logits are divided.

    Returns:
        Sums over videos, scalars. `feature_loss`: the squared distance of the features over the squared length of the
        teacher's, so that its weight does not depend on their scale, which differs by network. `logit_loss`: the
        Kullback-Leibler divergence of the student's probabilities, of its logits averaged over time, from the
        teacher's, times the temperature's square, so that its gradients do not depend on the temperature.
    """
    assert logits.appearance is not None
    own = F.log_softmax(logits.appearance.float().mean(1) / temperature, dim=1)
    others = F.log_softmax(taught[0] / temperature, dim=1)
    scale = taught[1].square().sum(1).clamp_min(1e-6)
    return {
        "feature_loss": ((features.float() - taught[1]).square().sum(1) / scale).sum(),
        "logit_loss": temperature**2 * F.kl_div(own, others, reduction="sum", log_target=True),
    }
