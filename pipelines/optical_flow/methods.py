"""The flow methods by name, and what every one of them offers: batches of frames in, flow in pixels out.

Letters: N pairs of frames, H W pixels.
"""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

from pipelines.errors import UsageError

if TYPE_CHECKING:
    import torch

MethodName = Literal["tvl1", "tvl1-opencv", "farneback", "dis", "raft"]
"""Each is made by `make(options, device) -> FlowMethod` in the module of this package that has its name, with _ for -.
The `make` of those in `_WITH_ENGINES` takes an engine too."""
METHODS: tuple[MethodName, ...] = get_args(MethodName)
_WITH_ENGINES = ("tvl1",)
EngineName = Literal["auto", "numba", "triton", "cuda", "reference"]
"""The programs that compute tvl1; `auto` is the fastest one for the device. Their flow is equal but for rounding."""
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


class FlowMethod(Protocol):
    """A flow method with its parameters settled."""

    @property
    def input(self) -> Literal["grey", "rgb"]:
        """What `flow` takes: grey frames (as `cv2.COLOR_RGB2GRAY` makes them) or RGB frames."""

    @property
    def batch_invariant(self) -> bool:
        """Whether the flow of a pair has the same bits in whatever batch it is."""

    @property
    def engine(self) -> str:
        """The program that computes it, or that computed the last flow: for tvl1 one of `ENGINES`, after `cuda` the
        shapes of its levels; else the library. Stored with every flow file, but never compared: all engines of a
        method give the same flow but for rounding."""

    @property
    def uses_device(self) -> bool:
        """Whether it computes on the device it was made with; otherwise on the CPU."""

    @property
    def parameters(self) -> dict[str, Any]:
        """All resolved parameters by the names of their options; JSON-serialisable, stored with every flow file."""

    @property
    def batch_size(self) -> int:
        """How many pairs to give it at once."""

    def flow(self, frame0: "torch.Tensor", frame1: "torch.Tensor") -> "torch.Tensor":
        """Flow from frame0 to frame1: what is at p in frame0 is at p + flow in frame1.

        Args:
            frame0: uint8 [N, H, W] (grey) or [N, 3, H, W] (RGB).
            frame1: The same.

        Returns:
            float32 [N, 2, H, W] on the frames' device: pixels, x then y.

        Raises:
            VideoError: The frames are too small for the method.
        """


def make_method(
    name: str, options: Mapping[str, str | float] | None = None, device: str = "cpu", engine: str = "auto"
) -> FlowMethod:
    """Makes a flow method.

    Args:
        name: One of `METHODS`.
        options: Values that replace the defaults of its parameters.
        device: cpu, cuda or cuda:n.
        engine: One of `ENGINES`.

    Raises:
        UsageError: The method, engine or an option is unknown, or a value is out of range.
        MissingError: Weights are missing.
    """
    if name not in METHODS:
        raise UsageError(f"--method {name!r} is not known: give one of {', '.join(METHODS)}")
    check_engine(name, engine)
    # Only the module asked for is loaded: others import libraries that it does not need.
    module = importlib.import_module(f"pipelines.optical_flow.{name.replace('-', '_')}")
    return module.make(options or {}, device, engine) if name in _WITH_ENGINES else module.make(options or {}, device)


def check_engine(method: str, engine: str) -> None:
    """Raises `UsageError` unless the method has this engine."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is not known: give one of {', '.join(ENGINES)}")
    if engine != "auto" and method not in _WITH_ENGINES:
        raise UsageError(f"--engine {engine} does not go with --method {method}, only with {', '.join(_WITH_ENGINES)}")


# ------------------------------------------------------------------ options

Parameters = TypeVar("Parameters")


def parse_options(method: str, kind: type[Parameters], options: Mapping[str, str | float]) -> Parameters:
    """Makes the dataclass `kind` from --method-option values, converted to the types of its defaults.

    A field whose name is a keyword ends in an underscore that its option does not have (`lambda_`).

    Args:
        method: Named in messages.
        kind: A dataclass of parameters, which checks the range of each value.
        options: Text or numbers by the options' names.

    Raises:
        UsageError: An option is unknown, or a value cannot be converted or is out of range.
    """
    fields = {option_name(field.name): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, value in options.items():
        if name not in fields:
            raise UsageError(f"--method-option {name!r} is not one of {method}'s: {', '.join(fields)}")
        default: Any = fields[name].default
        try:
            number = 0.0 if isinstance(default, str) else float(value)
            if not math.isfinite(number) or (isinstance(default, int) and number != int(number)):
                raise ValueError
            values[fields[name].name] = str(value) if isinstance(default, str) else type(default)(number)
        except (ValueError, OverflowError, TypeError):  # of another type in a run's damaged configuration
            wanted = "an integer" if isinstance(default, int) else "a finite number"
            raise UsageError(f"--method-option {name}={value}: must be {wanted} (default {default})") from None
    return kind(**values)


def as_options(parameters: Any) -> dict[str, Any]:
    """A parameters dataclass as a dict by the names of its options."""
    return {option_name(name): value for name, value in dataclasses.asdict(parameters).items()}


def options_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The options that give a method the parameters that a flow file states. Of weights it states the name or hash, not
    where they are."""
    return {name: value for name, value in stated.items() if name != "weights"}


def option_name(field_name: str) -> str:
    return field_name.rstrip("_")


def require(parameters: Any, **rules: tuple[bool, str]) -> None:
    """Raises `UsageError` for the first field whose rule (whether it holds, what it must be) does not hold."""
    for name, (holds, wording) in rules.items():
        if not holds:
            value = getattr(parameters, name)
            raise UsageError(f"--method-option {option_name(name)}={value}: must be {wording}")
