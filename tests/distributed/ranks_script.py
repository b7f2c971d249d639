"""What torchrun starts for the tests, `ranks_script.py FOLDER`: all that goes well, of which rank 0 leaves its
findings, and at last an error. In one launch, since loading torch takes longer than most of it."""

import contextlib
import io
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from pipelines import evaluate, train, verify
from pipelines.datasets.samples import Batch
from pipelines.errors import Interrupted, MissingError
from pipelines.models import STResNet
from pipelines.prediction import one_video
from pipelines.runtime import worker_pool
from pipelines.runtime.ranks import ranks
from pipelines.runtime.worker_pool import run_tasks
from pipelines.training.data_parallel import DataParallelPlan
from pipelines.training.loop import StepTrainer
from pipelines.training.recipes import Step
from pipelines.training.sync_batch_norm import SyncBatchNorm
from stres_cli.app import app
from stres_cli.console import command

# ------------------------------------------------------------------ updates

STEP = Step(
    "joint1", 1e-4, (1.0,), epochs=9, factor=1, batch_size=7, micro_batch=4, frames=2, dropout=0.5, label_smoothing=0.1
)
STUDENT = replace(STEP, name="student", feature_weight=1.0, logit_weight=1.0, freeze=2)
VIDEOS = 9  # batches of 7 and of 2
UPDATES = 6
BAD = {0: {4}, 2: {0, 3, 4}, 4: {0, 1, 2}}  # update -> places that cannot be read, all of them rank 0's


def batch_of(update: int, places: list[int]) -> Batch:
    """The videos in those places of an update's batch, random but the same for whoever asks."""
    good = [place for place in places if place not in BAD.get(update, ())]
    rgb, flow = [], []
    for place in good:
        generator = torch.Generator().manual_seed(100 * update + place)
        rgb.append(torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8))
        flow.append(torch.randint(0, 256, (2, 20, 32, 32), generator=generator, dtype=torch.uint8))
    missing = tuple(i for i, place in enumerate(places) if place not in good)
    labels = torch.tensor([place % 3 for place in good], dtype=torch.int64)
    pictures = (torch.stack(rgb), torch.stack(flow)) if good else (None, None)
    return Batch(*pictures, labels, labels, {f"a/{update}-{i}": "bad" for i in missing}, missing)


def updates(sync_bn: bool | None, step: Step = STEP) -> dict[str, object]:
    """Some updates in double precision; what they make of the network."""
    torch.manual_seed(ranks().rank)  # rank 0's weights are to become everybody's
    network = STResNet(3, depth=26, width=4, dropout=step.dropout, streams=step.streams).double()
    torch.manual_seed(7)  # of one teacher for all
    teacher = STResNet(3, depth=26, width=4).double() if step.name == "student" else None
    plan = DataParallelPlan(step, VIDEOS, sync_bn)
    trainer = StepTrainer(network, step, VIDEOS, torch.device("cpu"), plan=plan, teacher=teacher)
    trainer.prepare.double()
    for update in range(UPDATES):
        places = list(range((7, 2)[update % 2]))
        trainer.fit([batch_of(update, plan.local_items(places))])
    trainer.sync_state()
    moments = {name: value for name, value in network.state_dict().items() if "running" in name}
    same = all(other.keys() == moments.keys() for other in ranks().gather(moments))
    same = same and all(torch.equal(o[k], v) for o in ranks().gather(moments) for k, v in moments.items())
    sums = {name: float(value) for name, value in trainer.state.sums.items()}
    return {"model": network.state_dict(), "sums": sums, "bad": trainer.state.unreadable, "moments agree": same}


