"""Small pictures of test clips for the page: a frame and the flow that follows it, as data URIs within a budget.

Letters: V videos, F flow fields, H W pixels.
"""

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.drawing.colour import flow_to_colour
from pipelines.drawing.flow_picture import motion_of_bytes
from pipelines.evaluation.metrics import Scored, softmax
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError
from pipelines.storage.provenance import is_pictures
from pipelines.storage.quantise import step_size
from pipelines.storage.workspace import Workspace, is_plain_name

LISTED = 48  # the most confident mistakes that all have pictures
LONG_SIDE = 144  # pixels; a frame of UCF101 then takes 1.5 to 4.4 kB and its flow 1.2 to 2.2 (five clips)
QUALITY = 70
MISTAKE, RESCUED, RIGHT = range(3)  # right only with motion: rescued
MOST_BYTES = 6_000_000  # of all thumbnails: a page that can still be sent by mail


@dataclass(frozen=True)
class Thumbnail:
    """Data URIs of one frame and of its flow in colours; None where the workspace does not hold it."""

    frame: str | None
    flow: str | None

    @property
    def bytes(self) -> int:
        return len(self.frame or "") + len(self.flow or "")


def clips_to_show(tables: Sequence[Scored], number: int) -> list[int]:
    """Chooses the clips most worth a picture.

    The most confident mistakes, which the page lists; then the most confident clips of every cell of the confusion
    matrix before the second of any, mistakes before those that motion rescued, and these before the other right ones.

    Args:
        tables: Scores of each split.
        number: How many clips, at most.

    Returns:
        Their indices, counted through all splits.
    """
    kinds: list[tuple[int, int, int]] = []
    confidences: list[float] = []
    for table in tables:
        logits = list(table.streams.values())[-1]
        guesses = logits.argmax(axis=1)
        alone = table.streams.get("appearance", logits).argmax(axis=1)
        confidences += softmax(logits).max(axis=1).tolist()
        for true, guess, without in zip(table.labels.tolist(), guesses.tolist(), alone.tolist(), strict=True):
            kinds.append((MISTAKE if guess != true else RESCUED if without != true else RIGHT, true, guess))
    seen: Counter[object] = Counter()
    rounds = [0] * len(kinds)  # a clip of an earlier round comes first, and within a round the more confident one
    for index in sorted(range(len(kinds)), key=lambda index: -confidences[index]):
        kind = kinds[index]
        seen[kind[0]] += 1
        listed = kind[0] == MISTAKE and seen[MISTAKE] <= LISTED
        rounds[index] = 0 if listed else seen[kind] + kind[0]
        seen[kind] += 1
    return sorted(range(len(kinds)), key=lambda index: (rounds[index], -confidences[index]))[:number]


def thumbnails(
    workspace: Workspace,
    tables: Sequence[Scored],
    number: int,
    on_clip: Callable[[int, int], None],
    sources: Mapping[str, str] | None = None,
) -> dict[int, Thumbnail]:
    """Makes thumbnails: at most `number`, and at most `MOST_BYTES` together.

    Args:
        workspace: Where frames and flow lie.
        tables: Scores of each split.
        number: How many clips are chosen (`clips_to_show`).
        on_clip: Called as `on_clip(done, total)`.
        sources: SHA-256 of the video that was scored, by id, where it is known.

    Returns:
        By the clip's index, counted through all splits. A clip has none where its frames and flow are missing, damaged,
        or by now those of another video than was scored.
    """
    ids = [video for table in tables for video in table.videos]
    chosen = clips_to_show(tables, number) if workspace.frames.is_dir() or workspace.flow.is_dir() else []
    made: dict[int, Thumbnail] = {}
    size = 0
    for done, index in enumerate(chosen, 1):
        thumbnail = _thumbnail(workspace, ids[index], (sources or {}).get(ids[index], ""))
        size += thumbnail.bytes
        if size > MOST_BYTES:
            break
        if thumbnail.bytes:
            made[index] = thumbnail
        on_clip(done, len(chosen))
    return made


def _thumbnail(workspace: Workspace, video_id: str, source: str) -> Thumbnail:
    class_name, _, video = video_id.partition("/")
    if not (is_plain_name(class_name) and is_plain_name(video)):  # scores may come from anywhere
        return Thumbnail(None, None)
    frame = flow = None
    middle = None
    try:
        with FrameFile(workspace.frames_file(class_name, video)) as frames:
            if _is_of_another(frames, source):
                return Thumbnail(None, None)
            middle = len(frames) // 2
            frame = _data_uri(frames.read_one(middle))
    except ArtifactError:
        pass  # the page works without; `verify` tells what is damaged
    try:
        with FlowFile(workspace.flow_file(class_name, video)) as fields:
            imported = is_pictures(str(fields.attributes.get("source", "")))
            if _is_of_another(fields, source) and ("+" in source or not imported):
                return Thumbnail(frame, None)
            at = min(len(fields) // 2 if middle is None else middle, len(fields) - 1)
            bound = fields.settings.bound
            motion = motion_of_bytes(bound)[fields.read(at, at + 1)[0]]
            # Full colour is the field's own 99th percentile: clips differ too much in speed for one scale. At the
            # least it is two stored steps, below which there is only noise.
            fast = max(float(np.quantile(np.hypot(*motion), 0.99)), 2 * step_size(bound))
            flow = _data_uri(flow_to_colour(motion, fast))
    except ArtifactError:
        pass
    return Thumbnail(frame, flow)


def _is_of_another(file: FrameFile | FlowFile, source: str) -> bool:
    return bool(source) and file.attributes.get("source_sha256", source) not in (source, *source.split("+"))


def _data_uri(picture: np.ndarray) -> str:
    """RGB uint8 [H, W, 3] as WebP, made smaller where it is larger than a thumbnail."""
    height, width = picture.shape[:2]
    scale = LONG_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return "data:image/webp;base64," + base64.b64encode(coded.tobytes()).decode("ascii")
