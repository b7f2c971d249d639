"""Videos a second of testing, end to end and of the network alone, against the plain per-frame eager way.

    python benchmarks/evaluate.py [--videos 2] [--crops 5] [--repeats 3] [--depth 50] [--width 64] [--size 224 | 64x80]

The plain way: two torchvision ResNets in eager float32 with the same weights, batch norm as its own layer, NCHW, the
frames of a video as one batch and then their mirrors; frames and flow read from the same files, one after the other.
The run under test is `late`, the two base streams side by side, since that is what ResNets of single frames can
compute; so both must give the same logits, which is checked. The network joined by fusion and temporal kernels, which
has no such peer, is compared with itself without folding.

Each side has a process of its own, ours with its memory kept as the commands do it (`runtime.devices`); all run in
turns. End to end is from the run's files to the logits, loading the weights included, on both sides; ours moreover
writes its results. Videos are made up, of 340x256 pixels for an input of 224, so that neither way resizes anything.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from plain import resnet, synchronise

from pipelines import evaluate, train
from pipelines.datasets.sampling import spaced_centers
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.evaluation.scores import read_scores
from pipelines.models import STResNet
from pipelines.models.folding import folded
from pipelines.runtime.devices import keep_freed_memory
from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.hdf5 import open_file
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run, load_network

CLASSES, FRAMES = ("jump", "run", "sit", "wave"), 60
MEAN, DEVIATION = (np.array(x, np.float32) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
Ways = dict[str, Callable[[], Any]]
Scores = dict[str, np.ndarray]
"""The fused logits [C] of every test video, by its id."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--crops", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=network_size, default=(224, 224))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments.device}, {torch.get_num_threads()} threads, {arguments}")
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder), arguments)
        ours, plain = (Side(make, folder, arguments) for make in (our_ways, plain_ways))
        for scope, videos in (("end to end", arguments.videos), ("network alone", 1)):
            compare(scope, ours, plain, videos, arguments.repeats)
        for side in (ours, plain):
            side.close()


def compare(scope: str, ours: "Side", plain: "Side", videos: int, repeats: int) -> None:
    """Prints a table of the ways of this scope: medians, ratios within a round."""
    names = [name for name in ours.names if name.startswith(scope)]
    turns = [(plain.time(scope)[0], *(ours.time(name)[0] for name in names)) for _ in range(repeats + 1)]
    rounds = turns[1:]  # the first warms up
    print("\n| what | videos/s | times the plain way |\n|---|---|---|")
    for name, seconds in zip([f"the plain way, {scope}", *names], zip(*rounds, strict=True), strict=True):
        ratio = statistics.median(times[0] / each for times, each in zip(rounds, seconds, strict=True))
        print(f"| {name} | {videos / statistics.median(seconds):.3f} | {ratio:.2f} |", flush=True)
    expected = plain.time(scope)[1]
    for name in names if scope == "end to end" else []:
        found = ours.time(name)[1]
        same = sum(int(found[video].argmax() == expected[video].argmax()) for video in expected)
        error = max(np.abs(found[v] - expected[v]).max() for v in expected) / max(
            np.abs(e).max() for e in expected.values()
        )
        print(
            f"{name}: same class for {same} of {len(expected)}; largest difference of the logits, relative: {error:.1e}"
        )


# ------------------------------------------------------------------ a process a side


class Side:
    """A process with its ways, each called by name."""

    def __init__(self, make: Callable[..., Ways], folder: str, arguments: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, folder, arguments), daemon=True)
        self.process.start()
        self.names: list[str] = self.connection.recv()

    def time(self, name: str) -> tuple[float, Any]:
        """Seconds that the way took, and what it gave."""
        self.connection.send(name)
        return self.connection.recv()

    def close(self) -> None:
        self.connection.send(None)
        self.process.join()


