"""The model card beside an exported file: Markdown for whoever gets the file without the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.deployment.checking import Check
from pipelines.deployment.model import Deployed
from pipelines.errors import MissingError
from pipelines.evaluation.scores import SCORES_SCHEMA
from pipelines.storage.atomic import read_json
from pipelines.storage.hdf5 import ArtifactError, peek
from pipelines.training.run_config import RunConfig, StepConfig
from pipelines.training.runs import LATE_FUSION, Run
from pipelines.wording import percent, plural, printable
from pipelines.workspace import Workspace


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
    check: Check


def write_card(about: Exported, model: Deployed) -> str:
    """The card's text."""
    parts = [
        f"# {about.file}: {plural(len(about.config.classes), 'class')} of videos",
        _summary(about),
        _inputs(about, model),
        _outputs(about, model),
        _example(about, model),
        _accuracy(about),
        _recipe(about),
        _provenance(about),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(about: Exported) -> str:
    network = about.config.network
    kind = {LATE_FUSION: "both base streams side by side", "appearance": "appearance stream", "motion": "motion stream"}
    what = kind.get(about.step, "both streams, joined")
    return (
        f"Spatiotemporal residual network (Feichtenhofer, Pinz, Wildes, NIPS 2016): {what}, depth {network.depth}, "
        f"width {network.width}. Run `{_cell(about.run.name)}`, step `{about.step}`. Any number of videos B, 1 or "
        "more; normalisation is part of the file."
    )


def _inputs(about: Exported, model: Deployed) -> str:
    height, width = about.config.size
    kinds = {"rgb": "RGB frames", "flow": "optical flow, x and y in turn"}
    rows = [
        f"| `{name}` | uint8 [B, T, {channels}, {height}, {width}] | {kinds[name]} |"
        for name, channels in model.inputs.items()
    ]
    lines = [
        "## Inputs",
        "",
        "| name | type | what |",
        "|---|---|---|",
        *rows,
        "",
        f"T frames of one video, {model.fewest_frames} or more, spaced evenly; the network was trained on "
        f"{_trained_frames(about)}.",
    ]
    if "rgb" in model.inputs:
        lines.append("Frames are bytes 0..255, not normalised.")
    if "flow" in model.inputs:
        lines += ["", _flow(about, model.inputs["flow"] // 2)]
    lines += [
        "",
        f"The picture is {_picture(about)}, of which the largest centered part of the input's shape, or a part of it "
        "as in training, is resized to the input: `pipelines.deployment.checking.clip_inputs` of stres does all this.",
    ]
    return "\n".join(lines)


def _picture(about: Exported) -> str:
    short_side = about.config.flow.short_side if about.config.flow else None
    return f"resized to a short side of {short_side} pixels (bicubic)" if short_side else "as large as stres stores it"


def _trained_frames(about: Exported) -> str:
    frames = sorted({step.step.frames for step in _steps(about).values()})
    return f"T = {' and '.join(map(str, frames))}"


def _flow(about: Exported, stack: int) -> str:
    made = about.config.flow
    if made is None:
        return "How the flow was made is not known: the run was trained without flow files."
    parameters = ", ".join(f"{_cell(name)}={_cell(value)}" for name, value in made.parameters.items())
    bound = made.bound
    return (
        f"The flow of frame t is that of frames t-{stack // 2} .. t+{stack - stack // 2 - 1}, each to the frame "
        f"{made.step} later, by `{_cell(made.method)}` ({parameters}) at the size of the whole "
        f"picture; in pixels, clipped to ±{bound:g}, then `round(255 * (v + {bound:g}) / {2 * bound:g})`: 128 is none. "
        "Mirroring a picture turns x round: 255 - value."
    )


def _outputs(about: Exported, model: Deployed) -> str:
    classes = about.config.classes
    streams = " and ".join(f"`{name}`" for name in model.outputs[1:])
    mean = "of the mean of both streams' logits" if len(model.outputs) == 3 else "of the logits"
    head = [
        "## Outputs",
        "",
        f"`probabilities`, float32 [B, {len(classes)}]: the softmax {mean}. {streams}: logits averaged over time, "
        f"[B, {len(classes)}] each. To test several views of a video (its mirror image, other crops), average their "
        "logits, then take the softmax.",
        "",
        "| index | class |",
        "|---|---|",
    ]
    return "\n".join([*head, *(f"| {index} | {_cell(name)} |" for index, name in enumerate(classes))])


def _example(about: Exported, model: Deployed) -> str:
    frames = max(25, model.fewest_frames)
    shapes = {name: (1, frames, channels, *about.config.size) for name, channels in model.inputs.items()}
    names = ", ".join(shapes)
    if about.format == "torch":
        lines = ["import torch", "", f"model = torch.export.load({about.file!r}).module()"]
        lines += [f"{name} = torch.full({shape}, 128, dtype=torch.uint8)" for name, shape in shapes.items()]
        lines += [f"probabilities = model({names})['probabilities']"]
    else:
        feed = ", ".join(f"{name!r}: {name}" for name in shapes)
        lines = ["import numpy as np", "import onnxruntime", ""]
        lines += [f"session = onnxruntime.InferenceSession({about.file!r}, providers=['CPUExecutionProvider'])"]
        lines += [f"{name} = np.full({shape}, 128, np.uint8)" for name, shape in shapes.items()]
        lines += [f"(probabilities,) = session.run(['probabilities'], {{{feed}}})"]
    lines += ["print(probabilities.shape, probabilities[0].argmax())"]
    return "\n".join(["## Use", "", "```python", *lines, "```"])


def _accuracy(about: Exported) -> str:
    lines = ["## Accuracy", ""]
    rows = _results(about)
    if not rows:
        return "\n".join([*lines, "Not measured: the run has no scores of this network (`stres evaluate`)."])
    lines += ["Of the run's test videos, top-1 with its 95 % interval, by `stres evaluate`:", ""]
    lines += ["| protocol | videos | stream | top-1 | mean class |", "|---|---|---|---|---|"]
    for results in rows:
        protocol = ", ".join(f"{_cell(name)} {_cell(value)}" for name, value in results["protocol"].items())
        for stream in ("appearance", "motion", "fused"):
            if stream in results:
                values = results[stream]
                low, high = values["top1_interval"]
                top1 = f"{percent(values['top1'])} % ({percent(low)} - {percent(high)})"
                lines.append(
                    f"| {protocol} | {results['videos']} | {stream} | {top1} | "
                    f"{percent(values['mean_class_accuracy'])} % |"
                )
    return "\n".join([*lines, "", "The file alone, one centered view without its mirror image, was not tested so."])


def _results(about: Exported) -> list[dict[str, Any]]:
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
        own_split = results.get("dataset") != "other"
        if same and own_split and results.get("step") == about.step and not results["protocol"].get("recalibrate_bn"):
            found.append(results)
    return found


def _steps(about: Exported) -> dict[str, StepConfig]:
    """The recipes of the steps whose weights these are."""
    names = ("appearance", "motion") if about.step == LATE_FUSION else (about.step,)
    return {name: config for name, config in about.config.steps.items() if name in names}


def _recipe(about: Exported) -> str:
    config = about.config
    lines = [
        "## Training",
        "",
        f"Recipe `{_cell(config.recipe)}`, split {config.split}, seed {config.seed}, {config.train_videos.count} "
        f"videos, initial weights `{_cell(config.weights)}`, precision {_cell(config.precision)}, input "
        f"{config.size[0]}x{config.size[1]}.",
    ]
    if "joint" in about.step:
        pick = ("fusion", "direction", "temporal_kernels", "temporal_init")
        lines += [
            "",
            "Connection: "
            + ", ".join(f"{name.replace('_', ' ')} {_cell(getattr(config.network, name))}" for name in pick)
            + ".",
        ]
    for name, step in _steps(about).items():
        lines += ["", f"| {name} | |", "|---|---|"]
        lines += [
            f"| {_cell(key.replace('_', ' '))} | {_cell(value)} |"
            for key, value in step.to_json().items()
            if key != "name"
        ]
    return "\n".join(lines)


def _provenance(about: Exported) -> str:
    lines = ["## Provenance", "", f"* {about.file}: SHA-256 `{about.sha256}`"]
    lines += [f"* weights of the run: SHA-256 `{about.run.weights_sha256(about.step)}`"]
    lines += [f"* training videos: SHA-256 of their list `{_cell(about.config.train_videos.sha256)}`"]
    lines += [f"* trained with stres {_cell(about.config.stres_version)}"]
    lines += ["* exported with " + ", ".join(f"{name} {version}" for name, version in about.versions.items())]
    check = about.check
    what = _cell(Path(check.video).name) if check.video else "noise"
    shapes = ", ".join(f"B {videos} T {frames}" for videos, frames in check.shapes)
    difference = f"largest difference of an output {check.largest_difference:.1e}"
    lines += [f"* checked against the run on {what} ({shapes}): {difference}"]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """What came with the run as text that neither ends a table's cell nor is Markdown or HTML."""
    return "".join(_ENTITIES.get(letter, letter) for letter in printable(str(value)))


_ENTITIES = {letter: f"&#{ord(letter)};" for letter in "&<>[]`|"}