def synchronised_norm() -> dict[str, torch.Tensor]:
    """Outputs, gradients and moments where rank 0 has 3 of 4 images, rank 1 the fourth; then rank 1 has none."""
    torch.manual_seed(0)
    x, weights = torch.randn(2, 4, 5, 2, 3, dtype=torch.float64) * 3 + 7
    mine = slice(0, 3) if ranks().is_first else slice(3, 4)
    norm = SyncBatchNorm(5, momentum=0.05).double()
    torch.nn.init.normal_(norm.weight)
    part = x[mine].clone().requires_grad_()
    y = norm(part)
    (y * weights[mine]).sum().backward()
    found = {"y": y.detach(), "dx": part.grad, "running_mean": norm.running_mean, "running_var": norm.running_var}
    found = {name: torch.cat(ranks().gather(value)) if name in ("y", "dx") else value for name, value in found.items()}
    found |= {f"d_{name}": sum(ranks().gather(p.grad)) for name, p in norm.named_parameters()}
    found = {name: value.clone() for name, value in found.items()}
    norm.absent = not ranks().is_first
    part = x[mine].clone().requires_grad_()
    y = norm(part)
    (y * weights[mine]).sum().backward()
    return found | {
        "y without rank 1": y.detach(),
        "dx without rank 1": part.grad,
        "absent dx": ranks().gather(part.grad)[1],
    }


def training() -> dict[str, object]:
    with ranks().process_group(torch.device("cpu")):
        return {
            "norm": synchronised_norm(),
            "together": updates(True),
            "dealt": updates(False),
            "student together": updates(True, STUDENT),
            "student dealt": updates(False, STUDENT),
        }


# ------------------------------------------------------------------ stages

TINY = {
    "appearance": {"iterations": 4, "batch_size": 4, "lr": 1e-3},  # gone through together
    "motion": {"iterations": 5, "batch_size": 4, "micro_batch": 2, "lr": 1e-3},  # dealt
}


def config(folder: Path, name: str, **changes) -> train.Config:
    defaults = {
        "recipe": "small",
        "width": 4,
        "size": (64, 64),
        "overrides": TINY,
        "device": "cpu",
        "steps": tuple(TINY),
        "validation": 0.3,
    }
    return train.Config(folder / "work", name=name, **(defaults | changes))


def command_line(*arguments: object) -> list[int]:
    """The exit codes of all ranks."""
    try:
        app([str(argument) for argument in arguments])
    except SystemExit as end:
        return ranks().gather(end.code)
    raise AssertionError("it did not exit")


class StopAfter:
    """Rank 0, and no other, gets a SIGTERM after an update."""

    def __init__(self, phase: str, update: int) -> None:
        self.phase, self.update = phase, update

    def __call__(self, progress) -> None:
        if (progress.phase, progress.done) == (self.phase, self.update):
            os.kill(os.getpid(), signal.SIGTERM)


def working(folder: Path) -> dict[str, object]:
    """Training, extraction and evaluation, on `folder/work` and `folder/clips`."""
    clips = folder / "clips"
    found = {"training": training()}
    found |= {"extract": command_line("extract-flow", clips, "-w", folder / "flow", "--method", "farneback", "--json")}
    train.run(config(folder, "two"))
    try:
        train.run(config(folder, "parts"), StopAfter("train motion", 2))
    except Interrupted as stop:
        found["stopped"] = ranks().gather(stop.exit_code)
    with contextlib.suppress(Interrupted):
        train.run(config(folder, "moved", steps=("motion",)), StopAfter("train motion", 3))
    found["checkpoint"] = (folder / "work/runs/parts/motion/checkpoint.pt").exists()
    torch.manual_seed(5)
    found["dry training"] = ranks().gather(train.run(config(folder, "dry", dry_run=True)).estimate)
    train.run(config(folder, "parts"))
    every = config(folder, "every{split}", split="all", steps=("appearance",), validation=0.0)
    wild = replace(every, name="wild{split}", overrides={"appearance": TINY["appearance"] | {"lr": 1e38}})
    found["every split"] = ranks().gather([train.run_splits(each) for each in (wild, every)])
    protocols = {"crops": 3, "views": ("full", "center"), "fusion_weight": "held-out"}
    test = evaluate.Config(folder / "work", run="two", step="late", device="cpu", **protocols)
    with mock.patch("pipelines.evaluation.unfinished.UnfinishedScores.remove"):
        evaluate.run(test)
    if ranks().is_first:  # as if that had been interrupted
        (left,) = (folder / "work" / "scores").glob("*/*/unfinished.jsonl")
        left.write_text("".join(left.read_text().splitlines(keepends=True)[:3]))
    result = evaluate.run(test)
    dry = evaluate.Config(folder / "work", run="two", step="late", device="cpu", dry_run=True, **protocols)
    found["dry test"] = ranks().gather(evaluate.run(dry).estimate)
    return found | {"evaluated": ranks().gather(result)}


