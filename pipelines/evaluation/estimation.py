"""What scoring the test videos will take, from some of them. Writes nothing."""

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pipelines.datasets.catalogue import unreadable
from pipelines.datasets.sampling import spread_evenly
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.run import Cuts, Logits, Samples, scored
from pipelines.evaluation.scoring import Scorer
from pipelines.evaluation.videos import TestVideos, not_scored
from pipelines.runtime.devices import loader_workers
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.runtime.ranks import ranks
from pipelines.storage.failures import Failure

# Measured videos: this many, or three rounds of the loader processes, or what so many seconds are enough for.
_VIDEOS, _ROUNDS, _SECONDS = 8, 3, 20.0


@dataclass(frozen=True)
class EvaluationEstimate:
    """What scoring will take."""

    videos: int
    """Test videos to score."""
    recalibrated: int
    """Training videos that `--recalibrate-bn` reads before, counted as long as a test video."""
    seconds_per_video: float
    """Mean of `measured_videos`, in all protocols; 0 where none of them could be read."""
    measured_videos: int
    hours: float
    """Of all ranks together."""
    gigabytes: float
    """Of `scores.h5`, of all protocols."""
    held_out: int = 0
    """Held-out videos that are scored before, to choose the fusion weight on, counted as long as a test video."""

    @classmethod
    def of(cls, videos: int, recalibrated: int, held_out: int, measured: list[float], bytes_of_scores: int) -> Self:
        """Under torchrun each rank scores its share of the videos, and recalibrates for itself. `measured`: seconds."""
        seconds = statistics.mean(measured) if measured else 0.0
        return cls(
            videos=videos,
            recalibrated=recalibrated,
            seconds_per_video=seconds,
            measured_videos=len(measured),
            hours=seconds * ((videos + held_out) / ranks().size + recalibrated) / 3600,
            gigabytes=bytes_of_scores / 1e9,
            held_out=held_out,
        )


def measure(
    scorer: Scorer,
    samples: Samples,
    protocols: Sequence[tuple[Protocol, Cuts]],
    test: TestVideos,
    on_progress: OnProgress,
) -> tuple[list[float], Logits | None, list[Failure]]:
    """Scores videos spread evenly over the list.

    The first of each loader process only warm up, where there are others: they come all at once.

    Returns:
        The seconds that each of the others took; the logits of one of them under one protocol, None where none could be
        read; and those that could not.
    """
    warm_up = max(1, loader_workers(samples.workers, samples.device))
    count = min(len(test.videos), warm_up + max(_VIDEOS, _ROUNDS * warm_up))
    chosen = spread_evenly(0, len(test.videos) - 1, count).tolist() if count else []
    seconds: list[float] = []
    logits: Logits | None = None
    failures: list[Failure] = []
    on_progress(Progress("evaluate (dry run)", 0, count))
    started = last = time.monotonic()
    with contextlib.closing(scored(scorer, samples, protocols, test, chosen)) as outcomes:
        for done, (index, outcome) in enumerate(outcomes, 1):
            now, message = time.monotonic(), ""
            if isinstance(outcome, str):
                failures.append(unreadable("evaluate", test.videos[index], outcome))
                message = not_scored(failures[-1])
            else:
                seconds.append(now - last)
                logits = outcome[0]
            last = now
            on_progress(Progress("evaluate (dry run)", done, count, message=message))
            if done > warm_up and now - started >= _SECONDS:
                on_progress(Progress("evaluate (dry run)", done, done))
                break
    return seconds[warm_up:] or seconds, logits, failures
