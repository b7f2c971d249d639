"""How other tools name their pictures.

frame000001.jpg                       frames, and flow in a folder for each component (the authors' gpu_flow)
img_00001.jpg, image_00001.jpg        frames (denseflow, mmaction2, dense_flow)
flow_x_00000.jpg, flow_y_00000.jpg    flow (denseflow; dense_flow counts from 1)
flow_x_p2_00000.jpg                   flow over two frames (denseflow, --step=2)
x_00001.jpg, y_00001.jpg              flow (mmaction2)
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LayoutName = Literal["authors", "denseflow", "mmaction2"]
PictureKind = Literal["frames", "x", "y", "component"]
"""Which pictures of a folder: its frames, one component of flow by name, or all in a component's own folder."""

COMPONENT_FOLDERS: dict[str, Literal["x", "y"]] = {
    **dict.fromkeys(("u", "x", "flow_x"), "x"),
    **dict.fromkeys(("v", "y", "flow_y"), "y"),
}
OTHER_COMPONENT = {"u": "v", "x": "y", "flow_x": "flow_y", "v": "u", "y": "x", "flow_y": "flow_x"}

_SUFFIX = r"\.(?:jpg|jpeg|png)"
_FRAME = re.compile(rf"(?P<prefix>(?:img|image|frame)?[_-]?)(?P<number>\d{{1,12}}){_SUFFIX}", re.IGNORECASE)
_FLOW = re.compile(
    rf"(?P<prefix>(?:flow_)?(?P<component>[xy])_(?:(?P<direction>[pm])(?P<step>\d{{1,4}})_)?)(?P<number>\d{{1,12}}){_SUFFIX}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PictureName:
    """The parts of a picture's name."""

    prefix: str
    """What precedes the number: one video's pictures share it."""
    number: int
    step: int | None
    """Frames that flow spans, where the name says so; negative: backwards."""


def read_name(name: str, kind: PictureKind) -> PictureName | None:
    """Parses the name of a picture of this kind; None for any other file's."""
    if kind != "frames" and (found := _FLOW.fullmatch(name)):
        if kind != "component" and found["component"].lower() != kind:
            return None
        sign = -1 if (found["direction"] or "").lower() == "m" else 1
        step = sign * int(found["step"]) if found["step"] else None
        return PictureName(found["prefix"], int(found["number"]), step)
    if kind in ("frames", "component") and (found := _FRAME.fullmatch(name)):
        return PictureName(found["prefix"], int(found["number"]), None)
    return None


# ------------------------------------------------------------------ writing


@dataclass(frozen=True)
class FlowLayout:
    """How one tool names the flow of a video."""

    trees: tuple[str, str] | None
    """The folders of x and y above the videos'; None: both are in one folder, below one for the class."""
    names: tuple[str, str]
    """The names of pictures of x and y, without number and suffix."""
    digits: int
    first: int
    """The first number."""

    def folders(self, class_name: str, video: str) -> list[Path]:
        """The relative folders of a video's pictures: for x and y, or one for both."""
        if self.trees is None:
            return [Path(class_name, video)]
        return [Path(tree, video) for tree in self.trees]

    def name(self, component: int, index: int, step: int, suffix: str) -> str:
        """The name of the picture of field `index`, counted from 0; component 0 is x, 1 is y."""
        over = f"p{step}_" if step > 1 and self.names[component].endswith("_") else ""
        return f"{self.names[component]}{over}{index + self.first:0{self.digits}d}.{suffix}"


FLOW_LAYOUTS: dict[LayoutName, FlowLayout] = {
    "authors": FlowLayout(("u", "v"), ("frame", "frame"), digits=6, first=1),
    "denseflow": FlowLayout(None, ("flow_x_", "flow_y_"), digits=5, first=0),
    "mmaction2": FlowLayout(None, ("x_", "y_"), digits=5, first=1),
}
