"""The published numbers that a result on UCF101 or HMDB51 stands beside (paper.md 5).

A data set is recognised by its number of classes and some of their names, spelled as one likes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.datasets.video_names import plain_name

_UCF101 = (
    "ApplyEyeMakeup BabyCrawling BalanceBeam CliffDiving FieldHockeyPenalty HandstandPushups JugglingBalls PommelHorse "
    "TaiChi YoYo"
)
_HMDB51 = "brush_hair cartwheel draw_sword fall_floor flic_flac kick_ball ride_bike shoot_bow sword_exercise wave"


@dataclass(frozen=True)
class Method:
    """A published method: its top-1, the mean of three splits, as a fraction."""

    name: str
    top1: float


@dataclass(frozen=True)
class Published:
    """What was published on a data set with three official splits."""

    dataset: str
    methods: tuple[Method, ...]


_METHODS = (
    ("Two-stream ConvNet (Simonyan & Zisserman 2014)", 88.0, 59.4),
    ("Two-stream fusion (Feichtenhofer et al. 2016)", 92.5, 65.4),
    ("ST-ResNet (Feichtenhofer et al. 2016)", 93.4, 66.4),
    ("ST-ResNet + IDT", 94.6, 70.3),
    ("Multiplier network (Feichtenhofer et al. 2017)", 94.2, 68.9),
    ("OFF (Sun et al. 2018)", 96.0, 74.2),
    ("MARS, RGB and flow (Crasto et al. 2019), pretrained on Kinetics", 98.1, 80.9),
)


def published(classes: Sequence[str]) -> Published | None:
    """The published numbers on the data set of these classes; None for any other data set."""
    names = {plain_name(name) for name in classes}
    for column, (dataset, size, known) in enumerate((("UCF101", 101, _UCF101), ("HMDB51", 51, _HMDB51)), 1):
        if len(names) == size and {plain_name(name) for name in known.split()} <= names:
            methods = (Method(str(row[0]), round(float(row[column]) / 100, 4)) for row in _METHODS)
            return Published(dataset, tuple(methods))
    return None
