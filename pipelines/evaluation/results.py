"""What evaluating a run leaves: `scores/<run>/<protocol>/scores.h5` and `results.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.datasets.catalogue import lack_of
from pipelines.errors import MissingError, StresError
from pipelines.evaluation.fusion_weight import ChosenWeight
from pipelines.evaluation.metrics import results_document
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scores import SCORES_SCHEMA, Scores, read_scores, size_of_scores, write_scores
from pipelines.evaluation.scoring import with_fused
from pipelines.evaluation.unfinished import Logits, UnfinishedScores
from pipelines.evaluation.videos import TestVideos
from pipelines.interface.options import EQUAL_WEIGHTS
from pipelines.storage.atomic import read_json, remove_left_over_temporary_files, require_writable, write_json
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from pipelines.training.run_config import RunConfig
from pipelines.training.runs import Run


@dataclass(frozen=True)
class Results:
    """Where the results of one test go, and what they say of it."""

    workspace: Workspace
    run: Run
    config: RunConfig
    protocols: Sequence[Protocol]
    """All of the same step."""
    precision: str
    folder: Path
    """Of the run's scores (`scores_folder`)."""
    test: TestVideos

    def require_writable(self) -> None:
        """Raises `StorageError` before anything is scored where the scores cannot be written."""
        folders = [self.folder / protocol.name for protocol in self.protocols]
        # Of all protocols: at least 4 bytes for each video and class.
        room = 4 * len(folders) * len(self.test.videos) * len(self.config.classes)
        require_writable(self.workspace.root, *folders, room=room)

    def unfinished(self, device: torch.device) -> UnfinishedScores:
        """What the same test, on the same kind of device, left when it was interrupted."""
        recalibrated_on = self.test.training if self.protocols[0].recalibrate_bn else []
        about = {
            "protocols": [self._attributes(protocol) for protocol in self.protocols],
            "device": device.type,
            "recalibrated_on": [[video.id, video.origin] for video in recalibrated_on],
        }
        return UnfinishedScores(self.folder / self.protocols[0].name, about)

    def kept(self) -> list[tuple[Path, dict[str, Any]]] | None:
        """What `write` left of the same test, in which every video was scored; None where anything is missing or
        differs."""
        found = []
        for protocol in self.protocols:
            folder = self.folder / protocol.name
            try:
                attributes, scores = peek(folder / "scores.h5", SCORES_SCHEMA), read_scores(folder / "scores.h5")
                document = read_json(folder / "results.json")
            except StresError:
                return None
            if not isinstance(document, dict):
                return None
            about = {**self._attributes(protocol), "content_sha256": document.get("scores_sha256")}
            if (
                any(attributes.get(name) != value for name, value in about.items())
                or scores.videos != [video.id for video in self.test.videos]
                or scores.sources != [video.origin for video in self.test.videos]
                or document.get("missing") != list(self.test.missing)
            ):
                return None
            found.append((folder, document))
        return found

    def write(
        self,
        logits: Mapping[int, Sequence[Logits]],
        failures: Sequence[Failure],
        chosen: Sequence[ChosenWeight] = (),
    ) -> list[tuple[Path, dict[str, Any]]]:
        """Records what could not be scored, and writes what could.

        Args:
            logits: Of each video that was scored, by its index in `test.videos`: its logits under each protocol.
            failures: The videos that could not be scored.
            chosen: For each protocol the weight of appearance, where that is chosen on held-out videos.

        Returns:
            For each protocol its folder, and the content of its `results.json`.

        Raises:
            MissingError: No video was scored.
        """
        test = self.test
        remove_left_over_temporary_files(self.workspace.root, below=False)
        remove_left_over_temporary_files(self.folder)
        scored = [("evaluate", test.videos[i].class_name, test.videos[i].video) for i in logits]
        record_outcomes(self.workspace, failed=failures, succeeded=scored)
        if not logits:
            raise self._nothing_scored(failures)
        further: dict[str, Any] = {"missing": test.missing, "failed": [failure.id for failure in failures]}
        if excluded := self.config.excluded_classes:
            further["excluded_classes"] = list(excluded)
        if self.config.split_set:
            further["split_set"] = self.config.split_set
        if not test.is_other and self.run.split().groups_from == "none":
            further["groups"] = "none"
        written = []
        # The first last: `stres report` takes the newest where the paper's protocol is not among them.
        for number, protocol in reversed(list(enumerate(self.protocols))):
            weight = chosen[number].weight if chosen else float(protocol.fusion_weight)
            scores = self._scores({i: of_protocols[number] for i, of_protocols in logits.items()}, weight)
            attributes = self._attributes(protocol)
            results = results_document(protocol.document(), self.config.split, self.run.name, scores)
            results |= {"step": protocol.step} | further | test.document()
            if chosen:
                results["fusion"] = asdict(chosen[number])
                attributes["chosen_fusion_weight"] = weight
            if "run_folder" in attributes:
                results |= {name: attributes[name] for name in ("run_folder", "weights_sha256")}
            folder = self.folder / protocol.name
            write_scores(folder / "scores.h5", scores, attributes)
            write_json(folder / "results.json", results)
            written.append((folder, results))
        return written[::-1]

    def size(self, logits: Logits | None) -> int:
        """The bytes of all `scores.h5`, from the logits of any video (None: none could be read).

        Raises:
            MissingError: There is no video to score.
        """
        if not self.test.videos:
            raise self._nothing_scored(self.test.damaged)
        if logits is None:
            return 0
        scores = self._scores(dict.fromkeys(range(len(self.test.videos)), logits))
        return sum(size_of_scores(scores, self._attributes(protocol)) for protocol in self.protocols)

    def _nothing_scored(self, failures: Sequence[Failure]) -> MissingError:
        """`failures` came of everything that was there."""
        reasons = []
        if missing := len(self.test.missing):
            reasons.append(f"{missing} {'has' if missing == 1 else 'have'} {lack_of(self.test.streams)}")
        if failures:
            reasons.append(f"{len(failures)} cannot be read, for example: {failures[0].reason}")
        return MissingError(
            f"no test video of run {self.run.name} could be scored: {' and '.join(reasons)}; run "
            f"`stres extract-frames` and `stres extract-flow` on them in {self.workspace.root}"
        )

    def _attributes(self, protocol: Protocol) -> dict[str, Any]:
        """What `scores.h5` says of where its scores come from."""
        return {
            **({} if self.run.lies_in(self.workspace) else {"run_folder": str(self.run.folder.resolve())}),
            **({"dataset": "other"} if self.test.is_other else {}),
            "run": self.run.name,
            "split": self.config.split,
            "precision": self.precision,
            "weights_sha256": self.run.weights_sha256(protocol.step),
            **protocol.document(),
            "step": protocol.step,
        }

    def _scores(self, logits: Mapping[int, Logits], weight: float = EQUAL_WEIGHTS) -> Scores:
        """Of all videos under one protocol."""
        order = sorted(logits)
        own = {name: torch.stack([logits[i][name] for i in order]).numpy() for name in logits[order[0]]}
        streams = with_fused(own, weight)
        return Scores(
            videos=[self.test.videos[i].id for i in order],
            labels=np.array([self.test.labels[i] for i in order], dtype=np.int64),
            classes=list(self.config.classes),
            sources=[self.test.videos[i].origin for i in order],
            **{name: value.astype(np.float32) for name, value in streams.items()},
        )
