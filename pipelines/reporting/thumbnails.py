"""Which test clips have small pictures on the page, a frame and the flow that follows it or a sheet of both that plays,
as data URIs within a budget.

Letters: V videos, H W pixels.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from pipelines.evaluation.metrics import Scored, softmax
from pipelines.prediction.attention import Attention
from pipelines.reporting.clip_pictures import Sheet, data_uri, sheet, small_flow, small_frames
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError
from pipelines.storage.provenance import is_pictures
from pipelines.storage.workspace import Workspace, is_plain_name

LISTED = 48  # the most confident mistakes that all have pictures
QUALITY, EFFORT = 70, 2  # of WebP; OpenCV's effort, 4, takes twice the time for 4 % fewer bytes
MISTAKE, RESCUED, RIGHT = range(3)  # right only with motion: rescued
MOST_BYTES = 6_000_000  # of all thumbnails: a page that can still be sent by mail
MOST_PLAYING_BYTES = 4_000_000  # of all clips that play, which leaves room for the others' stills


@dataclass(frozen=True)
class Thumbnail:
    """Data URIs of one frame and of its flow in colours, None where the workspace does not hold it; or a sheet."""

    frame: str | None = None
    flow: str | None = None
    sheet: Sheet | None = None
    """Of a clip that plays; None for another."""

    @property
    def bytes(self) -> int:
        return sum(map(len, (self.frame or "", self.flow or "", self.sheet.uri if self.sheet else "")))


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
    playing: int = 0,
    look: Callable[[int], Attention | None] = lambda index: None,
) -> dict[int, Thumbnail]:
    """Makes thumbnails: at most `number`, and at most `MOST_BYTES` together.

    Args:
        workspace: Where frames and flow lie.
        tables: Scores of each split.
        number: How many clips are chosen (`clips_to_show`).
        on_clip: Called as `on_clip(done, total)`.
        sources: SHA-256 of the video that was scored, by id, where it is known.
        playing: How many of them play, at most, the first of those chosen; together of at most `MOST_PLAYING_BYTES`.
        look: What a network looks at in the clip of that index. It is asked for clips that play.

    Returns:
        By the clip's index, counted through all splits. A clip has none where its frames and flow are missing, damaged,
        or by now those of another video than was scored.
    """
    ids = [video for table in tables for video in table.videos]
    chosen = clips_to_show(tables, number) if workspace.frames.is_dir() or workspace.flow.is_dir() else []
    made: dict[int, Thumbnail] = {}
    size = played = 0
    for done, index in enumerate(chosen, 1):
        make = partial(_thumbnail, workspace, ids[index], (sources or {}).get(ids[index], ""))
        thumbnail = make(partial(look, index) if done <= playing else None)
        if thumbnail.sheet:
            played += thumbnail.bytes
            if played > MOST_PLAYING_BYTES:  # enough of them
                thumbnail, playing = make(None), 0
        size += thumbnail.bytes
        if size > MOST_BYTES:
            break
        if thumbnail.bytes:
            made[index] = thumbnail
        on_clip(done, len(chosen))
    return made


def middle_frame(workspace: Workspace, video_id: str) -> str | None:
    """The frame of a thumbnail, of any stored video; None where the workspace does not hold it."""
    return _thumbnail(workspace, video_id, "", None).frame


def _thumbnail(
    workspace: Workspace, video_id: str, source: str, look: Callable[[], Attention | None] | None
) -> Thumbnail:
    """Of one clip, which plays where `look` is given and nothing of it is damaged."""
    class_name, _, video = video_id.partition("/")
    if not (is_plain_name(class_name) and is_plain_name(video)):  # scores may come from anywhere
        return Thumbnail()
    frames = fields = frame = flow = None
    with ExitStack() as opened:  # the page works without what is absent or damaged; `verify` tells what is
        with suppress(ArtifactError):
            frame_file = opened.enter_context(FrameFile(workspace.frames_file(class_name, video)))
            if _is_of_another(frame_file, source):
                return Thumbnail()
            frames = frame_file
        with suppress(ArtifactError):
            flow_file = opened.enter_context(FlowFile(workspace.flow_file(class_name, video)))
            imported = is_pictures(str(flow_file.attributes.get("source", "")))
            if not _is_of_another(flow_file, source) or ("+" not in source and imported):
                fields = flow_file
        if frames is None and fields is None:
            return Thumbnail()
        with suppress(ArtifactError):
            if look is not None:
                return Thumbnail(sheet=sheet(frames, fields, look()))
        middle = [len(frames if frames is not None else fields or ()) // 2]
        with suppress(ArtifactError):
            frame = _still(small_frames(frames, middle)[0]) if frames is not None else None
        with suppress(ArtifactError):
            flow = _still(small_flow(fields, middle)[0]) if fields is not None else None
    return Thumbnail(frame, flow)


def _is_of_another(file: FrameFile | FlowFile, source: str) -> bool:
    return bool(source) and file.attributes.get("source_sha256", source) not in (source, *source.split("+"))


def _still(picture: np.ndarray) -> str:
    """RGB uint8 [H, W, 3] as WebP, a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=QUALITY, method=EFFORT)
    return data_uri("webp", file.getvalue())
