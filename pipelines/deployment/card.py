"""The model card beside an exported file: Markdown for whoever gets the file without the run.

Its text is `card.md.j2`; what is here are the facts in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from pipelines.deployment.checking import ExportCheck
from pipelines.deployment.model import Deployed
from pipelines.errors import MissingError
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scores import SCORES_SCHEMA
from pipelines.interface.options import python_literal
from pipelines.interface.wording import percent, plural, printable, setting, settings
from pipelines.prediction.speed import about_speed
from pipelines.storage.atomic import read_json
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.storage.quantise import MAX_LEVEL, NO_MOTION
from pipelines.storage.workspace import Workspace
from pipelines.training.run_config import RunConfig
from pipelines.training.runs import LATE_FUSION, Run

_KINDS = {
    LATE_FUSION: "both base streams side by side",
    "appearance": "appearance stream",
    "motion": "motion stream",
    "student": "appearance stream with kernels over time, which learned from both streams joined",
}
_ENTITIES = {letter: f"&#{ord(letter)};" for letter in "&<>[]`|"}


@dataclass(frozen=True)
class Exported:
    """What a card is about."""

    file: str
    format: str
    sha256: str
    run: Run
    step: str
    config: RunConfig
    versions: Mapping[str, str]
    check: ExportCheck


class _Code(str):
    """Text that is written as it is."""


def usage(about: Exported, model: Deployed, file: Path) -> list[str]:
    """Lines of Python that run the file on one video in which nothing is to be seen, without stres."""
    height, width = about.config.size
    frames = clip[0] if (clip := _clip(about)) else max(25, model.fewest_frames)
    module, dtype = ("torch", "dtype=torch.uint8") if about.format == "torch" else ("numpy", "numpy.uint8")
    inputs = [
        f"{name} = {module}.full((1, {frames}, {channels}, {height}, {width}), {NO_MOTION}, {dtype})"
        for name, channels in model.inputs.items()
    ]
    path = python_literal(file)
    if about.format == "torch":
        call = f'probabilities = model({", ".join(model.inputs)})["probabilities"]'
        lines = ["import torch", f"model = torch.export.load({path}).module()", *inputs, call]
    else:
        loaded = f'session = onnxruntime.InferenceSession({path}, providers=["CPUExecutionProvider"])'
        given = ", ".join(f'"{name}": {name}' for name in model.inputs)
        call = f'(probabilities,) = session.run(["probabilities"], {{{given}}})'
        lines = ["import numpy, onnxruntime", loaded, *inputs, call]
    return [*lines, "print(probabilities.shape, probabilities[0].argmax())"]


def write_card(about: Exported, model: Deployed) -> str:
    """Writes the card's text.

    What came with the run is text in it that neither ends a table's cell nor is Markdown or HTML.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_cell
    )
    environment.filters |= {"percent": percent, "plural": plural, "setting": setting, "settings": settings}
    names = ("appearance", "motion") if about.step == LATE_FUSION else (about.step,)
    steps = {name: config for name, config in about.config.steps.items() if name in names}
    height, width = about.config.size
    return environment.from_string(files("pipelines.deployment").joinpath("card.md.j2").read_text("utf-8")).render(
        about=about,
        model=model,
        kind=_KINDS.get(about.step, "both streams, joined"),
        height=height,
        width=width,
        clip=_clip(about),
        usage=_Code("\n".join(usage(about, model, Path(about.file)))),
        flow=about.config.flow,
        max_level=MAX_LEVEL,
        no_motion=NO_MOTION,
        streams=model.outputs[1:],
        evaluations=_evaluations(about),
        steps=steps,
        trained_frames=sorted({config.step.frames for config in steps.values()}),
        speed=about_speed(about.run, about.step),
        checked_on=Path(about.check.video).name if about.check.video else "noise",
    )


def _clip(about: Exported) -> tuple[int, float] | None:
    """What `Protocol.clip` says of the student; None of another step."""
    return Protocol.of_paper("student").clip(about.config.steps["student"].step) if about.step == "student" else None


def _cell(value: object) -> str:
    if isinstance(value, _Code):
        return value
    return "".join(_ENTITIES.get(letter, letter) for letter in printable(str(value)))


def _evaluations(about: Exported) -> list[dict[str, Any]]:
    """Every `results.json` of these very weights, as they are: none whose batch norm was recalibrated."""
    folder = Workspace(about.run.folder.parent.parent).scores / about.run.name
    digest = about.run.weights_sha256(about.step)
    found = []
    for file in sorted(folder.glob("*/results.json")):
        try:
            results = read_json(file)
            same = peek(file.with_name("scores.h5"), SCORES_SCHEMA).get("weights_sha256") == digest
        except (MissingError, ArtifactError):
            continue
        if not isinstance(results, dict) or not isinstance(protocol := results.get("protocol"), dict):
            continue
        own_split = results.get("dataset") != "other"
        if same and own_split and results.get("step") == about.step and not protocol.get("recalibrate_bn"):
            found.append(results)
    return found
