"""Loss and accuracy on training videos that are held out, measured while a step is trained.

Letters: T frames of a video.
"""

from collections import defaultdict
from collections.abc import Mapping

import torch

from pipelines.datasets.augmentation import REFERENCE
from pipelines.datasets.loading import make_loader
from pipelines.datasets.samples import BadSample, TestSamples
from pipelines.models import STResNet
from pipelines.runtime.devices import loader_workers
from pipelines.training.data import TrainingData
from pipelines.training.loop import StepTrainer, Validate, autocast_of, correct_videos, video_loss
from pipelines.training.run_config import RunConfig

_FEWEST_FRAMES = 3  # of a video, where the step is trained on single ones


def held_out_measure(data: TrainingData, config: RunConfig, trainer: StepTrainer, workers: int = 0) -> Validate | None:
    """What `StepTrainer.fit` calls to validate; None where nothing is held out.

    Each video is seen as in the test, but once: T frames spaced over it, the center crop, not mirrored. Videos that
    cannot be read are passed over. The processes share the videos, and sum what they found in the order of the videos:
    all have the same numbers, however many they are.

    Args:
        workers: Loader processes; 0: as many as suit the device.
    """
    if not data.validation:
        return None
    step, device, plan = trainer.step, trainer.device, trainer.plan
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

    mine = range(plan.ranks.rank, len(samples), plan.size)
    loaders = min(loader_workers(workers, device), len(mine))

    def measure(model: STResNet, update: int) -> Mapping[str, float]:
        own: dict[int, tuple[int, dict[str, float]]] = {}
        for sample in make_loader(samples, mine, loaders, device):
            if isinstance(sample, BadSample):
                continue
            shown = sample.to(device)
            labels = torch.tensor([sample.label], device=device)
            with autocast_of(device, trainer.precision):
                logits = model(*trainer.prepare(shown.rgb, shown.flow))
            terms = sum(stream.shape[1] for stream in logits if stream is not None)
            found = {"loss": float(video_loss(logits, labels)) / terms}
            found |= {f"{name}_accuracy": float(right) for name, right in correct_videos(logits, labels).items()}
            own[sample.index] = sample.label, found
        of_all = sorted((index, found) for part in plan.gather(own) for index, found in part.items())
        if not of_all:
            return {}
        measured = [found for _, (_, found) in of_all]
        means = {name: sum(each[name] for each in measured) / len(measured) for name in measured[0]}
        of_class: defaultdict[int, list[float]] = defaultdict(list)
        for _, (label, found) in of_all:
            of_class[label].append(list(found.values())[-1])  # of both streams where there are two
        mean_class = sum(sum(each) / len(each) for each in of_class.values()) / len(of_class)
        return {**means, "mean_class_accuracy": mean_class, "videos": float(len(measured))}

    return measure
