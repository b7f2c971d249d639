"""What the networks of a report look at in the clips that its page shows."""

from pathlib import Path

import numpy as np
import torch

from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.clips import Clips
from pipelines.datasets.samples import BadSample
from pipelines.datasets.sampling import spaced_centers
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.protocols import IMPORTED, Protocol
from pipelines.evaluation.run import Samples
from pipelines.evaluation.scoring import Scorer, shortest_window
from pipelines.prediction.attention import Attention, attention_to, class_maps
from pipelines.prediction.predictor import Logits
from pipelines.reporting.evaluations import SavedEvaluation
from pipelines.runtime.devices import memory_errors
from pipelines.storage.provenance import same_origin
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run, load_network, recipe_of


class ClipAttention:
    """Puts stored videos through the network of one evaluation once more, as they were tested.

    Args:
        evaluation: What was tested, and how.

    Raises:
        MissingError: The network that was tested is not there.
        UsageError: Its test has no maps of whole frames, or used other statistics than the weights hold.
    """

    def __init__(self, workspace: Workspace, evaluation: SavedEvaluation, device: torch.device) -> None:
        attributes, settings = evaluation.attributes, evaluation.protocol
        run = Run(
            Path(attributes["run_folder"]) if "run_folder" in attributes else workspace.runs / evaluation.run,
            settings.get("checkpoint", "last"),
        )
        if IMPORTED in settings or not run.config_file.is_file():
            raise MissingError(
                f"--attention needs the network that was tested, and {run.folder} has none: report a run that was "
                "trained here, or leave --attention out"
            )
        self.protocol = Protocol(**settings | {"step": str(attributes["step"])})
        if self.protocol.views != "full" or self.protocol.recalibrate_bn:
            raise UsageError(
                f"--attention needs a test of whole frames without --recalibrate-bn, not {evaluation.protocol_name}: "
                "name another by --protocol, or leave --attention out"
            )
        step, config = self.protocol.step, run.config()
        network, recipe = load_network(run, step), recipe_of(config, step)
        sha256 = run.weights_sha256(step)
        if attributes.get("weights_sha256", sha256) != sha256:
            raise MissingError(f"run {run.folder} has other weights of {step} than were tested: run `stres evaluate`")
        self.scorer = Scorer(network, device)
        self.cuts = self.protocol.windows(recipe.frames, shortest_window(network), run.name)
        samples = Samples.of(self.protocol, config.size, recipe, 0, device)
        self.samples = samples.of_videos(network, [], [], mirror=self.protocol.mirror)
        self.sources = dict(zip(evaluation.scores.videos, evaluation.scores.sources or [], strict=False))
        self.videos = {video.id: video for video in load_catalogue(workspace, write=False).videos}

    def maps(self, video_id: str) -> tuple[Logits, np.ndarray, Clips] | None:
        """`class_maps` of a video, the frames that went through the network, and what it was given; None where the
        workspace does not hold what was tested."""
        video = self.videos.get(video_id)
        if video is None or not video.has(self.samples.reader.streams):
            return None
        source = self.sources.get(video_id, "")
        sample = self.samples.make(0, video, 0)
        if isinstance(sample, BadSample) or (source and not same_origin(source, video.origin)):
            return None
        with memory_errors("leave --attention out"):
            maps = class_maps(self.scorer, self.cuts, sample.rgb, sample.flow)
        samples, shown = self.samples, sample.rgb if sample.rgb is not None else sample.flow
        assert shown is not None
        centers = spaced_centers(video.frames, samples.crops, samples.reader.stack, video.flow_step, samples.clip)
        return maps, centers, shown

    def look(self, video_id: str, class_index: int) -> Attention | None:
        """Where and when the network saw a class in a video; None where `maps` has none."""
        found = self.maps(video_id)
        if found is None:
            return None
        maps, centers, shown = found
        return attention_to(class_index, maps, self.scorer.network, self.cuts, centers, shown)
