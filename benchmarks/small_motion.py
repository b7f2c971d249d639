"""What flow methods make of small people: Weizmann's 80x64 pictures, in which a person is about 20 pixels high.

    python benchmarks/small_motion.py DIR [--clips 21] [--pairs 13]

DIR holds `<class>/*.avi`. The pixels that change between two frames are taken as the person. Prints a row a method:
how fast these move, how many of them hardly do, how the flow varies from pixel to pixel and from pair to pair there,
what warping by it leaves of the difference between the frames, and how much moves elsewhere. docs/ablation.md shows the
table beside what a network learns from such flow.

Letters: F pairs, H W pixels, k how often the pictures are enlarged before the flow.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.methods import make_method
from pipelines.video.decoding import VideoReader

SETTINGS: tuple[tuple[str, dict[str, str], int], ...] = (
    ("farneback", {}, 1),
    ("farneback", {}, 3),
    ("tvl1", {}, 1),
    ("tvl1", {"mode": "cuda"}, 1),
    ("tvl1", {"lambda": "0.3"}, 1),
    ("tvl1", {"lambda": "0.05"}, 1),
    ("tvl1", {"nscales": "1"}, 1),
    ("tvl1", {"median_filtering": "1"}, 1),
    ("tvl1", {}, 2),
    ("tvl1", {}, 3),
)
FIRST = 10  # frames passed over at the beginning of a clip
CHANGED = 8.0  # grey levels between two frames, smoothed, from which a pixel belongs to the person
FEW = 20  # pairs with fewer such pixels are left out
SLOW, MOVES = 0.25, 0.5  # pixels a frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--clips", type=int, default=21)
    parser.add_argument("--pairs", type=int, default=13, help="of each clip")
    arguments = parser.parse_args()
    paths = sorted(arguments.videos.glob("*/*.avi"))
    clips = [grey_frames(path, arguments.pairs + 1) for path in paths[:: max(1, len(paths) // arguments.clips)]]
    print(
        "| method | enlarged | speed, px | slower than 0.25 px | change to the next pixel / speed | "
        "change to the next pair / speed | left by warping | elsewhere above 0.5 px |\n" + 8 * "|---" + "|"
    )
    for method, options, k in SETTINGS:
        found = [figures for clip in clips for figures in measure(method, options, k, clip)]
        name = " ".join([method, *(f"{key} {value}" for key, value in options.items())])
        means = Figures(*np.nanmean([figures.values() for figures in found], axis=0))
        print(f"| {name} | {k} | {means.row()} |", flush=True)


@dataclass(frozen=True)
class Figures:
    """Of one pair; `unsteady` is NaN for the first of a clip."""

    speed: float
    slow: float
    rough: float
    unsteady: float
    left: float
    elsewhere: float

    def values(self) -> list[float]:
        return [self.speed, self.slow, self.rough, self.unsteady, self.left, self.elsewhere]

    def row(self) -> str:
        shares = f"{self.left:.2f} | {100 * self.elsewhere:.1f} %"
        return f"{self.speed:.2f} | {100 * self.slow:.0f} % | {self.rough:.2f} | {self.unsteady:.2f} | {shares}"


def measure(method: str, options: Mapping[str, str], k: int, clip: np.ndarray) -> Iterator[Figures]:
    """The figures of each pair of a clip uint8 [F+1, H, W] in which enough changes."""
    flow = flow_of(method, options, k, clip)
    for number, (field, before, after) in enumerate(zip(flow, clip[:-1], clip[1:], strict=True)):
        change = np.abs(after.astype(np.float32) - before)
        person = cv2.GaussianBlur(change, (5, 5), 0) > CHANGED
        if person.sum() < FEW:
            continue
        speed = np.hypot(*field)
        slopes = np.sqrt(sum(np.square(slope) for component in field for slope in np.gradient(component)))
        mean = float(speed[person].mean()) + 1e-6
        unsteady = np.abs(field - flow[number - 1]).sum(0)[person].mean() / mean if number else np.nan
        far = ~cv2.dilate(person.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
        left = np.abs(warped(after, field) - before)[person].mean() / change[person].mean()
        yield Figures(
            speed=mean,
            slow=float((speed[person] < SLOW).mean()),
            rough=float(slopes[person].mean()) / mean,
            unsteady=float(unsteady),
            left=float(left),
            elsewhere=float((speed[far] > MOVES).mean()),
        )


def flow_of(method: str, options: Mapping[str, str], k: int, clip: np.ndarray) -> np.ndarray:
    """float32 [F, 2, H, W], pixels of the clip as it is; computed on the clip enlarged k times."""
    frames = torch.from_numpy(np.stack([cv2.resize(f, None, fx=k, fy=k, interpolation=cv2.INTER_CUBIC) for f in clip]))
    flow = make_method(method, options, "cpu", "auto").flow(frames[:-1], frames[1:])
    return torch.nn.functional.avg_pool2d(flow, k).numpy() / k


def warped(after: np.ndarray, field: np.ndarray) -> np.ndarray:
    """The second frame as seen from the first."""
    rows, columns = np.mgrid[: after.shape[0], : after.shape[1]].astype(np.float32)
    positions = columns + field[0], rows + field[1]
    return cv2.remap(after.astype(np.float32), *positions, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def grey_frames(path: Path, count: int) -> np.ndarray:
    """uint8 [count, H, W], from frame `FIRST` on."""
    with VideoReader(path, keep_size=True) as reader:
        pictures = [picture for _, picture in reader.pick(lambda index: FIRST <= index < FIRST + count)]
    return np.stack([to_grey(picture) for picture in pictures])


if __name__ == "__main__":
    main()
