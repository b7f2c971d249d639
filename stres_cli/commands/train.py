"""`stres train`: frames and flow to a trained run."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pipelines import train as stage
from pipelines.errors import UsageError
from pipelines.training.recipes import CROP_SCHEMES, RECIPES, STEPS
from stres_cli import options
from stres_cli.console import CommandUI, command

_RECIPE = "Recipe (a value for all steps, or STEP=VALUE,STEP=VALUE)"
_NETWORK = "Network"


def _per_step(flag: str, text: str) -> Any:
    """An option that may differ from step to step: VALUE, or STEP=VALUE,STEP=VALUE."""
    return typer.Option(None, flag, help=text, metavar="VALUE", rich_help_panel=_RECIPE)


def train(
    split: Annotated[int, typer.Option(min=1, help="Number of the split to train on.")] = 1,
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    name: Annotated[str | None, typer.Option(help="Name of the run; default split<N>.")] = None,
    splits: Annotated[
        Path | None,
        typer.Option(help="Folder with UCF101's or HMDB51's official lists; default: three seeded splits of our own."),
    ] = None,
    group_regex: Annotated[
        str | None, typer.Option(help="What of class/video names the group that must stay on one side of a split.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(help=f"{' or '.join(RECIPES)} (from scratch, hundreds of clips).", rich_help_panel=_RECIPE),
    ] = "paper",
    steps: Annotated[
        str | None, typer.Option(help=f"Some of {', '.join(STEPS)}, comma-separated.", rich_help_panel=_RECIPE)
    ] = None,
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print the resolved steps and exit.", rich_help_panel=_RECIPE)
    ] = False,
    lr: str | None = _per_step("--lr", "Learning rate of the filters at the schedule's 1.0"),
    schedule: str | None = _per_step("--schedule", "cosine, or factors of the rate by epoch such as 1:1:0.1"),
    epochs: str | None = _per_step("--epochs", "Epochs"),
    iterations: str | None = _per_step("--iterations", "Updates in all, instead of epochs"),
    factor: str | None = _per_step("--factor", "Passes over the training videos in one epoch"),
    batch_size: str | None = _per_step("--batch-size", "Videos between two updates"),
    micro_batch: str | None = _per_step("--micro-batch", "Videos through the network at once; gradients accumulate"),
    frames: str | None = _per_step("--frames", "Frames T of a sample"),
    stride: str | None = _per_step("--stride", "Distance in frames between them, LOW-HIGH"),
    dropout: str | None = _per_step("--dropout", "Dropout before the classifiers"),
    crops: str | None = _per_step("--crops", f"Augmentation: {', '.join(CROP_SCHEMES)}"),
    mirror: str | None = _per_step("--mirror", "Mirror half of the samples: yes or no"),
    weight_decay: str | None = _per_step("--weight-decay", "Weight decay of the filters"),
    label_smoothing: str | None = _per_step("--label-smoothing", "Label smoothing"),
    depth: Annotated[int | None, typer.Option(help="26, 50, 101 or 152.", rich_help_panel=_NETWORK)] = None,
    width: Annotated[
        int | None, typer.Option(help="Channels of the first stage; 64 is the paper's.", rich_help_panel=_NETWORK)
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Input of the network in pixels, N or HxW.", rich_help_panel=_NETWORK)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="imagenet (torchvision), a file in its format, or none.", rich_help_panel=_NETWORK),
    ] = None,
    fusion: Annotated[str, typer.Option(help=", ".join(stage.FUSIONS), rich_help_panel=_NETWORK)] = "add",
    direction: Annotated[
        str, typer.Option(help=", ".join(stage.DIRECTIONS), rich_help_panel=_NETWORK)
    ] = "motion-to-appearance",
    temporal_kernels: Annotated[
        bool, typer.Option(help="Convolutions over time in block b of each stage.", rich_help_panel=_NETWORK)
    ] = True,
    temporal_init: Annotated[
        str, typer.Option(help=", ".join(stage.TEMPORAL_INITS), rich_help_panel=_NETWORK)
    ] = "average",
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: Annotated[str, typer.Option(help="auto (bf16 on a GPU, fp32 on the CPU), fp32, bf16, fp16.")] = "auto",
    workers: Annotated[
        int, typer.Option(min=0, help="Loader processes; 0: one a core beside a GPU, none on the CPU.")
    ] = 0,
    checkpoint_every: Annotated[float, typer.Option(min=0, help="Minutes between two checkpoints.")] = 5.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Move a run of that name aside and begin anew.")
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train the two-stream network on one split.

    Four steps: appearance and motion alone, both joined (joint1), and with temporal pooling (joint2). The same command
    continues an interrupted run.
    """
    with command(as_json, debug) as ui:
        changes = {
            "lr": _parsed("--lr", lr, float),
            "schedule": _parsed("--schedule", schedule, _schedule),
            "epochs": _parsed("--epochs", epochs, int),
            "iterations": _parsed("--iterations", iterations, int),
            "factor": _parsed("--factor", factor, int),
            "batch_size": _parsed("--batch-size", batch_size, int),
            "micro_batch": _parsed("--micro-batch", micro_batch, int),
            "frames": _parsed("--frames", frames, int),
            "stride": _parsed("--stride", stride, _range),
            "dropout": _parsed("--dropout", dropout, float),
            "crops": _parsed("--crops", crops, str),
            "mirror": _parsed("--mirror", mirror, _yes_or_no),
            "weight_decay": _parsed("--weight-decay", weight_decay, float),
            "label_smoothing": _parsed("--label-smoothing", label_smoothing, float),
        }
        config = stage.Config(
            workspace=workspace,
            split=split,
            name=name,
            recipe=recipe,
            steps=tuple(step.strip() for step in steps.split(",")) if steps else None,
            splits_dir=splits,
            group_regex=group_regex,
            depth=depth,
            width=width,
            size=_size(size) if size else None,
            weights=weights,
            fusion=fusion,
            direction=direction,
            temporal_kernels=temporal_kernels,
            temporal_init=temporal_init,
            overrides=_by_step(changes),
            seed=seed,
            device=device,
            precision=precision,
            workers=workers,
            checkpoint_every=checkpoint_every,
            overwrite=overwrite,
        )
        if show_recipe:
            _show_recipe(ui, config)
        else:
            _run(ui, config)


