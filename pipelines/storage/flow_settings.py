"""How flow was made: what a flow file, `dataset.json`, a run and an exported network say of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pipelines.storage.atomic import json_text
from pipelines.storage.typed_json import Within, WrongField, first_difference, from_json, read_fields, to_json

DEFAULT_METHOD: Literal["tvl1"] = "tvl1"
DEFAULT_BOUND, DEFAULT_STEP = 20.0, 1
_OF_A_WORKSPACE = ("method", "method_parameters", "bound", "step")  # which all of its flow files have to share


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """With what flow was computed; equal settings are one object in a catalogue."""

    method: str
    method_parameters: str
    """JSON with sorted keys; `parameters` is what it says."""
    bound: Annotated[float, Within(above=0)]
    """Pixels: flow is clipped to -bound..bound before it is stored as bytes."""
    step: Annotated[int, Within(1, 1 << 20)]
    """Frames: flow is from frame t to frame t + step."""
    short_side: Annotated[int, Within(1, 8192)] | None = None
    """Of the pictures, pixels; None where that is not settled, or the files of a workspace differ in it."""
    flow_input: str | None = None
    """From what it was computed: "video", "jpeg" (stored frames) or "imported"; None where the files differ."""

    @classmethod
    def of(cls, method: str, parameters: Mapping[str, Any], bound: float, step: int, flow_input: str) -> Self:
        """Of flow to be made; `parameters` are the method's, complete."""
        return cls(method, json_text(parameters, sort_keys=True), float(bound), step, None, flow_input)

    @property
    def parameters(self) -> dict[str, Any]:
        return json.loads(self.method_parameters)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Those that a flow file has. Raises `KeyError` where one is missing, `TypeError` or `ValueError` where one is
        not what it has to be."""
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
        """What a flow file says of it beside the size of its pictures."""
        return {
            "method": self.method,
            "method_parameters": self.method_parameters,
            "bound": self.bound,
            "step": self.step,
            "flow_input": self.flow_input,
        }

    @classmethod
    def from_json(cls, document: Any, name: str = "flow") -> Self:
        """What `to_json` gave. Raises `WrongField`; `name` is where the document stands."""
        document = from_json(Mapping[str, Any], document, name)
        parameters = from_json(Mapping[str, Any], document.get("method_parameters"), f"{name}.method_parameters")
        try:
            text = json_text(parameters, sort_keys=True)
        except ValueError:  # NaN, which is no JSON
            raise WrongField(f"{name}.method_parameters", parameters) from None
        return read_fields(cls, document | {"method_parameters": text}, name)

    def to_json(self) -> dict[str, Any]:
        """What config.json, scores and exported files hold: `method_parameters` as an object."""
        return to_json(self) | {"method_parameters": self.parameters}

    def difference(self, before: Self | None, name: str = "") -> str:
        """The first in which these are not as `before` (None: no flow), in words; empty where there is none."""
        return first_difference(before.to_json() if before else {}, self.to_json(), name)

    def contradiction(self, other: Self) -> str:
        """The first setting that all flow files of a workspace have to share and these do not; empty where they do."""
        if self is other:
            return ""
        return next((name for name in _OF_A_WORKSPACE if getattr(self, name) != getattr(other, name)), "")
