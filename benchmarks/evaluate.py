"""Videos a second of testing, end to end and of the network alone, against the plain per-frame eager way.

    python benchmarks/evaluate.py [--videos 2] [--crops 5] [--repeats 3] [--depth 50] [--size 224] [--device cpu]

The plain way: two torchvision ResNets in eager float32 with the same weights, batch norm as its own layer, NCHW, the
frames of a video as one batch and then their mirrors; frames and flow read from the same files, one after the other.
The run under test is `late`, the two base streams side by side, since that is what ResNets of single frames can
compute; so both must give the same logits, which is checked. The network joined by fusion and temporal kernels, which
has no such peer, is compared with itself without folding. All ways run in turns; medians. Videos are made up, of
340x256 pixels for an input of 224, so that neither way resizes anything.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision

from pipelines import evaluate, train
from pipelines.artifacts import new_flow_file, new_frames_file, open_file
from pipelines.datasets.sampling import spaced_centres
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.evaluation.scores import read_scores
from pipelines.models import STResNet
from pipelines.models.folding import folded
from pipelines.models.stream import BLOCKS
from pipelines.training.runs import Run, load_network
from pipelines.workspace import Workspace

CLASSES, FRAMES = ("jump", "run", "sit", "wave"), 60
MEAN, DEVIATION = (np.array(x, np.float32) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--crops", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads, {arguments}")
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_run(Path(folder), arguments)
        plain = PlainTwoStreams(workspace, arguments)
        rows = [*end_to_end(workspace, plain, arguments), *network_alone(workspace, plain, arguments)]
    print("\n| what | videos/s | times the plain way |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


# ------------------------------------------------------------------ what is timed


def end_to_end(workspace: Workspace, plain: "PlainTwoStreams", arguments: argparse.Namespace) -> list[tuple[str, ...]]:
    """From the files to the logits, without loading weights (the plain way) and with all of it (ours)."""
    config = evaluate.Config(
        workspace.root, "split1", "late", crops=arguments.crops, device=arguments.device, workers=0
    )
    found: dict[str, evaluate.Result] = {}
    expected: dict[str, np.ndarray] = {}
    ours, theirs = in_turns(
        [lambda: found.update(ours=evaluate.run(config)), lambda: expected.update(plain.evaluate())], arguments
    )
    scores = read_scores(found["ours"].folder / "scores.h5")
    wanted = np.stack([expected[video] for video in scores.videos])
    same = int((scores.fused.argmax(1) == wanted.argmax(1)).sum())
    error = np.abs(scores.fused - wanted).max() / np.abs(wanted).max()
    print(f"same class for {same} of {len(wanted)} videos; largest difference of the logits, relative: {error:.1e}")
    return [
        ("`evaluate`, end to end", f"{arguments.videos / ours:.3f}", f"{theirs / ours:.2f}"),
        ("the plain way, end to end", f"{arguments.videos / theirs:.3f}", "1"),
    ]


@torch.inference_mode()
def network_alone(
    workspace: Workspace, plain: "PlainTwoStreams", arguments: argparse.Namespace
) -> list[tuple[str, ...]]:
    """One video and its mirror: [2, T, C, h, w]."""
    late = load_network(Run(workspace.runs / "split1"), "late").to(arguments.device)
    joint = STResNet(len(CLASSES), depth=arguments.depth).eval().to(arguments.device)
    height, width = stored_size(arguments.size)
    rgb, flow = (torch.randn(2, arguments.crops, c, height, width, device=arguments.device) for c in (3, 20))
    last = [x.movedim(2, -1).contiguous().movedim(-1, 2) for x in (rgb, flow)]  # as `Prepare` leaves them
    networks = [folded(late), late, folded(joint), joint]
    ways: list[Callable[[], object]] = [lambda network=network: network(*last) for network in networks]
    seconds = in_turns([*ways, lambda: [plain.forward(rgb[view], flow[view]) for view in range(2)]], arguments)
    names = (
        "network alone, both streams",
        "the same without folding",
        "network alone, joined, temporal kernels",
        "the same without folding",
        "the plain way, both ResNets",
    )
    return [(name, f"{1 / s:.3f}", f"{seconds[-1] / s:.2f}") for name, s in zip(names, seconds, strict=True)]


class PlainTwoStreams:
    """What one writes in an afternoon."""

    def __init__(self, workspace: Workspace, arguments: argparse.Namespace) -> None:
        self.workspace, self.arguments = workspace, arguments
        weights = load_network(Run(workspace.runs / "split1"), "late").state_dict()
        self.networks = {}
        for name, channels in (("appearance", 3), ("motion", 20)):
            network = torchvision.models.ResNet(
                torchvision.models.resnet.Bottleneck, list(BLOCKS[arguments.depth]), num_classes=len(CLASSES)
            )
            network.conv1 = torch.nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
            own = {key.partition(".")[2]: value for key, value in weights.items() if key.startswith(f"{name}.")}
            network.load_state_dict({key: value.contiguous() for key, value in own.items()})
            self.networks[name] = network.eval().to(arguments.device)

    def evaluate(self) -> dict[str, np.ndarray]:
        """The fused logits of every test video."""
        return {video: self.score(*video.split("/")) for video in test_ids(self.arguments.videos)}

    @torch.no_grad()
    def score(self, class_name: str, video: str) -> np.ndarray:
        frames, stacks = [], []
        with (
            open_file(self.workspace.frames_file(class_name, video)) as frames_file,
            open_file(self.workspace.flow_file(class_name, video)) as flow_file,
        ):
            offsets = frames_file["offsets"][:]
            for centre in spaced_centres(FRAMES, self.arguments.crops):
                jpeg = frames_file["jpeg"][offsets[centre] : offsets[centre + 1]]
                picture = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                frames.append(((picture.astype(np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1))
                stacks.append(flow_file["flow"][centre - 5 : centre + 5].reshape(20, *picture.shape[:2]))
        rgb, flow = np.stack(frames), np.stack(stacks)
        mirrored = flow[..., ::-1].copy()
        mirrored[:, 0::2] = 255 - mirrored[:, 0::2]
        views = ((rgb, flow), (rgb[..., ::-1].copy(), mirrored))
        device = self.arguments.device
        logits = [
            self.forward(
                torch.from_numpy(rgb).to(device), torch.from_numpy((flow.astype(np.float32) - 128) / 57.6).to(device)
            )
            for rgb, flow in views
        ]
        return torch.stack(logits).mean(0).cpu().numpy()

    @torch.no_grad()
    def forward(self, rgb: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        """The mean of both streams and all frames."""
        return (self.networks["appearance"](rgb) + self.networks["motion"](flow)).mean(0) / 2


def in_turns(ways: list[Callable[[], object]], arguments: argparse.Namespace) -> list[float]:
    """Median seconds of each, measured alternately after a warm-up."""
    times: list[list[float]] = [[] for _ in ways]
    for repeat in range(arguments.repeats + 1):
        for way, found in zip(ways, times, strict=True):
            started = time.perf_counter()
            way()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            if repeat:
                found.append(time.perf_counter() - started)
    return [statistics.median(found) for found in times]


# ------------------------------------------------------------------ a run to test


def stored_size(size: int) -> tuple[int, int]:
    """256x340 for 224."""
    return size * 8 // 7, round(size * 340 / 224)


def test_ids(videos: int) -> list[str]:
    return [f"{CLASSES[k % len(CLASSES)]}/test{k}" for k in range(videos)]


def make_run(root: Path, arguments: argparse.Namespace) -> Workspace:
    """Videos, and a run that has seen them for a few updates: how well it does is not the question here."""
    workspace = Workspace(root / "work")
    ids = [f"{name}/train" for name in CLASSES], test_ids(arguments.videos)
    for seed, video in enumerate([*ids[0], *ids[1]]):
        write_video(workspace, *video.split("/"), seed, stored_size(arguments.size))
    write_splits(workspace.splits, [Split(1, *ids, list(CLASSES), "benchmark")])
    few = {"iterations": 3, "batch_size": 4, "lr": 1e-4}
    train.run(
        train.Config(
            workspace.root,
            steps=("appearance", "motion"),
            depth=arguments.depth,
            size=(arguments.size, arguments.size),
            weights="none",
            overrides={"appearance": few, "motion": few},
            device=arguments.device,
        )
    )
    return workspace


def write_video(workspace: Workspace, class_name: str, video: str, seed: int, size: tuple[int, int]) -> None:
    """Smooth pictures and smooth flow."""
    rng = np.random.default_rng(seed)
    height, width = size

    def smooth(channels: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (8, 10, channels), dtype=np.uint8)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    about = {"fps": 25.0, "source": video, "source_sha256": f"{class_name}/{video}", "source_frames": FRAMES}
    about |= {"short_side": height, "width": width, "height": height}
    with new_frames_file(workspace.frames_file(class_name, video)) as frames:
        for _ in range(FRAMES):
            frames.append(cv2.imencode(".jpg", smooth(3), [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
        frames.finish(about)
    settings = {"method": "farneback", "method_parameters": "{}", "bound": 20.0, "step": 1, "flow_input": "video"}
    with new_flow_file(workspace.flow_file(class_name, video)) as flow:
        flow.append(np.stack([smooth(2).transpose(2, 0, 1) for _ in range(FRAMES - 1)]))
        flow.finish(about | settings)


if __name__ == "__main__":
    main()
