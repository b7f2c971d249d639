"""The parameters of TV-L1, by OpenCV's names and with its defaults."""

from dataclasses import dataclass

from pipelines.errors import UsageError
from pipelines.optical_flow.methods import require

_MEDIAN_OF_MODE = {"cpu": 5, "cuda": 1}
MODES = tuple(_MEDIAN_OF_MODE)


@dataclass(frozen=True)
class SharedParameters:
    """What `tvl1` and `tvl1-opencv` have in common. Raises `UsageError` for values out of range."""

    tau: float = 0.25
    """Time step of the dual update."""
    lambda_: float = 0.15
    """Weight of the data term: smaller gives smoother flow."""
    theta: float = 0.3
    """How tightly the flow is tied to its auxiliary copy."""
    nscales: int = 5
    """Levels of the image pyramid; fewer are used where one would be smaller than 16 pixels."""
    warps: int = 5
    """Warpings of the second frame a level."""
    epsilon: float = 0.01
    """Stops a warp when the flow changes less than this (root mean square, pixels)."""
    inner_iterations: int = 30
    """Iterations between two median filterings."""
    outer_iterations: int = 10
    """Median filterings a warp; mode cuda, which has none, does inner x outer iterations."""
    scale_step: float = 0.8
    """Size of a level relative to the next finer one."""
    gamma: float = 0.0
    """Weight of the illumination term; 0 leaves it out. `tvl1` has no other."""

    def __post_init__(self) -> None:
        require(
            self,
            tau=(0 < self.tau <= 1, "above 0 and at most 1"),
            lambda_=(0 < self.lambda_ < 1e6, "a positive number"),
            theta=(0 < self.theta < 1e6, "a positive number"),
            nscales=(1 <= self.nscales <= 100, "1..100"),
            warps=(1 <= self.warps <= 1000, "1..1000"),
            epsilon=(0 <= self.epsilon < 1e6, "0 or more"),
            inner_iterations=(1 <= self.inner_iterations <= 10000, "1..10000"),
            outer_iterations=(1 <= self.outer_iterations <= 10000, "1..10000"),
            scale_step=(0.1 <= self.scale_step < 1, "0.1 or more and below 1"),
            gamma=(0 <= self.gamma < 1e6, "0 or more"),
        )


@dataclass(frozen=True)
class TVL1Parameters(SharedParameters):
    """What the flow is computed with. Raises `UsageError` for values out of range."""

    median_filtering: int = 0
    """Side of the median filter: 1 (none), 3 or 5. 0 becomes the mode's own: 5 in mode cpu, 1 in mode cuda."""
    mode: str = "cpu"
    """Which of OpenCV's two estimators: cpu (`cv2.optflow.DualTVL1OpticalFlow` of OpenCV 5) or cuda
    (`cv2.cuda.OpticalFlowDual_TVL1`, with which the published flow of the field was made)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise UsageError(f"--method-option mode={self.mode}: must be one of {', '.join(MODES)}")
        if self.median_filtering == 0:
            object.__setattr__(self, "median_filtering", _MEDIAN_OF_MODE[self.mode])
        sides = (1, 3, 5) if self.mode == "cpu" else (1,)
        wording = "1 (none), 3 or 5" if self.mode == "cpu" else "1 (none) in mode cuda, which has no median filter"
        require(
            self,
            gamma=(self.gamma == 0, "0: the illumination term is computed by --method tvl1-opencv only"),
            median_filtering=(self.median_filtering in sides, wording),
        )


_SMALLEST_SIDE = 16  # pixels; OpenCV's


def level_sizes(height: int, width: int, nscales: int, scale_step: float) -> list[tuple[int, int]]:
    """(height, width) of each level, the full size first.

    Each level is `scale_step` times the one before, rounded half to even. The pyramid ends before the first level with
    a side below 16 pixels; the full size always counts, however small.
    """
    sizes = [(height, width)]
    while len(sizes) < nscales:
        height, width = round(height * scale_step), round(width * scale_step)
        if min(height, width) < _SMALLEST_SIDE:
            break
        sizes.append((height, width))
    return sizes
