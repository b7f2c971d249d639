"""Stage `export`: a run's network as one file for use without stres, checked against the run, with its model card."""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pipelines import __version__
from pipelines.errors import UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.prediction.speed import about_speed
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress, note
from pipelines.storage.atomic import (
    atomic_file,
    remove_left_over_temporary_files,
    require_writable,
    storage_errors,
    write_text,
)
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import choose_run, load_network

if TYPE_CHECKING:
    from pipelines.deployment.checking import ExportCheck

Format = Literal["torch", "onnx"]
SUFFIXES: dict[str, Format] = {".pt2": "torch", ".onnx": "onnx"}
EXPORT_SCHEMA = "stres/export/1"


@dataclass(frozen=True)
class Config:
    """Settings of `export`."""

    output: Annotated[
        Path | None, Option(argument=True, metavar="OUT", default="RUN-STEP.pt2 in the current folder")
    ] = None
    """File to write: .pt2 (torch) or .onnx."""
    workspace: options.WorkspaceFolder = options.DEFAULT_WORKSPACE
    run: options.RunOrFolder = None
    step: options.UsedNetwork = None
    checkpoint: options.UsedCheckpoint = "last"
    fusion_weight: options.TestedFusionWeight = options.EQUAL_WEIGHTS
    format: Annotated[Format | None, Option(default="from OUT's suffix, else torch")] = None
    """File format."""
    check: Annotated[Path | None, Option(metavar="VIDEO", default="noise")] = None
    """Video on which to compare the file with the run."""
    overwrite: options.Overwrite = False
    """Replace the file and its model card."""

    def __post_init__(self) -> None:
        options.check(self)
        if self.output is None:
            return
        if self.output.suffix.lower() not in SUFFIXES:
            raise UsageError(f"OUT must end in {' or '.join(SUFFIXES)}, not {self.output.name!r}")
        if self.format not in (None, SUFFIXES[self.output.suffix.lower()]):
            raise UsageError(
                f"--format {self.format} does not go with {self.output.name!r}: .pt2 is torch's, .onnx is onnx's"
            )
        self.require_free(self.output)

    @property
    def chosen_format(self) -> Format:
        return self.format or (SUFFIXES[self.output.suffix.lower()] if self.output else "torch")

    def file(self, run: str, step: str) -> Path:
        """The file to write. Raises `UsageError` where it may not be replaced."""
        if self.output is not None:
            return self.output
        suffix = next(suffix for suffix, format_ in SUFFIXES.items() if format_ == self.chosen_format)
        best = "-best" if self.checkpoint == "best" else ""
        self.require_free(path := Path(f"{run}-{step}{best}{suffix}"))
        return path

    def require_free(self, file: Path) -> None:
        for path in (file, card_of(file)):
            if path.exists() and not self.overwrite:
                raise UsageError(f"{path} is there already: give --overwrite to replace it, or name another file")


def card_of(file: Path) -> Path:
    """The model card: the file's name with .md added."""
    return file.with_name(f"{file.name}.md")


@dataclass(frozen=True)
class Result:
    """What was written. `inputs` and `outputs` by name with their shapes; B and T stand for any number."""

    run: str
    step: str
    format: Format
    file: Path
    card: Path
    bytes: int
    sha256: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    fewest_frames: int
    """The least T."""
    check: "ExportCheck"
    usage: list[str]
    """Lines of Python that run the file on one video in which nothing is to be seen, without stres."""


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Writes the file, and its card beside it, once the written file gives what the run gives.

    Raises:
        MissingError: The run or a package is missing, or the check fails: then nothing is written.
        StorageError: Writing fails.
    """
    chosen = choose_run(Workspace(config.workspace), config.run, config.step, config.checkpoint)
    # These load torch, which would only delay the refusals above.
    from pipelines.deployment import checking
    from pipelines.deployment.card import Exported, usage, write_card
    from pipelines.deployment.formats import EXPORT, RUN
    from pipelines.deployment.model import deployed
    from pipelines.evaluation.fusion_weight import known_weight
    from pipelines.models.normalise import INPUTS

    trained, step, trained_as, form = chosen.run, chosen.step, chosen.run.config(), config.chosen_format
    weight, about_weight = known_weight(chosen, config.fusion_weight, Workspace(config.workspace), config.run)
    model = deployed(load_network(trained, step), weight)
    file = config.file(trained.name, step)
    require_writable(files=[file.absolute(), card_of(file.absolute())])
    on_progress(Progress("export", 0, 2, unit="steps", message=chosen.warning, even=False))
    for text in (about_weight, about_speed(trained, step)):
        if text:
            on_progress(note(text))
    about_itself = {
        "schema": EXPORT_SCHEMA,
        "stres_version": __version__,
        "run": trained.name,
        "step": step,
        "classes": trained_as.classes,
        "size": trained_as.size,
        "flow": trained_as.flow.to_json() if trained_as.flow else {},
        "weights_sha256": trained.weights_sha256(step),
        **({"checkpoint": "best"} if config.checkpoint == "best" else {}),
        **({"fusion_weight": weight} if weight != options.EQUAL_WEIGHTS else {}),
    }
    content = EXPORT[form](model, trained_as.size, about_itself)
    on_progress(Progress("export", 1, 2, unit="steps", even=False))
    remove_left_over_temporary_files(file.parent, below=False)
    with atomic_file(file) as temporary:
        with storage_errors(file):
            temporary.write_bytes(content)
        check = checking.check(RUN[form](temporary, model.outputs), model, trained, step, config.check)
    packages = ("torch",) if form == "torch" else ("torch", "onnx", "onnxscript")
    exported = Exported(
        file=file.name,
        format=form,
        sha256=hashlib.sha256(content).hexdigest(),
        run=trained,
        step=step,
        config=trained_as,
        versions={"stres": __version__} | {name: importlib.metadata.version(name) for name in packages},
        check=check,
    )
    write_text(card_of(file), write_card(exported, model))
    on_progress(Progress("export", 2, 2, unit="steps", even=False))
    (height, width), classes = trained_as.size, len(trained_as.classes)
    return Result(
        run=trained.name,
        step=step,
        format=form,
        file=file,
        card=card_of(file),
        bytes=len(content),
        sha256=exported.sha256,
        inputs={
            name: f"{INPUTS[name]} [B, T, {channels}, {height}, {width}]" for name, channels in model.inputs.items()
        },
        outputs=dict.fromkeys(model.outputs, f"float32 [B, {classes}]"),
        fewest_frames=model.fewest_frames,
        check=check,
        usage=usage(exported, model, file),
    )
