"""Augmentations and regularisations that `train` does not have, tried on groups held out of the training.

    python benchmarks/trials.py [--data DIR] [--only NAME,NAME] [--sets fight-surv,weizmann] [--seeds 0] [--folds 1,2]
    python benchmarks/trials.py table

The data, folds, recipe and held-out groups are those of `pretrained.py settings`, and so is the way of continuing:
each cell (a trial on a set, fold and seed) appends a line to `--results`. What a trial changes of the training is in
`TRIALS`, and where it is more than a setting, in `Trainer`. docs/pretrained.md says what came of it.
"""

import argparse
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from cells import BASE, SEEDS, STREAMS, Line, append, counts, merged, options, read, text_of, today
from pretrained import FIGHT, TRAINING, WEIZMANN, held_out_lists, hits, imported, prepare
from torch import Tensor

from pipelines import evaluate, train
from pipelines.analysis.comparison import mcnemar
from pipelines.datasets.samples import Batch
from pipelines.models import StreamLogits
from pipelines.runtime.devices import resolve_device
from pipelines.training import loop, optimiser, session
from pipelines.training.recipes import StepName

SETS = {"fight-surv": FIGHT, "weizmann": WEIZMANN}
RECIPE = {key: value for key, value in TRAINING.items() if key != "overrides"}


@dataclass(frozen=True)
class Trial:
    """One row of the table."""

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the step."""
    augment: Callable[["Trainer", Tensor], Tensor] | None = None
    """Changes the step's input [B, T, C, h, w], normalised."""
    average: float = 0.0
    """What a moving average of the weights keeps of itself in each update; it is what is tested."""
    warm_up: float = optimiser.WARM_UP
    early_rate: float = 1.0
    """Factor of the learning rate of conv1 to conv3_x."""


def cutmix(trainer: "Trainer", x: Tensor) -> Tensor:
    """Puts a rectangle of another video of the batch into each (Yun et al. 2019), the same in all frames."""
    rng, (height, width) = trainer.rng(), x.shape[-2:]
    share = rng.uniform()
    h, w = (int(side * np.sqrt(1 - share)) for side in (height, width))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    other = torch.from_numpy(rng.permutation(len(x)))
    mixed = x.clone()
    mixed[..., top : top + h, left : left + w] = x[other, ..., top : top + h, left : left + w]
    trainer.mixed = other, 1 - h * w / (height * width)
    return mixed


def reverse(trainer: "Trainer", x: Tensor) -> Tensor:
    """Runs half of the videos backwards: the stacks' fields in the other order and of the other sign."""
    fields = x.unflatten(2, (-1, 2))
    backwards = -fields.flip(1, 2).flatten(2, 3)
    chosen = torch.from_numpy(trainer.rng().random(len(x)) < 0.5).view(-1, 1, 1, 1, 1)
    return torch.where(chosen, backwards, x)


def blank(trainer: "Trainer", x: Tensor) -> Tensor:
    """Shows half of the videos' frames as even grey, so that appearance has to listen to motion (Neverova et al. 2015);
    flow stays."""
    if x.shape[2] != 3:
        return x
    return x * torch.from_numpy(trainer.rng().random(len(x)) < 0.5).view(-1, 1, 1, 1, 1)


def noise(trainer: "Trainer", x: Tensor) -> Tensor:
    """Adds Gaussian noise to the flow, of a deviation drawn evenly up to a quarter of a pixel for each video."""
    rng = trainer.rng()
    one_pixel = 127 / 10 / 57.6  # normalised, at a bound of 10 pixels
    deviation = torch.from_numpy(rng.uniform(0, one_pixel / 4, (len(x), 1, 1, 1, 1))).to(x.dtype)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return x + deviation * torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x.dtype)


def subsample(trainer: "Trainer", x: Tensor) -> Tensor:
    """Of two stacks that follow each other, half of the time every second field, otherwise the first stack."""
    both = x.unflatten(2, (-1, 2)).flatten(1, 2)
    fields = both.shape[1] // 2
    chosen = torch.from_numpy(trainer.rng().random(len(x)) < 0.5).view(-1, 1, 1, 1, 1)
    return torch.where(chosen, both[:, ::2], both[:, :fields]).flatten(1, 2).unsqueeze(1)


