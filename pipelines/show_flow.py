"""Stage `show-flow`: the flow of one video as a picture or a video to look at.

Letters: T frames, F = T - step fields, H W pixels.
"""

import contextlib
import itertools
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipelines import extract_flow, options
from pipelines.datasets.catalogue import artifact_files
from pipelines.errors import MissingError, UsageError
from pipelines.jobs.resume import size_conflict
from pipelines.optical_flow.methods import METHODS, MethodName, options_of
from pipelines.options import Option
from pipelines.runtime.devices import resolve_device
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress, note
from pipelines.sources.videos import VideoSource
from pipelines.storage.atomic import require_writable, write_bytes
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.video.encoding import SUFFIXES, comment_of, encode
from pipelines.workspace import UNLABELLED, Workspace

if TYPE_CHECKING:
    import numpy as np

    from pipelines.drawing.flow_picture import FlowPicture
    from pipelines.drawing.flow_source import Motion, Shown
    from pipelines.optical_flow.store import FlowTask

_WORKSPACES = "as the workspace's flow, or"
_VIDEO = "VIDEO is a video file, or CLASS/VIDEO of flow stored in the workspace"


@dataclass(frozen=True)
class Config:
    """Settings of `show-flow`. What is None of the flow's settings is as the workspace's flow has it, or, without any,
    as `extract-flow` has it."""

    workspace: options.WorkspaceFolder
    video: Annotated[
        str, Option(argument=True, metavar="VIDEO", wanted="a video file, or CLASS/VIDEO of the stored flow")
    ]
    """A video file; or CLASS/VIDEO, whose stored flow is then shown."""
    method: Annotated[MethodName | None, Option(default=f"{_WORKSPACES} tvl1")] = None
    """What computes the flow of a video file."""
    method_options: options.MethodOptions = field(default_factory=dict)
    bound: Annotated[float | None, options.BOUND, Option(default=f"{_WORKSPACES} 20")] = None
    """Flow is clipped to -BOUND..BOUND, as it would be stored."""
    step: Annotated[int | None, options.FLOW_STEP, Option(default=f"{_WORKSPACES} 1")] = None
    short_side: options.ShortSide = None
    device: options.DeviceName = "auto"
    frame: Annotated[
        int | Literal["all"] | None,
        Option(
            metavar="N",
            minimum=0,
            wanted="a whole number from 0 up, or all",
            default="the middle one, or all where FILE is a video",
            switches=(("--all", "all", "A video of all frames: the same as --frame all."),),
        ),
    ] = None
    """The frame whose flow to show, from 0; or all."""
    output: Annotated[Path | None, Option(metavar="FILE", default="a file in pictures/ of the workspace")] = None
    """.png; or .mp4, .avi or .mkv for all frames."""
    max_flow: Annotated[
        float | None, Option(metavar="PIXELS", above=0, default="the 99th percentile of what is shown")
    ] = None
    """Where colours are full."""

    def __post_init__(self) -> None:
        options.check(self)
        self.extraction()
        if self.output is not None:
            self._check_output(self.output)

    def _check_output(self, output: Path) -> None:
        suffix = output.suffix.lower()
        if suffix not in (".png", *SUFFIXES):
            raise UsageError(f"--output must end in .png, {' or '.join(SUFFIXES)}, not {output.name!r}")
        if (suffix in SUFFIXES) != self.whole_video:
            wanted = f"all frames make a video ({' '.join(SUFFIXES)})" if self.whole_video else "one frame makes a .png"
            raise UsageError(f"--frame {self.frame} does not go with --output {output.name!r}: {wanted}")
        if output.exists() and Path(self.video).exists() and output.samefile(self.video):
            raise UsageError(f"--output {output} is the video itself: name another file")

    @property
    def whole_video(self) -> bool:
        if self.frame is None:
            return self.output is not None and self.output.suffix.lower() in SUFFIXES
        return self.frame == "all"

    def given(self) -> dict[str, Any]:
        """The settings of the flow that are not left to their defaults, by the names of `extract_flow.Config`."""
        names = ("method", "method_options", "bound", "step", "short_side")
        return {name: getattr(self, name) for name in names if getattr(self, name) not in (None, {})}

    def extraction(self) -> extract_flow.Config:
        """The same settings for `extract-flow`, which checks them. Nothing is stored, so truncated and damaged
        videos are shown."""
        return extract_flow.Config(
            self.workspace,
            self.video,
            device=self.device,
            allow_truncated=True,
            allow_damaged=True,
            **self.given(),
        )


