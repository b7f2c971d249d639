"""Stage `show-flow`: the flow of one video as a picture or video to look at.

Letters: T frames, F = T - step fields, H W pixels.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipelines import extract_flow
from pipelines.datasets.catalogue import usable_artifacts
from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.jobs.resume import size_conflict
from pipelines.optical_flow.methods import METHODS, MethodName, options_of
from pipelines.runtime.devices import resolve_device
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress, note
from pipelines.sources.videos import VideoSource
from pipelines.storage.atomic import require_writable
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.workspace import UNLABELLED, Workspace
from pipelines.video.encoding import SUFFIXES, encode

if TYPE_CHECKING:
    from pipelines.drawing.flow_source import FlowSource
    from pipelines.optical_flow.store import FlowTask

_WORKSPACES = "as the workspace's flow, or"
_VIDEO = "VIDEO is a video file, or CLASS/VIDEO of flow stored in the workspace"


@dataclass(frozen=True)
class Config:
    """Settings of `show-flow`. Flow settings that are None are those of the workspace's flow or, if it has none, the
    defaults of `extract-flow`."""

    workspace: options.WorkspaceFolder
    video: Annotated[
        str, Option(argument=True, metavar="VIDEO", wanted="a video file, or CLASS/VIDEO of the stored flow")
    ]
    """A video file, or CLASS/VIDEO to show its stored flow."""
    method: Annotated[MethodName | None, Option(default=f"{_WORKSPACES} tvl1")] = None
    """Method that computes the flow of a video file."""
    method_options: options.MethodOptions = field(default_factory=dict)
    bound: Annotated[float | None, options.BOUND, Option(default=f"{_WORKSPACES} 20")] = None
    """Clip the flow to -BOUND..BOUND, as it would be stored."""
    step: Annotated[int | None, options.FLOW_STEP, Option(default=f"{_WORKSPACES} 1")] = None
    short_side: options.ShortSide = None
    device: options.DeviceName = "auto"
    frame: Annotated[
        int | Literal["all"] | None,
        Option(
            metavar="N",
            minimum=0,
            wanted="an integer of at least 0, or all",
            default="the middle one, or all if FILE is a video",
            switches=(("--all", "all", "Make a video of all frames (the same as --frame all)."),),
        ),
    ] = None
    """Frame to show, counted from 0, or all."""
    output: Annotated[Path | None, Option(metavar="FILE", default="a file in the workspace's pictures/")] = None
    """File to write: .png, or .mp4, .avi or .mkv for all frames."""
    max_flow: Annotated[
        float | None, Option(metavar="PIXELS", above=0, default="the 99th percentile of the flow shown")
    ] = None
    """Flow that is drawn in full colour."""

    def __post_init__(self) -> None:
        options.check(self)
        self.extraction()
        if self.output is None:
            return
        output, suffix = self.output, self.output.suffix.lower()
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
        """The flow settings that are not None, by the names of `extract_flow.Config`."""
        names = ("method", "method_options", "bound", "step", "short_side")
        return {name: getattr(self, name) for name in names if getattr(self, name) not in (None, {})}

    def extraction(self) -> extract_flow.Config:
        """The same settings as those of `extract-flow`, which checks them. Nothing is stored, so truncated and damaged
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
    """What was shown, and where the picture is."""

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

    Raises:
        VideoError: The video cannot be decoded or is too short.
        UsageError: It has no such frame.
        MissingError: There is neither such a file nor such stored flow.
        StorageError: The picture cannot be written.
    """
    if config.output:
        require_writable(files=[config.output])
    else:
        require_writable(config.workspace / "pictures")
    path = Path(config.video)
    stored = None if path.is_file() else _stored_id(config)
    # These load torch, which would only delay the refusals above.
    import numpy as np

    from pipelines.drawing.flow_picture import FlowPicture
    from pipelines.drawing.flow_source import FlowHistogram
    from pipelines.drawing.picture_file import free_path, write_png

    if stored is None:
        config, taken = _with_settings_of_workspace(config)
        if taken:
            on_progress(note(taken))
    with _opened(config, stored, on_progress) as source:
        if source.note:
            on_progress(note(source.note))
        histogram = FlowHistogram(source.bound)
        for done, quantised in enumerate(source.fields(), start=1):
            histogram.add(quantised)
            if source.count > 1:
                on_progress(Progress("measure flow", done, source.count, "pairs"))
        largest, at_bound = histogram.quantile(1.0), histogram.at_bound()
        _, height, width = next(source.fields()).shape
        picture = FlowPicture(
            width=width,
            height=height,
            bound=source.bound,
            max_flow=config.max_flow or histogram.scale(),
            title=source.title,
            details=_details(source, largest, at_bound),
        )
        # What the picture notes of its video, in ASCII: its file's path, or its name in the workspace.
        shown = ascii(os.path.realpath(path) if path.is_file() else config.video)
        # A stored video's name is whole; a file's has a suffix.
        place = config.workspace / "pictures" / (path.stem if path.is_file() else path)
        ending = ".mp4" if config.whole_video else f"-frame{source.first}.png"
        output = config.output or free_path(place, f"-{source.method.partition(' ')[0]}{ending}", shown)

        def pictures() -> Iterator[np.ndarray]:
            # There are `step` more frames than fields.
            for done, (quantised, frame) in enumerate(zip(source.fields(), source.frames(), strict=False), start=1):
                yield picture.draw(frame, quantised, source.first + done - 1, source.step)
                if config.whole_video:
                    on_progress(Progress("draw", done, source.count, "pictures"))

        if config.whole_video:
            assert source.timing is not None
            with contextlib.closing(pictures()) as drawn:  # type: ignore[type-var]
                encode(output, drawn, source.timing, shown)
        else:
            write_png(output, next(pictures()), shown)
    width, height = picture.size
    return Result(
        output=output,
        video=config.video,
        method=source.method,
        bound=source.bound,
        step=source.step,
        frame=None if config.whole_video else source.first,
        pictures=source.count,
        width=width,
        height=height,
        max_flow=picture.max_flow,
        largest=largest,
        at_bound=at_bound,
    )


def _details(source: "FlowSource", largest: float, at_bound: float) -> str:
    parts = [f"method {source.method}", f"bound {source.bound:g} px", f"step {source.step}"]
    parts.append(f"longest vector {largest:.3g} px")
    if at_bound:
        share = f"{100 * at_bound:.2g} %" if at_bound >= 0.0001 else "less than 0.01 %"
        parts.append(f"{share} of the vectors at the bound")
    return " · ".join(parts)


def _with_settings_of_workspace(config: Config) -> tuple[Config, str]:
    """The config of a video file with the settings of the workspace's flow for those that are None, and which these are
    in words; the config as it is, and "", if there is no such flow or nothing is None."""
    _, made = next(usable_artifacts(Workspace(config.workspace), "flow"), (None, None))
    if made is None:
        return config, ""
    settings = FlowSettings.from_attributes(made)
    stored: dict[str, Any] = {"method": settings.method, "bound": settings.bound, "step": settings.step}
    if settings.method not in METHODS:  # imported: only what computed it knows how
        del stored["method"]
    elif config.method is None and not config.method_options:
        stored["method_options"] = {name: str(value) for name, value in options_of(settings.parameters).items()}
    if size_conflict(made, None):
        stored["short_side"] = settings.short_side
    taken = {name: value for name, value in stored.items() if name not in config.given() and value is not None}
    words = [f"{name.replace('_', ' ')} {value}" for name, value in taken.items() if name != "method_options"]
    text = f"as the flow stored in {config.workspace}: {', '.join(words)}; options change that" if words else ""
    return replace(config, **taken), text


@contextlib.contextmanager
def _opened(config: Config, stored: tuple[str, str] | None, on_progress: OnProgress) -> Iterator["FlowSource"]:
    """The flow of these `stored` class and name; None: of the file."""
    from pipelines.drawing.flow_source import computed_field, computed_fields, stored_fields

    path = Path(config.video)
    if stored is not None:
        index = "all" if config.whole_video else config.frame
        with stored_fields(Workspace(config.workspace), *stored, index) as source:
            yield source
    elif config.whole_video:

        def on_pairs(done: int, announced: int) -> None:
            on_progress(Progress("compute flow", done, max(done, announced or done + 1), "pairs"))

        with computed_fields(_task(config, path), on_pairs) as source:
            on_progress(Progress("compute flow", source.count, source.count, "pairs"))
            yield source
    else:
        assert config.frame != "all"
        yield computed_field(_task(config, path), config.frame)


def _task(config: Config, path: Path) -> "FlowTask":
    """The task that `extract-flow` would have for the video; where its flow goes, if anywhere, is decided later."""
    from pipelines.optical_flow.store import FlowTask

    settings = config.extraction()
    return FlowTask(
        source=VideoSource(UNLABELLED, path.stem, path.absolute()),
        target=Path(),
        settings=FlowSettings.of(settings.method, {}, settings.bound, settings.step, "video"),
        method_options=tuple(sorted(settings.method_options.items())),
        device=str(resolve_device(settings.device)),
        short_side=settings.short_side,
        allow_truncated=settings.allow_truncated,
        allow_damaged=settings.allow_damaged,
    )


def _stored_id(config: Config) -> tuple[str, str]:
    """The class and name of stored flow. Raises `MissingError` if there is none, `UsageError` for a folder."""
    workspace, parts = Workspace(config.workspace), Path(config.video).parts
    is_id = len(parts) == 2 and ".." not in parts and "/" not in parts
    if not is_id or not workspace.flow_file(*parts).is_file():
        if Path(config.video).is_dir():
            raise UsageError(f"{config.video} is a folder: {_VIDEO}")
        where = f"stored flow {workspace.flow_file(*parts)}" if len(parts) == 2 else "stored flow of that name"
        raise MissingError(f"there is no file {config.video} and no {where}: {_VIDEO}")
    if given := config.given():
        flags = ", ".join(f"--{name.removesuffix('s').replace('_', '-')}" for name in given)
        raise UsageError(
            f"{flags} does not go with {config.video}, whose flow is stored already: name the video's file to compute "
            "other flow, or leave this out"
        )
    return parts[0], parts[1]