TRIALS: dict[StepName, dict[str, Trial]] = {
    "appearance": {
        "recipe": Trial("the recipe"),
        "cutmix": Trial("cutmix", augment=cutmix),
        "average": Trial("averaged weights", average=0.95),
        "dropout-0": Trial("no dropout", {"dropout": 0.0}),
        "dropout-0.8": Trial("dropout 0.8", {"dropout": 0.8}),
        "smoothing-0": Trial("no label smoothing", {"label_smoothing": 0.0}),
        "early-rate": Trial("a tenth of the rate up to conv3_x", early_rate=0.1),
        "warm-up": Trial("a quarter of the updates to warm up", warm_up=0.25),
    },
    "motion": {
        "recipe": Trial("the recipe"),
        "cutmix": Trial("cutmix", augment=cutmix),
        "reverse": Trial("half of the videos backwards", augment=reverse),
        "noise": Trial("noise on the flow", augment=noise),
        "subsample": Trial("every second field, half of the time", {"frames": 2, "stride": (10, 10)}, subsample),
        "average": Trial("averaged weights", average=0.95),
        "dropout-0": Trial("no dropout", {"dropout": 0.0}),
        "dropout-0.8": Trial("dropout 0.8", {"dropout": 0.8}),
        "smoothing-0": Trial("no label smoothing", {"label_smoothing": 0.0}),
        "freeze": Trial("conv1 to conv3_x frozen", {"freeze": 3}),
        "early-rate": Trial("a tenth of the rate up to conv3_x", early_rate=0.1),
    },
    "joint1": {
        "recipe": Trial("the recipe"),
        "blank": Trial("half of the videos without frames", augment=blank),
        "average": Trial("averaged weights", average=0.95),
        "warm-up": Trial("a quarter of the updates to warm up", warm_up=0.25),
        "early-rate": Trial("a tenth of the rate up to conv3_x, none frozen", {"freeze": 0}, early_rate=0.1),
    },
}


