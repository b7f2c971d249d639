"""The loss of paper.md 2.4: both streams' cross-entropies, summed over time steps, averaged over videos."""

import torch
import torch.nn.functional as F

from pipelines.models import StreamLogits


def video_loss(logits: StreamLogits, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Sum over videos of both streams' cross-entropies summed over the T' time steps: a scalar.

    `logits`: each [B, T', C] or None; `labels`: int64 [B], repeated for each time step. Divide by the number of videos
    of the whole batch for the average.
    """
    total = labels.new_zeros((), dtype=torch.float32)
    for stream in logits:
        if stream is not None:
            steps = stream.shape[1]
            total = total + F.cross_entropy(
                stream.flatten(0, 1).float(),
                labels.repeat_interleave(steps),
                label_smoothing=label_smoothing,
                reduction="sum",
            )
    return total


def correct_videos(logits: StreamLogits, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """How many videos each stream, and their sum, put into the right class by logits averaged over time.

    Scalars on the device of the logits, so that counting does not wait for it.
    """
    means = {name: stream.detach().float().mean(1) for name, stream in logits._asdict().items() if stream is not None}
    if len(means) == 2:
        means["fused"] = means["appearance"] + means["motion"]
    return {name: (mean.argmax(1) == labels).sum() for name, mean in means.items()}