# ------------------------------------------------------------------ looking at many videos

DEADLY = "wave/wave0"
predict_whole, predict_over_time = one_video.predict_whole, one_video.predict_over_time


def check_or_die(task: verify.Task, report: Callable[[int], None]) -> object:
    """A check under which one video's worker process dies."""
    if task.id == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return verify.check_one(task, report)


class Noted:
    """What this rank works on. The first video waits until every rank has one, however slowly some start."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add(self, name: str) -> None:
        if not self.names:
            ranks().gather(None)
        self.names.append(name)

    def tasks(self, function, tasks: Iterable[verify.Task], workers: int, **options) -> Iterator[object]:
        """In place of `run_tasks`."""
        if function is not verify.check_one:
            return run_tasks(function, tasks, workers, **options)

        def noted() -> Iterator[verify.Task]:
            for task in tasks:
                self.add(task.id)
                yield task

        return run_tasks(check_or_die, noted(), workers)

    def predict_whole(self, predictor, source, *others):
        self.add(source.video)
        return predict_whole(predictor, source, *others)

    def predict_over_time(self, predictor, source, *others, **options):
        self.add(source.video)
        return predict_over_time(predictor, source, *others, **options)


def told(*arguments: object) -> dict[str, object]:
    """Of each rank: the exit code, what it wrote, and what it worked on."""
    noted, out, err = Noted(), io.StringIO(), io.StringIO()
    with (
        mock.patch.object(worker_pool, "run_tasks", noted.tasks),
        mock.patch.object(one_video, "predict_whole", noted.predict_whole),
        mock.patch.object(one_video, "predict_over_time", noted.predict_over_time),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        codes = command_line(*arguments)
    said = ranks().gather((out.getvalue(), err.getvalue()))
    return {
        "codes": codes,
        "out": [o for o, _ in said],
        "err": [e for _, e in said],
        "work": ranks().gather(noted.names),
    }


def looking(folder: Path) -> dict[str, object]:
    """The commands that look at many videos and store little, on `folder/work` and `folder/clips`."""
    work = ("-w", folder / "work", "--json")
    videos = ("predict", folder / "clips", *work, "--step", "joint1", "--device", "cpu")
    timeline = (folder / "absent.avi", "--timeline", "--overlay", "--window", "12f", "--crops", 2)
    return {
        "verify": told("verify", *work, "--workers", 1),
        "predict": told(*videos, "--crops", 3),
        "timeline": told(*videos, *timeline),
        "fix": told("verify", "--fix", *work, "--workers", 1),
    }


def healthy(folder: Path) -> dict[str, dict[str, object]]:
    """All that goes well."""
    return {"working": working(folder / "stages"), "looking": looking(folder / "looks")}


def failing() -> None:
    """Rank 1 fails while the other waits for it."""
    with command(False, False, shared=True):
        if not ranks().is_first:
            raise MissingError("rank 1 found no cake")
        ranks().gather(None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    findings = healthy(Path(sys.argv[1]))
    if ranks().is_first:
        (Path(sys.argv[1]) / "healthy.pickle").write_bytes(pickle.dumps(findings))
    ranks().gather(None)  # what is found is stored before anything fails
    failing()