@dataclass(frozen=True)
class Result:
    """What was shown and where it lies."""

    output: Path
    video: str
    method: str
    bound: float
    step: int
    frame: int | None
    """None for a video of all frames."""
    pictures: int
    """F, or 1."""
    width: int
    """Of a picture."""
    height: int
    max_flow: float
    """The scale of the colours, pixels."""
    largest: float
    """The longest flow vector shown, pixels."""
    at_bound: float
    """The share of vectors at the bound, which is where longer ones are clipped to."""


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Writes the picture or video.

    Raises `VideoError` where the video cannot be decoded or is too short, `UsageError` where it has no such frame,
    `MissingError` where there is neither such a file nor such flow, `StorageError` where writing fails.
    """
    from pipelines.drawing.flow_picture import FlowPicture

    require_writable(config.output.parent if config.output else config.workspace / "pictures")
    config, taken = _with_settings_of_workspace(config)
    if taken:
        on_progress(note(taken))
    with _shown(config, on_progress) as shown:
        if shown.note:
            on_progress(note(shown.note))
        motion = _measure(shown, on_progress)
        sample = next(shown.fields())
        picture = FlowPicture(
            width=sample.shape[2],
            height=sample.shape[1],
            bound=shown.bound,
            max_flow=config.max_flow or motion.scale(),
            title=shown.title,
            details=_details(shown, motion),
        )
        output = config.output or _default_output(config, shown)
        _write(config, output, picture, shown, on_progress)
    width, height = picture.size
    return Result(
        output=output,
        video=config.video,
        method=shown.method,
        bound=shown.bound,
        step=shown.step,
        frame=None if config.whole_video else shown.first,
        pictures=shown.count,
        width=width,
        height=height,
        max_flow=picture.max_flow,
        largest=motion.quantile(1.0),
        at_bound=motion.at_bound(),
    )


# ------------------------------------------------------------------ what to show


def _with_settings_of_workspace(config: Config) -> tuple[Config, str]:
    """For a video file, what is not given of the flow's settings as the workspace's flow has it; and that in words,
    empty where there is no flow or all is given."""
    flow = next(artifact_files("flow", Workspace(config.workspace).flow), None)
    if flow is None or not Path(config.video).is_file():
        return config, ""
    try:
        made = peek(Path(flow.path), FLOW_SCHEMA)
        settings = FlowSettings.from_attributes(made)
    except (ArtifactError, KeyError, ValueError, TypeError):
        return config, ""
    stored: dict[str, Any] = {"method": settings.method, "bound": settings.bound, "step": settings.step}
    if settings.method not in METHODS:  # imported: only what computed it knows how
        del stored["method"]
    elif config.method is None and not config.method_options:
        stored["method_options"] = {name: str(value) for name, value in options_of(settings.parameters).items()}
    if size_conflict(made, None):
        stored["short_side"] = settings.short_side
    taken = {name: value for name, value in stored.items() if name not in config.given() and value is not None}
    words = [f"{name.replace('_', ' ')} {value}" for name, value in taken.items() if name != "method_options"]
    text = f"as the flow stored in {config.workspace}: {', '.join(words)}; the options give others" if words else ""
    return replace(config, **taken), text


@contextlib.contextmanager
def _shown(config: Config, on_progress: OnProgress) -> Iterator["Shown"]:
    from pipelines.drawing.flow_source import computed_field, computed_fields, stored_fields

    path = Path(config.video)
    if not path.is_file():
        index = "all" if config.whole_video else config.frame
        with stored_fields(Workspace(config.workspace), *_stored_id(config), index) as shown:
            yield shown
        return
    if config.frame == "all" or config.whole_video:

        def on_pairs(done: int, announced: int) -> None:
            on_progress(Progress("compute flow", done, max(done, announced or done + 1), "pairs"))

        with computed_fields(_task(config, path), on_pairs) as shown:
            on_progress(Progress("compute flow", shown.count, shown.count, "pairs"))
            yield shown
    else:
        yield computed_field(_task(config, path), config.frame)


def _task(config: Config, path: Path) -> "FlowTask":
    """The video as `extract-flow` would be given it; where its flow is put, if anywhere, is not settled here."""
    from pipelines.optical_flow.store import FlowTask

    settings = config.extraction()
    return FlowTask(
        source=VideoSource(UNLABELLED, path.stem, path.absolute()),
        target=Path(),
        short_side=settings.short_side,
        allow_truncated=settings.allow_truncated,
        allow_damaged=settings.allow_damaged,
        method_options=tuple(sorted(settings.method_options.items())),
        engine=settings.engine,
        device=str(resolve_device(settings.device)),
        compression=settings.compression,
        settings=FlowSettings.of(settings.method, {}, settings.bound, settings.step, "video"),
    )


def _stored_id(config: Config) -> tuple[str, str]:
    """The class and name of stored flow. Raises `MissingError` where there is none, `UsageError` for a folder."""
    workspace, parts = Workspace(config.workspace), Path(config.video).parts
    if Path(config.video).is_dir() and not _is_stored(workspace, parts):
        raise UsageError(f"{config.video} is a folder: {_VIDEO}")
    if not _is_stored(workspace, parts):
        where = f"stored flow {workspace.flow_file(*parts)}" if len(parts) == 2 else "stored flow of that name"
        raise MissingError(f"there is no file {config.video} and no {where}: {_VIDEO}")
    if given := config.given():
        flags = ", ".join(f"--{name.removesuffix('s').replace('_', '-')}" for name in given)
        raise UsageError(
            f"{flags} does not go with {config.video}, whose flow is stored already: name the video's file to compute "
            "other flow, or leave this out"
        )
    return parts[0], parts[1]


def _is_stored(workspace: Workspace, parts: tuple[str, ...]) -> bool:
    return len(parts) == 2 and ".." not in parts and "/" not in parts and workspace.flow_file(*parts).is_file()


# ------------------------------------------------------------------ the picture


def _measure(shown: "Shown", on_progress: OnProgress) -> "Motion":
    from pipelines.drawing.flow_source import Motion

    motion = Motion(shown.bound)
    for done, quantised in enumerate(shown.fields(), start=1):
        motion.add(quantised)
        if shown.count > 1:
            on_progress(Progress("measure flow", done, shown.count, "pairs"))
    return motion


def _details(shown: "Shown", motion: "Motion") -> str:
    parts = [f"method {shown.method}", f"bound {shown.bound:g} px", f"step {shown.step}"]
    parts.append(f"longest vector {motion.quantile(1.0):.3g} px")
    if motion.at_bound():
        parts.append(f"{_percent(motion.at_bound())} of the vectors at the bound")
    return " · ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 0.0001 else "less than 0.01 %"


def _default_output(config: Config, shown: "Shown") -> Path:
    """`pictures/[<class>/]<video>-<method>[-frame<N>]` in the workspace, so that methods can be compared; with a number
    where that is the picture of another video."""
    path = Path(config.video)
    folder = config.workspace / "pictures"
    # A stored video's name is whole; a file's has a suffix.
    place = folder / path.stem if path.is_file() else folder / path
    method = shown.method.partition(" ")[0]
    ending = ".mp4" if config.whole_video else f"-frame{shown.first}.png"
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    places = (place.with_name(f"{place.name}{number}-{method}{ending}") for number in numbers)
    return next(place for place in places if _source_of(place) in ("", _source(config)))


def _source(config: Config) -> str:
    """What a picture notes of its video, in ASCII: its file's path, or its name in the workspace."""
    path = Path(config.video)
    return ascii(os.path.realpath(path) if path.is_file() else config.video)