class Trainer(loop.StepTrainer):
    """A `StepTrainer` that does what `trial` says besides."""

    trial: Trial  # of the class that `compute` makes
    mixed: tuple[Tensor, float] | None = None
    """Which video is mixed into each of the micro-batch, and the share that stays of its own."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.augmented = 0
        self.averages: dict[str, Tensor] = {}
        if self.trial.early_rate != 1:
            self._divide_rates()
        if self.trial.average:
            self.averages = {key: value.clone() for key, value in self._floats().items()}
            self.optimiser.register_step_post_hook(lambda *_: self._average())

    def rng(self) -> np.random.Generator:
        """Of its own for every micro-batch."""
        self.augmented += 1
        return np.random.default_rng((self.seed, self.augmented))

    def fit(self, *arguments: Any, **named: Any) -> None:
        with (
            mock.patch.object(optimiser, "WARM_UP", self.trial.warm_up),
            mock.patch.object(loop, "video_loss", self._loss),
        ):
            super().fit(*arguments, **named)
        with torch.no_grad():
            for key, value in self.averages.items():
                self._floats()[key].copy_(value)

    def _forward(self, network: Any, micro_batch: Any) -> tuple[Batch, StreamLogits, dict[str, Tensor]]:
        if self.trial.augment is None:
            return super()._forward(network, micro_batch)

        def augmented(*inputs: Tensor | None) -> Any:
            return network(*(x if x is None else self.trial.augment(self, x) for x in inputs))

        return super()._forward(augmented, micro_batch)

    def _loss(self, logits: StreamLogits, labels: Tensor, *settings: Any) -> Tensor:
        loss = VIDEO_LOSS(logits, labels, *settings)
        if self.mixed is None:
            return loss
        other, share = self.mixed
        return share * loss + (1 - share) * VIDEO_LOSS(logits, labels[other], *settings)

    def _floats(self) -> dict[str, Tensor]:
        return {key: value for key, value in self.model.state_dict().items() if value.is_floating_point()}

    @torch.no_grad()
    def _average(self) -> None:
        for key, value in self._floats().items():
            self.averages[key].lerp_(value, 1 - self.trial.average)

    def _divide_rates(self) -> None:
        """Gives the early layers a rate of their own."""
        early = {
            id(parameter)
            for stream in self.model.streams.values()
            for part in itertools.chain((stream.conv1, stream.bn1), *stream.stages[:2])
            for parameter in part.parameters()
        }
        for group in [*self.optimiser.param_groups]:
            first = [parameter for parameter in group["params"] if id(parameter) in early]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in early]
            settings = {**group, "params": first, "rate": group["rate"] * self.trial.early_rate}
            self.optimiser.add_param_group(settings)


VIDEO_LOSS = loop.video_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="default: %(default)s")
    parser.add_argument("--only", type=lambda text: text.split(","), help="such as motion/noise; default: all")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=[*SETS], help="default: both")
    options(parser, "trials")
    arguments = parser.parse_args()
    if arguments.what == "table":
        table(arguments.results)
        return
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes
    names = arguments.only or [f"{step}/{name}" for step, trials in TRIALS.items() for name in trials]
    for seed, name, set_, fold in itertools.product(
        arguments.seeds, names, arguments.sets, arguments.folds or (1, 2, 3)
    ):
        if time.monotonic() > end:
            return
        compute(set_, name, fold, seed, arguments)


def compute(set_: str, name: str, fold: int, seed: int, arguments: argparse.Namespace) -> None:
    """Trains and tests one cell, unless `--results` holds it."""
    step, trial = trial_of(name)
    cell = {"data": set_, "trial": name, "fold": fold, "seed": seed, "recipe": digest(name)}
    cell["unit"] = unit_of(arguments.device)
    if any(cell.items() <= line.items() for line in read(arguments.results)):
        return
    workspace, splits = prepare(SETS[set_], arguments), held_out_lists(SETS[set_], arguments)
    shared: dict[str, Any] = {"workspace": workspace.root, "device": arguments.device}
    weights = imported(arguments)[RECIPE["weights"]]
    training = RECIPE | shared | {"weights": weights, "splits": splits, "split": fold, "seed": seed}
    started, base = time.monotonic(), f"trial-{seed}-{fold}"
    run = f"{base}-{name.replace('/', '-')}"
    if step == "joint1":
        train.run(train.Config(**training, name=base, steps=("appearance", "motion")))
        training["base_run"] = base
    overrides = {"overrides": {step: trial.settings}}
    with mock.patch.object(session, "StepTrainer", type("Trying", (Trainer,), {"trial": trial})):
        train.run(train.Config(**merged(training, overrides), name=run, steps=(step,)))
    settings = evaluate.Config(**shared, run=run, step=step, precision=RECIPE["precision"])
    tested = evaluate.run(settings).evaluations[0].folder
    seconds = round(time.monotonic() - started)
    line = cell | counts(tested) | hits(tested) | {"seconds": seconds, "when": today()}
    append(arguments.results, line)
    print(line, flush=True)


def digest(name: str) -> str:
    """Short hash of the steps that a trial trains: a changed recipe makes old lines count no more."""
    step, trial = trial_of(name)
    config = train.Config(Path(), **merged(RECIPE, {"overrides": {step: trial.settings}}))
    names = (*BASE, step) if step == "joint1" else (step,)
    return hashlib.sha256(" ".join(text_of(config.step(one)) for one in names).encode()).hexdigest()[:8]


def unit_of(device: str) -> str:
    """What the computing is done by, as far as it rounds in its own way, which makes another network of a seed."""
    if resolve_device(device).type == "cuda":
        return torch.cuda.get_device_name(resolve_device(device))
    flags = Path("/proc/cpuinfo").read_text().split()
    return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), "without bf16")


def trial_of(name: str) -> tuple[StepName, Trial]:
    step, _, trial = name.partition("/")
    return step, TRIALS[step][trial]


# ------------------------------------------------------------------ the table


def table(path: Path) -> None:
    """Prints what each trial has right of the videos held out, beside the recipe on the same unit, and McNemar's
    test."""
    lines = read(path)
    units = sorted({line["unit"] for line in lines})
    print("| step | trial | data | seed | unit | videos | right | by fold | recipe | only trial | only recipe | p |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for step, trials in TRIALS.items():
        stream = "fused" if step == "joint1" else step
        for (name, trial), set_, seed, unit in itertools.product(trials.items(), SETS, SEEDS, units):
            tried, recipe = (found(lines, set_, f"{step}/{one}", seed, unit) for one in (name, "recipe"))
            if not tried:
                continue
            both = sorted(tried.keys() & recipe.keys())
            pairs = [*zip(*("".join(of[fold]["hits"][stream] for fold in both) for of in (tried, recipe)), strict=True)]
            only = pairs.count(("1", "0")), pairs.count(("0", "1"))
            folds = [tried[fold]["right"] for fold in sorted(tried)]
            streams = STREAMS if step == "joint1" else (step,)
            right = ", ".join(str(sum(fold[one] for fold in folds)) for one in streams)
            by_fold = "; ".join(", ".join(str(fold[one]) for one in streams) for fold in folds)
            videos = sum(line["videos"] for line in tried.values())
            beside = sum(recipe[fold]["right"][stream] for fold in both)
            numbers = f"{beside} | {only[0]} | {only[1]} | {mcnemar(*only):.3f}"
            print(f"| {step} | {trial.title} | {set_} | {seed} | {unit} | {videos} | {right} | {by_fold} | {numbers} |")


def found(lines: Sequence[Line], set_: str, name: str, seed: int, unit: str) -> dict[int, Line]:
    """A trial's lines, by fold."""
    wanted = {"data": set_, "trial": name, "seed": seed, "recipe": digest(name), "unit": unit}
    return {line["fold"]: line for line in lines if wanted.items() <= line.items()}


if __name__ == "__main__":
    main()
