"""The progress of a prediction."""

import time
from dataclasses import replace

from pipelines.prediction.results import Prediction
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.storage.failures import Failure

STAGE = "predict"


class PredictionProgress:
    """Counts videos, or the frames of a single one."""

    def __init__(self, on_progress: OnProgress, videos: int, failed: int) -> None:
        self.on_progress, self.videos = on_progress, videos + failed
        self.done = self.bad = 0
        self.video_seconds, self.started = 0.0, time.monotonic()
        self._last: Progress | None = None  # of the frames of a single video

    def frames(self, done: int, total: int, phase: str = STAGE) -> None:
        if self.videos == 1:
            if self._last is not None and self._last.phase != phase:
                self._end_phase()
            self._last = Progress(phase, done, max(total, done), "frames")
            self.on_progress(self._last)
        elif phase == STAGE:
            self._tell(frame=f"{done}/{total}" if total else str(done))

    def predicted(self, prediction: Prediction) -> None:
        self.done += 1
        self.video_seconds += prediction.seconds
        if self.videos > 1:
            self._tell()
        else:
            self._end_phase()

    def _end_phase(self) -> None:
        """Counts frames after the last that is looked at, or that the container only announces, as done."""
        if self._last is not None:
            self.on_progress(replace(self._last, done=self._last.total))

    def failed(self, failure: Failure) -> None:
        self.done += 1
        self.bad += 1
        self._tell(f"{failure.path}: {failure.reason}")

    def _tell(self, message: str = "", frame: str = "") -> None:
        rate = self.video_seconds / max(time.monotonic() - self.started, 1e-9)
        metrics: dict[str, float | int | str] = {"video s/s": round(rate, 2)} if self.video_seconds else {}
        if frame:  # of the video under way, whose seconds are not counted yet
            metrics = {"frame": frame}
        if self.bad:
            metrics["failed"] = self.bad
        self.on_progress(Progress(STAGE, self.done, self.videos, metrics=metrics, message=message))