def _source_of(output: Path) -> str:
    """The video of a picture or video that is there; "" where there is none, or it does not say."""
    if output.suffix != ".png":
        return comment_of(output) if output.exists() else ""
    try:
        start = output.read_bytes()[: _PNG_HEAD + 70_000]
    except OSError:
        return ""
    length = int.from_bytes(start[_PNG_HEAD : _PNG_HEAD + 4], "big")
    text = start[_PNG_HEAD + 4 : _PNG_HEAD + 8 + length]
    return text.removeprefix(_TEXT).decode("ascii", "replace") if text.startswith(_TEXT) else ""


def _write(config: Config, output: Path, picture: "FlowPicture", shown: "Shown", on_progress: OnProgress) -> None:
    def pictures() -> "Iterator[np.ndarray]":
        # There are `step` more frames than fields.
        for done, (quantised, frame) in enumerate(zip(shown.fields(), shown.frames(), strict=False), start=1):
            yield picture.draw(frame, quantised, shown.first + done - 1, shown.step)
            if config.whole_video:
                on_progress(Progress("draw", done, shown.count, "pictures"))

    if config.whole_video:
        assert shown.timing is not None
        with contextlib.closing(pictures()) as drawn:  # type: ignore[type-var]
            encode(output, drawn, shown.timing, _source(config))
    else:
        write_bytes(output, _png(next(pictures()), _source(config)))


_PNG_HEAD = 33  # bytes: the signature and the chunk that states the size
_TEXT = b"tEXtSource\0"


def _png(picture: "np.ndarray", source: str) -> bytes:
    """With a chunk of text that names the source."""
    import cv2

    data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
    text = _TEXT + source.encode("ascii")
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    return data[:_PNG_HEAD] + chunk + data[_PNG_HEAD:]