def _run(ui: CommandUI, config: stage.Config) -> None:
    result = stage.run(config, ui.on_progress)
    ui.finish(result, exit_code=1 if result.failed else 0)
    table = Table("step", "updates", "minutes", "training loss", "accuracy", title=f"run {result.run}")
    for step in result.steps:
        accuracy = step.metrics.get("fused_accuracy", step.metrics.get(f"{step.step}_accuracy", float("nan")))
        note = " (done before)" if step.already_done else ""
        cells = [f"{step.seconds / 60:.1f}", f"{step.metrics.get('loss', float('nan')):.3f}", f"{100 * accuracy:.1f} %"]
        table.add_row(step.step + note, str(step.iterations), *cells)
    ui.out.print(table)
    ui.out.print(f"{result.train_videos} training videos; the run lies in {result.folder}", soft_wrap=True)
    if result.failed:
        ui.out.print(f"{result.failed} videos could not be used: see failures.csv in the workspace", soft_wrap=True)


def _show_recipe(ui: CommandUI, config: stage.Config) -> None:
    chosen = [config.step(name) for name in config.selected()]
    table = Table("", *(step.name for step in chosen), title=f"recipe {config.recipe}")
    for field in dataclasses.fields(chosen[0])[1:]:
        table.add_row(field.name, *(str(getattr(step, field.name)) for step in chosen))
    ui.out.print(table)
    ui.finish({step.name: step for step in chosen})


# ------------------------------------------------------------------ reading values


def _parsed(flag: str, text: str | None, read: Callable[[str], Any]) -> dict[str, Any]:
    """`VALUE` or `STEP=VALUE,STEP=VALUE` as values by step."""
    if text is None:
        return {}
    if "=" not in text:
        return dict.fromkeys(STEPS, _read(flag, text, read))
    values = {}
    for part in text.split(","):
        step, _, value = part.partition("=")
        if step.strip() not in STEPS:
            raise UsageError(f"{flag} {text!r}: {step.strip()!r} is not a step; the steps are {', '.join(STEPS)}")
        values[step.strip()] = _read(flag, value.strip(), read)
    return values


def _read(flag: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"{flag} {text!r} cannot be read: {error}") from None


def _by_step(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, values in changes.items():
        for step, value in values.items():
            found.setdefault(step, {})[name] = value
    return found


def _schedule(text: str) -> Any:
    return "cosine" if text == "cosine" else tuple(float(part) for part in text.split(":"))


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("give yes or no")
    return text == "yes"


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise UsageError(f"--size {text!r} cannot be read: give N or HxW, such as 224 or 64x80") from None
