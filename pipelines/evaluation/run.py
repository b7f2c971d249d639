"""Running a network over test videos, under several protocols at once: each video is read once for all of them.

Letters: V views, T frames, L flow fields of a stack, h w network input.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from pipelines.datasets.augmentation import REFERENCE, Size
from pipelines.datasets.catalogue import Video, unreadable
from pipelines.datasets.loading import make_loader
from pipelines.datasets.samples import BadSample, TestSample, TestSamples
from pipelines.datasets.sampling import spread_evenly
from pipelines.errors import MissingError
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.recalibration import Clip, recalibrate_batch_norm
from pipelines.evaluation.scoring import Scorer, mean_logits
from pipelines.evaluation.unfinished import Logits, UnfinishedScores
from pipelines.evaluation.videos import TestVideos, not_scored
from pipelines.interface.wording import plural
from pipelines.models import STResNet
from pipelines.runtime.devices import loader_workers, memory_errors
from pipelines.runtime.progress import OnProgress, Progress, note
from pipelines.runtime.ranks import ranks
from pipelines.storage.failures import Failure
from pipelines.training.recipes import Step

Cuts = list[list[int]]
"""Which of a video's frames go through the network together (`Protocol.windows`)."""


@dataclass(frozen=True)
class Samples:
    """What is read of a video, and how: `frames` centers, for a network trained at `size` on `reference` of the box."""

    frames: int
    size: Size
    reference: float
    workers: int
    device: torch.device
    clip: tuple[int, int] | None = None
    """Frames of a clip and their distance, where the frames are in clips."""

    @classmethod
    def of(cls, protocol: Protocol, size: Size, trained_as: Step, workers: int, device: torch.device) -> "Samples":
        """For a network trained so at that size."""
        reference = REFERENCE[trained_as.augmentation]
        return cls(protocol.frames, size, reference, workers, device, protocol.clip(trained_as))

    def of_videos(
        self, network: STResNet, videos: Sequence[Video], labels: Sequence[int], *, mirror: bool = False
    ) -> TestSamples:
        """What the network is given of these videos; of whole frames, with `mirror` their mirror images too."""
        return TestSamples(
            videos,
            labels,
            size=self.size,
            crops=self.frames,
            clip=self.clip,
            mirror=mirror,
            reference=self.reference,
            streams=tuple(network.streams),
            stack=network.flow_channels // 2,
        )

    def read(
        self, network: STResNet, videos: Sequence[Video], labels: Sequence[int], numbers: Iterable[int] | None = None
    ) -> Iterator[TestSample | BadSample]:
        """The pixels of each video in their order, or of those of the given numbers in that order."""
        samples = self.of_videos(network, videos, labels)
        order = range(len(samples)) if numbers is None else numbers
        return iter(make_loader(samples, order, loader_workers(self.workers, self.device), self.device))

    def seen(self, sample: TestSample, protocol: Protocol) -> TestSample:
        """The sample in the views of `protocol`."""
        return sample.with_views(self.size, views=protocol.views, mirror=protocol.mirror, reference=self.reference)


def scored(
    scorer: Scorer,
    samples: Samples,
    protocols: Sequence[tuple[Protocol, Cuts]],
    test: TestVideos,
    numbers: Iterable[int],
) -> Generator[tuple[int, list[Logits] | str]]:
    """Scores videos by their indices in `test.videos`.

    Yields:
        The index of a video, and its logits under each protocol, or why there are none.
    """
    advice = "use --precision bf16 or fewer --crops"
    computing: list[tuple[int, list[Callable[[], Logits]]]] = []
    for sample in samples.read(scorer.network, test.videos, test.labels, numbers):
        if isinstance(sample, BadSample):
            yield sample.index, sample.reason
            continue
        with memory_errors(advice):
            here = sample.to(scorer.device)  # once for all protocols
            views = [samples.seen(here, protocol) for protocol, _ in protocols]
            computing.append(
                (
                    sample.index,
                    [
                        scorer.begin(seen.rgb, seen.flow, cuts, mean_logits)
                        for seen, (_, cuts) in zip(views, protocols, strict=True)
                    ],
                )
            )
        if len(computing) > (scorer.device.type == "cuda"):  # a GPU has the next video before this one is waited for
            yield _scores(*computing.pop(0), advice)
    for index, waiting in computing:
        yield _scores(index, waiting, advice)


