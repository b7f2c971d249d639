"""How flow was made, as a flow file, `dataset.json`, a run and an exported network record it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pipelines.storage.atomic import json_text
from pipelines.storage.typed_json import Within, WrongField, first_difference, from_json, read_fields, to_json

DEFAULT_METHOD: Literal["tvl1"] = "tvl1"
DEFAULT_BOUND, DEFAULT_STEP = 20.0, 1
SHARED_SETTINGS = ("method", "method_parameters", "bound", "step")
"""Of `FlowSettings`: those which all flow files of a workspace have to share."""


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """How flow was computed. Equal settings are one object in a catalogue."""

    method: str
    method_parameters: str
    """As JSON with sorted keys; `parameters` decodes it."""
    bound: Annotated[float, Within(above=0)]
    """Pixels: flow is clipped to -bound..bound before it is stored as bytes."""
    step: Annotated[int, Within(1, 1 << 20)]
    """Frames: flow is from frame t to frame t + step."""
    short_side: Annotated[int, Within(1, 8192)] | None = None
    """Of the pictures, pixels; None where it is open, or the files of a workspace differ in it."""
    flow_input: str | None = None
    """What it was computed from: "video", "jpeg" (stored frames) or "imported"; None where the files differ."""

    @classmethod
    def of(cls, method: str, parameters: Mapping[str, Any], bound: float, step: int, flow_input: str) -> Self:
        """The settings of flow to be made; `parameters` are all of the method's."""
        return cls(method, json_text(parameters, sort_keys=True), float(bound), step, None, flow_input)

    @property
    def parameters(self) -> dict[str, Any]:
        return json.loads(self.method_parameters)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The settings in a flow file's attributes. Raises `KeyError`, `TypeError` or `ValueError` where one is missing
        or invalid."""
        short_side = attributes.get("short_side")
        return cls.from_json(
            {
                "method": str(attributes["method"]),
                "method_parameters": json.loads(attributes.get("method_parameters", "{}")),
                "bound": float(attributes["bound"]),
                "step": attributes["step"],
                "short_side": None if short_side is None else int(short_side),
                "flow_input": str(attributes.get("flow_input", "")),
            }
        )

    def attributes(self) -> dict[str, Any]:
        """The attributes of a flow file, without the size of its pictures."""
        return {name: getattr(self, name) for name in (*SHARED_SETTINGS, "flow_input")}

    @classmethod
    def from_json(cls, document: Any, name: str = "flow") -> Self:
        """Reads what `to_json` returned. Raises `WrongField`; `name` is where the document stands."""
        document = from_json(Mapping[str, Any], document, name)
        parameters = from_json(Mapping[str, Any], document.get("method_parameters"), f"{name}.method_parameters")
        try:
            text = json_text(parameters, sort_keys=True)
        except ValueError:  # NaN, which is no JSON
            raise WrongField(f"{name}.method_parameters", parameters) from None
        return read_fields(cls, document | {"method_parameters": text}, name)

    def to_json(self) -> dict[str, Any]:
        """The document in config.json, scores and exported files: `method_parameters` is an object."""
        return to_json(self) | {"method_parameters": self.parameters}

    def difference(self, before: Self | None, name: str = "") -> str:
        """The first difference from `before` (None: no flow) in words; "" for none."""
        return first_difference(before.to_json() if before else {}, self.to_json(), name)

    def contradiction(self, other: Self) -> str:
        """The first setting that all flow files of a workspace have to share and these two do not; "" for none."""
        if self is other:
            return ""
        return next((name for name in SHARED_SETTINGS if getattr(self, name) != getattr(other, name)), "")