def serve(connection: Connection, make: Callable[..., Ways], folder: str, arguments: argparse.Namespace) -> None:
    ways = make(Workspace(Path(folder) / "work"), arguments)
    connection.send(list(ways))
    while (name := connection.recv()) is not None:
        started = time.perf_counter()
        found = ways[name]()
        synchronise(torch.device(arguments.device))
        connection.send((time.perf_counter() - started, found))


def our_ways(workspace: Workspace, arguments: argparse.Namespace) -> Ways:
    keep_freed_memory()
    late = load_network(Run(workspace.runs / "split1"), "late").to(arguments.device)
    joint = STResNet(len(CLASSES), depth=arguments.depth, width=arguments.width).eval().to(arguments.device)
    rgb, flow = (x.movedim(2, -1).contiguous().movedim(-1, 2) for x in one_video(arguments))  # as `Prepare` leaves them

    def end_to_end(precision: str) -> Scores:
        crops, device = arguments.crops, arguments.device
        config = evaluate.Config(workspace.root, "split1", "late", crops=crops, device=device, precision=precision)
        scores = read_scores(evaluate.run(config).folder / "scores.h5")
        return dict(zip(scores.videos, scores.fused, strict=True))

    @torch.inference_mode()
    def alone(network: STResNet, precision: str = "fp32") -> None:
        with torch.autocast(arguments.device, torch.bfloat16, enabled=precision == "bf16"):
            network(rgb, flow)

    late_folded, joint_folded = folded(late), folded(joint)
    return {
        "end to end, `evaluate`": lambda: end_to_end("fp32"),
        "end to end, `evaluate --precision bf16`": lambda: end_to_end("bf16"),
        "network alone, both streams": lambda: alone(late_folded),
        "network alone, not folded": lambda: alone(late),
        "network alone, bf16": lambda: alone(late_folded, "bf16"),
        "network alone, joined, temporal kernels": lambda: alone(joint_folded),
        "network alone, joined, not folded": lambda: alone(joint),
        "network alone, joined, bf16": lambda: alone(joint_folded, "bf16"),
    }


def plain_ways(workspace: Workspace, arguments: argparse.Namespace) -> Ways:
    plain = PlainTwoStreams(workspace, arguments)
    rgb, flow = one_video(arguments)
    return {
        "end to end": lambda: PlainTwoStreams(workspace, arguments).evaluate(),
        "network alone": lambda: [plain.forward(rgb[view], flow[view]) for view in range(2)] and None,
    }


def one_video(arguments: argparse.Namespace) -> list[torch.Tensor]:
    """Both inputs of a video and its mirror: [2, T, C, h, w]."""
    size = stored_size(arguments.size)
    return [torch.randn(2, arguments.crops, channels, *size, device=arguments.device) for channels in (3, 20)]


class PlainTwoStreams:
    """What one writes in an afternoon."""

    def __init__(self, workspace: Workspace, arguments: argparse.Namespace) -> None:
        self.workspace, self.arguments = workspace, arguments
        weights = load_network(Run(workspace.runs / "split1"), "late").state_dict()
        self.networks = {}
        for name, channels in (("appearance", 3), ("motion", 20)):
            network = resnet(arguments.depth, arguments.width, channels)
            network.fc = torch.nn.Linear(network.fc.in_features, len(CLASSES))
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
            for center in spaced_centers(FRAMES, self.arguments.crops):
                jpeg = frames_file["jpeg"][offsets[center] : offsets[center + 1]]
                picture = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                frames.append(((picture.astype(np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1))
                stacks.append(flow_file["flow"][center - 5 : center + 5].reshape(20, *picture.shape[:2]))
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


# ------------------------------------------------------------------ a run to test


def network_size(text: str) -> tuple[int, int]:
    """`224` or `64x80` as height and width."""
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def stored_size(size: tuple[int, int]) -> tuple[int, int]:
    """256x340 for 224; another shape's own eighth more."""
    height, width = size
    return height * 8 // 7, round(height * 340 / 224) if height == width else width * 8 // 7


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
            width=arguments.width,
            size=arguments.size,
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
