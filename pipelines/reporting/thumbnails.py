"""Small pictures of test clips for the page: a frame and the flow that follows it, and some seconds of both that play,
as data URIs within a budget.

Letters: V videos, F flow fields, H W pixels.
"""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from PIL import Image

from pipelines.drawing.colour import flow_to_colour
from pipelines.drawing.flow_picture import motion_of_bytes
from pipelines.evaluation.metrics import Scored, softmax
from pipelines.prediction.attention import Attention, draw_attention, strongest
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
SECONDS, PICTURES = 2, 12  # of a clip that plays
PLAYING_QUALITY = 50
MOST_PLAYING_BYTES = 4_000_000  # of all clips that play, which leaves room for the others' stills
_UNSEEN = 128  # gray, in the place of attention of a stream that the network does not have


@dataclass(frozen=True)
class Thumbnail:
    """Data URIs of one frame and of its flow in colours; None where the workspace does not hold it."""

    frame: str | None
    flow: str | None
    clip: str | None = None
    """Some seconds of both beside each other; None for a clip that does not play."""
    attention: bool = False
    """Whether what speaks for the predicted class is shown below them."""

    @property
    def bytes(self) -> int:
        return sum(len(uri or "") for uri in (self.frame, self.flow, self.clip))


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
        plays = partial(look, index) if done <= playing else None
        thumbnail = _thumbnail(workspace, ids[index], (sources or {}).get(ids[index], ""), plays)
        played += len(thumbnail.clip or "")
        if played > MOST_PLAYING_BYTES:  # enough of them
            thumbnail, playing = replace(thumbnail, clip=None, attention=False), 0
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
    """Of one clip, which plays where `look` is given."""
    class_name, _, video = video_id.partition("/")
    if not (is_plain_name(class_name) and is_plain_name(video)):  # scores may come from anywhere
        return Thumbnail(None, None)
    frames = fields = frame = flow = clip = None
    attention = False
    with ExitStack() as opened:  # the page works without what is absent or damaged; `verify` tells what is
        with suppress(ArtifactError):
            frame_file = opened.enter_context(FrameFile(workspace.frames_file(class_name, video)))
            if _is_of_another(frame_file, source):
                return Thumbnail(None, None)
            frames = frame_file
        with suppress(ArtifactError):
            flow_file = opened.enter_context(FlowFile(workspace.flow_file(class_name, video)))
            imported = is_pictures(str(flow_file.attributes.get("source", "")))
            if not _is_of_another(flow_file, source) or ("+" not in source and imported):
                fields = flow_file
        middle = len(frames if frames is not None else fields or ()) // 2
        with suppress(ArtifactError):
            frame = _data_uri(_still(_frame(frames, middle))) if frames is not None else None
        with suppress(ArtifactError):
            flow = _data_uri(_still(_flow(fields, [middle])[0])) if fields is not None else None
        with suppress(ArtifactError):
            if look is not None and (frame or flow):
                seen = look()
                clip, attention = _data_uri(_moving(frames, fields, seen)), seen is not None
    return Thumbnail(frame, flow, clip, attention)


def _is_of_another(file: FrameFile | FlowFile, source: str) -> bool:
    return bool(source) and file.attributes.get("source_sha256", source) not in (source, *source.split("+"))


def _frame(frames: FrameFile, index: int) -> np.ndarray:
    """RGB uint8 [H, W, 3], as large as a thumbnail."""
    return _small(frames.read_one(index))


def _flow(fields: FlowFile, indices: Sequence[int], size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """The fields that follow these frames in colours, all in one scale: RGB uint8 [H, W, 3] each."""
    bound = fields.settings.bound
    motion = []
    for index in indices:
        at = min(index, len(fields) - 1)
        motion.append(_small(motion_of_bytes(bound)[fields.read(at, at + 1)[0]].transpose(1, 2, 0), size))
    # Full colour is the clip's own 99th percentile: clips differ too much in speed for one scale. At the least it is
    # two stored steps, below which there is only noise.
    fast = max(float(np.quantile(np.hypot(*np.moveaxis(np.stack(motion), -1, 0)), 0.99)), 2 * step_size(bound))
    return [flow_to_colour(field.transpose(2, 0, 1), fast) for field in motion]


def _small(picture: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """[H, W, C] as large as `size`, width and height; without it made smaller where it is larger than a thumbnail."""
    if size is None:
        height, width = picture.shape[:2]
        scale = min(1, LONG_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _moving(frames: FrameFile | None, fields: FlowFile | None, seen: Attention | None) -> bytes:
    """The seconds in the middle of a clip as animated WebP: frames and flow beside each other, and below them the same
    with what was seen."""
    clip = frames if frames is not None else fields
    assert clip is not None
    times = clip.times[: len(clip)]
    start = max(0.0, min(float(times[len(times) // 2]) - SECONDS / 2, float(times[-1]) - SECONDS))
    shown_at = start + SECONDS / PICTURES * np.arange(PICTURES)
    indices = np.unique(np.searchsorted(times, shown_at[shown_at <= times[-1]], side="right") - 1).tolist()
    rows: list[dict[str, list[np.ndarray]]] = [{}]
    if frames is not None:
        rows[0]["appearance"] = [_frame(frames, index) for index in indices]
    if fields is not None:
        size = rows[0]["appearance"][0].shape[1::-1] if frames is not None else None
        rows[0]["motion"] = _flow(fields, indices, size)
    if seen is not None:
        scales = strongest([seen])
        rows.append(
            {
                stream: [
                    draw_attention(picture, seen, stream, index, scales[stream])
                    if stream in scales
                    else np.full_like(picture, _UNSEEN)
                    for index, picture in zip(indices, pictures, strict=True)
                ]
                for stream, pictures in rows[0].items()
            }
        )
    moments = [
        Image.fromarray(np.vstack([np.hstack([pictures[place] for pictures in row.values()]) for row in rows]))
        for place in range(len(indices))
    ]
    file = io.BytesIO()
    moments[0].save(
        file, "WEBP", save_all=True, append_images=moments[1:], duration=round(1000 * SECONDS / PICTURES), loop=0,
        quality=PLAYING_QUALITY, method=2,
    )  # fmt: skip
    return file.getvalue()


def _still(picture: np.ndarray) -> bytes:
    """RGB uint8 [H, W, 3] as WebP."""
    _, coded = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return coded.tobytes()


def _data_uri(webp: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp).decode("ascii")