def _scores(index: int, waiting: Sequence[Callable[[], Logits]], advice: str) -> tuple[int, list[Logits]]:
    with memory_errors(advice):
        return index, [wait() for wait in waiting]


def score_videos(
    scorer: Scorer,
    samples: Samples,
    protocols: Sequence[tuple[Protocol, Cuts]],
    test: TestVideos,
    unfinished: UnfinishedScores | None,
    on_progress: OnProgress,
    phase: str = "evaluate",
) -> tuple[dict[int, list[Logits]], list[Failure]]:
    """Scores every test video that can be read; under torchrun the ranks share them.

    Args:
        unfinished: On rank 0, where the scores are kept as they come. Videos that are there are not scored again.

    Returns:
        The logits of each video under each protocol, by its index in `test.videos`, and all failures; on rank 0 those
        of all ranks.
    """
    logits = unfinished.of(test.videos) if unfinished else {}
    failures = list(test.damaged)
    left = ranks().broadcast_from_rank0(lambda: [index for index in range(len(test.videos)) if index not in logits])
    if logits:
        before = len(logits)
        on_progress(note(f"{before} of {plural(len(test.videos), 'video')} were scored before the interruption"))
        on_progress(Progress(phase, before, len(test.videos)))

    def work(numbers: Iterator[int]) -> Generator[tuple[int, list[Logits] | str]]:
        return scored(scorer, samples, protocols, test, (left[number] for number in numbers))

    with contextlib.closing(ranks().pool(len(left), work)) as outcomes:
        for done, (_, (index, outcome)) in enumerate(outcomes, len(logits) + 1):
            message = ""
            if isinstance(outcome, str):
                failures.append(unreadable("evaluate", test.videos[index], outcome))
                message = not_scored(failures[-1])
            else:
                logits[index] = outcome
                if unfinished:
                    unfinished.add(test.videos[index], outcome)
            counts = {"failed": len(failures)} if failures else {}
            on_progress(Progress(phase, done, len(test.videos), metrics=counts, message=message))
    return logits, failures


def recalibrate(
    network: STResNet,
    samples: Samples,
    protocol: Protocol,
    cuts: Cuts,
    training: Sequence[Video],
    run: str,
    on_progress: OnProgress,
) -> None:
    """Re-estimates batch norm's statistics on training videos, spaced evenly over their list, under `protocol`.

    Raises:
        MissingError: None of them can be read.
    """
    count = min(protocol.recalibrate_bn, len(training))
    chosen = [training[i] for i in spread_evenly(0, len(training) - 1, count)] if count else []

    def clips() -> Iterator[Clip]:
        for done, sample in enumerate(samples.read(network, chosen, [0] * count), 1):
            if isinstance(sample, TestSample):  # one that is damaged is the training's to report
                seen = samples.seen(sample, protocol)
                for cut in cuts:
                    rgb, flow = (None if x is None else x.frames(cut) for x in (seen.rgb, seen.flow))
                    yield rgb, flow
            on_progress(Progress("recalibrate", done, count))

    try:
        with memory_errors("use fewer --crops"):
            recalibrate_batch_norm(network.to(samples.device), clips(), samples.device)
    except ValueError:
        raise MissingError(
            f"--recalibrate-bn {protocol.recalibrate_bn}: none of {count} training videos of run {run} "
            "could be read: extract their frames and flow, or leave the option out"
        ) from None
