"""Loss and accuracy on training videos that are held out, measured while a step is trained.

Letters: T frames of a video.
"""

from collections import defaultdict
from collections.abc import Mapping

import torch

from pipelines.datasets.augmentation import REFERENCE
from pipelines.datasets.samples import BadSample, TestSamples
from pipelines.models import STResNet
from pipelines.training.data import TrainingData
from pipelines.training.loop import StepTrainer, Validate, autocast_of, correct_videos, video_loss
from pipelines.training.run_config import RunConfig

_FEWEST_FRAMES = 3  # of a video, where the step is trained on single ones


def held_out_measure(data: TrainingData, config: RunConfig, trainer: StepTrainer) -> Validate | None:
    """What `StepTrainer.fit` calls to validate; None where nothing is held out.

    Each video is seen as in the test, but once: T frames spaced over it, the center crop, not mirrored. Videos that
    cannot be read are passed over. Every process measures all of them, so that all have the same numbers.

    Args:
        data: With the videos held out.
        config: Of the run.
        trainer: Of the step.
    """
    if not data.validation:
        return None
    step, device = trainer.step, trainer.device
    samples = TestSamples(
        data.validation,
        data.validation_labels,
        size=config.size,
        crops=max(step.frames, _FEWEST_FRAMES),
        views="center",
        mirror=False,
        reference=REFERENCE[step.augmentation],
        stack=config.network.flow_channels // 2,
        streams=step.streams,
        clip=(step.frames, sum(step.stride) // 2) if step.name == "student" else None,
    )

    def measure(model: STResNet, update: int) -> Mapping[str, float]:
        sums: defaultdict[str, float] = defaultdict(float)
        of_class: defaultdict[int, list[float]] = defaultdict(list)
        for index in range(len(samples)):
            sample = samples[index]
            if isinstance(sample, BadSample):
                continue
            shown = sample.to(device)
            labels = torch.tensor([sample.label], device=device)
            with autocast_of(device, trainer.precision):
                logits = model(*trainer.prepare(shown.rgb, shown.flow))
            terms = sum(stream.shape[1] for stream in logits if stream is not None)
            sums["loss"] += float(video_loss(logits, labels)) / terms
            sums["videos"] += 1
            for name, correct in correct_videos(logits, labels).items():
                sums[f"{name}_accuracy"] += float(correct)
            of_class[sample.label].append(float(correct))  # of both streams where there are two
        videos = sums.pop("videos", 0.0)
        if not videos:
            return {}
        mean_class = sum(sum(each) / len(each) for each in of_class.values()) / len(of_class)
        means = {name: value / videos for name, value in sums.items()}
        return {**means, "mean_class_accuracy": mean_class, "videos": videos}

    return measure
