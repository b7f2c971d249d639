"""The two formats of exported files: how each is made and how each is run.

Letters: B videos, T frames.
"""

import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.deployment.model import Deployed, random_inputs
from pipelines.errors import MissingError
from pipelines.storage.atomic import json_text

MOST = 4096  # videos, and frames of a video
SETTINGS = "stres.json"
"""What the file says about itself: JSON in a .pt2, the metadata of that name in an .onnx."""
RunFile = Callable[[Sequence[Tensor]], dict[str, Tensor]]
"""Runs an exported file on its inputs, in order; returns its outputs by name."""


def require(packages: Sequence[str], purpose: str) -> None:
    """Raises `MissingError` naming the packages that are not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingError(f"{purpose} needs {' and '.join(missing)}: pip install '.[export]' in the checkout of stres")


def export_torch(model: Deployed, size: tuple[int, int], settings: Mapping[str, Any]) -> bytes:
    """The content of a .pt2 file."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's about its own workings
        torch.export.save(_exported(model, size), content, extra_files={SETTINGS: json_text(settings)})
    return content.getvalue()


def export_onnx(model: Deployed, size: tuple[int, int], settings: Mapping[str, Any]) -> bytes:
    """The content of an .onnx file. Raises `MissingError` without the packages of the extra `export`."""
    require(("onnx", "onnxscript", "onnxruntime"), "an .onnx file")
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _exported(model, size),
            dynamo=True,
            verbose=False,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
        )
    assert program is not None
    proto = program.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, ("videos", "frames"), strict=False):
            if dimension.dim_param:  # the exporter calls them s30 and s1
                dimension.dim_param = name
    del proto.graph.value_info[:]  # shapes between layers, in those names
    onnx.helper.set_model_props(proto, {SETTINGS: json_text(settings)})
    return proto.SerializeToString()


def _exported(model: Deployed, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The graph, for any B and T."""
    lowest = model.fewest_frames
    videos, frames = torch.export.Dim("videos", min=1, max=MOST), torch.export.Dim("frames", min=lowest, max=MOST)
    shapes = tuple({0: videos, 1: frames} for _ in model.inputs)
    # Exporters take sizes of 0 and 1 in the example for constants.
    with torch.no_grad():
        return torch.export.export(model, random_inputs(model, size, 2, lowest + 2), dynamic_shapes=shapes)


# ------------------------------------------------------------------ running


def run_torch(path: Path, outputs: Sequence[str]) -> RunFile:
    """The .pt2 file at `path`, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            found = module(*inputs)
        return {name: found[name] for name in outputs}

    return run


def run_onnx(path: Path, outputs: Sequence[str]) -> RunFile:
    """The .onnx file at `path`, by onnxruntime on the CPU. Raises `MissingError` without it."""
    require(("onnxruntime",), "comparing an .onnx file with the run")
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return {name: torch.from_numpy(value) for name, value in zip(outputs, session.run(None, feed), strict=True)}

    return run


EXPORT = {"torch": export_torch, "onnx": export_onnx}
RUN = {"torch": run_torch, "onnx": run_onnx}
