"""`stres train`: frames and flow to a trained run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import train as stage
from pipelines.errors import UsageError
from pipelines.runtime.devices import keep_freed_memory
from pipelines.training.recipes import CROP_SCHEMES, RECIPES, STEPS, Step
from pipelines.wording import duration, percent, plural
from stres_cli import options, step_values
from stres_cli.console import CommandUI, command, interrupted_text
from stres_cli.estimate_view import show_training
from stres_cli.tables import Table

_RECIPE = "Recipe (VALUE for all steps, or STEP=VALUE,STEP=VALUE)"
_NETWORK = "Network (where no default stands: the recipe's)"


def _per_step(flag: str, text: str) -> Any:
    """An option that may differ from step to step: VALUE, or STEP=VALUE,STEP=VALUE."""
    return typer.Option(None, flag, help=text, metavar="VALUE", rich_help_panel=_RECIPE)


def _network(text: str, *flags: str, **settings: Any) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel=_NETWORK, **settings)


def _choice(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


_COUNT: dict[str, Any] = {"metavar": "N", "parser": options.number(int, 1)}


def train(
    split: Annotated[int, typer.Option(help="The split to train on.", **_COUNT)] = 1,
    splits: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="UCF101's or HMDB51's official lists; default: three seeded splits of our own."
        ),
    ] = None,
    group_regex: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="What of class/video names the group that stays on one side of a split."),
    ] = None,
    exclude_class: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A class that takes no part in training and test; may be given again."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The run; default: split<N>.")] = None,
    workspace: options.Workspace = options.DEFAULT_WORKSPACE,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="auto (bf16 on a GPU, fp32 on the CPU), fp32, bf16; fp16 on a GPU.")
    ] = "auto",
    compile_network: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            metavar=options.FLAG,
            help="torch.compile the network; default: on a GPU, where a step is long enough for it.",
        ),
    ] = None,
    workers: options.LoaderWorkers = 0,
    checkpoint_every: Annotated[
        float,
        typer.Option(parser=options.number(float, 0), metavar="MINUTES", help="Time between two checkpoints."),
    ] = 5.0,
    sync_bn: Annotated[
        bool | None,
        typer.Option(
            "--sync-bn/--no-sync-bn",
            metavar=options.FLAG,
            help="Under torchrun: processes share each micro-batch and its batch-norm statistics, or deal whole ones; "
            "default: share where a batch has too few.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            metavar=options.FLAG,
            help="Move a run of that name aside and begin anew; make splits of our own again that lack videos.",
        ),
    ] = False,
    dry_run: options.DryRun = False,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{_choice(tuple(RECIPES))} (from scratch, hundreds of clips).",
            rich_help_panel=_RECIPE,
        ),
    ] = "paper",
    steps: Annotated[
        str | None,
        typer.Option(metavar="STEP,STEP", help=f"Some of {', '.join(STEPS)}.", rich_help_panel=_RECIPE),
    ] = None,
    show_recipe: Annotated[
        bool,
        typer.Option(
            "--show-recipe",
            metavar=options.FLAG,
            help="Print every number of the steps and exit.",
            rich_help_panel=_RECIPE,
        ),
    ] = False,
    lr: str | None = _per_step("--lr", "Learning rate of the filters where the schedule is 1."),
    schedule: str | None = _per_step("--schedule", "cosine, or a factor of the rate for each epoch: 1:1:0.1."),
    epochs: str | None = _per_step("--epochs", "Epochs."),
    iterations: str | None = _per_step("--iterations", "Updates in all, instead of epochs."),
    factor: str | None = _per_step("--factor", "Passes over the training videos in one epoch."),
    batch_size: str | None = _per_step("--batch-size", "Videos between two updates."),
    micro_batch: str | None = _per_step("--micro-batch", "Videos through the network at once; gradients add up."),
    frames: str | None = _per_step("--frames", "Frames of a sample."),
    stride: str | None = _per_step("--stride", "Distance in frames between them: N or LOW-HIGH."),
    dropout: str | None = _per_step("--dropout", "Dropout before the classifiers."),
    crops: str | None = _per_step("--crops", f"Augmentation: {', '.join(CROP_SCHEMES)}."),
    mirror: str | None = _per_step("--mirror", "Mirror half of the samples: yes or no."),
    temporal_pool: str | None = _per_step("--temporal-pool", "Maximum over time before the classifiers: SIZE/STRIDE."),
    momentum: str | None = _per_step("--momentum", "Momentum."),
    nesterov: str | None = _per_step("--nesterov", "Nesterov's form of it: yes or no."),
    weight_decay: str | None = _per_step("--weight-decay", "Weight decay of the filters."),
    label_smoothing: str | None = _per_step("--label-smoothing", "Label smoothing."),
    depth: Annotated[int | None, _network("26, 50, 101 or 152.", **_COUNT)] = None,
    width: Annotated[int | None, _network("Channels of the first stage; 64 is the paper's.", **_COUNT)] = None,
    size: Annotated[str | None, _network("Input in pixels.", metavar="N|HxW")] = None,
    weights: Annotated[
        str | None,
        _network(
            "imagenet (torchvision), a file in its format, run:NAME or run:NAME/STEP (another run), or none.",
            metavar="NAME|FILE|run:NAME",
        ),
    ] = None,
    fusion: Annotated[str, _network(f"{_choice(stage.FUSIONS)}.", metavar="NAME")] = "add",
    direction: Annotated[
        str, _network(f"Of the connections: {_choice(stage.DIRECTIONS)}.", metavar="NAME")
    ] = "motion-to-appearance",
    no_temporal_kernels: Annotated[
        bool, _network("No convolutions over time.", "--no-temporal-kernels", metavar=options.FLAG)
    ] = False,
    temporal_init: Annotated[
        str, _network(f"How these begin: {_choice(stage.TEMPORAL_INITS)}.", metavar="NAME")
    ] = "average",
    base_run: Annotated[
        str | None,
        _network("The run whose appearance and motion joint1 starts from; default: this one.", metavar="NAME|DIR"),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train the two-stream network on one split.

    Four steps: appearance and motion alone, both joined (joint1), and with temporal pooling (joint2). The same command
    continues an interrupted run.
    """
    with command(as_json, debug, shared=True, interrupted=interrupted_text(dry_run)) as ui:
        per_step = {
            "lr": lr,
            "schedule": schedule,
            "epochs": epochs,
            "iterations": iterations,
            "factor": factor,
            "batch_size": batch_size,
            "micro_batch": micro_batch,
            "frames": frames,
            "stride": stride,
            "dropout": dropout,
            "crops": crops,
            "mirror": mirror,
            "temporal_pool": temporal_pool,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "label_smoothing": label_smoothing,
        }
        config = stage.Config(
            workspace=workspace,
            split=split,
            name=name,
            recipe=recipe,
            steps=tuple(step.strip() for step in steps.split(",")) if steps else None,
            splits_dir=splits,
            group_regex=group_regex,
            exclude_classes=tuple(exclude_class or ()),
            depth=depth,
            width=width,
            size=_size(size) if size else None,
            weights=weights,
            fusion=fusion,
            direction=direction,
            temporal_kernels=not no_temporal_kernels,
            temporal_init=temporal_init,
            base_run=base_run,
            overrides=step_values.by_step(per_step),
            seed=seed,
            device=device,
            precision=precision,
            compile=compile_network,
            workers=workers,
            checkpoint_every=checkpoint_every,
            sync_bn=sync_bn,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        chosen = [config.step(step) for step in config.selected()]  # wrong numbers show before anything is missed
        if show_recipe:
            _show_recipe(ui, recipe, chosen)
        else:
            _run(ui, config)


def _run(ui: CommandUI, config: stage.Config) -> None:
    keep_freed_memory()
    result = stage.run(config, ui.on_progress)
    ui.finish(result, exit_code=1 if result.failed else 0)
    if result.estimate is not None:
        show_training(ui, result.run, result.estimate)
        return
    table = Table("step", title=f"run {result.run}")
    for heading in ("updates", "time", "training\nloss", "training\naccuracy"):
        table.add_column(heading, justify="right")
    for step in result.steps:
        accuracy = step.metrics.get("fused_accuracy", step.metrics.get(f"{step.step}_accuracy"))
        loss = step.metrics.get("loss")
        table.add_row(
            step.step + (" (done before)" if step.already_done else ""),
            str(step.iterations),
            duration(step.seconds),
            "–" if loss is None else f"{loss:.3f}",
            "–" if accuracy is None else f"{percent(accuracy)} %",
        )
    ui.out.print(table)
    if any("updates" in step.metrics for step in result.steps):
        text = "training loss (mean over frames and streams) and accuracy: of the samples of the last updates, up to 50"
        ui.out.print(text, soft_wrap=True)
    text = f"{plural(result.train_videos, 'training video')}; the run lies in {result.folder}"
    ui.out.print(text, soft_wrap=True)
    if result.failed:
        ui.out.print(
            f"{plural(result.failed, 'video')} could not be used: see failures.csv in the workspace", soft_wrap=True
        )


def _show_recipe(ui: CommandUI, recipe: str, chosen: Sequence[Step]) -> None:
    """Every number of the chosen steps, as the options write it."""
    table = Table(title=f"recipe {recipe}", box=None, padding=(0, 2, 0, 0), title_style="bold")
    table.add_column("", no_wrap=True)
    for step in chosen:
        table.add_column(step.name, overflow="fold")
    for name in step_values.READERS:
        table.add_row(step_values.flag(name), *(step_values.shown(step, name) for step in chosen))
    ui.out.print(table)
    ui.finish({step.name: step for step in chosen})


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise UsageError(f"--size {text!r} cannot be read: give N or HxW, such as 224 or 64x80") from None
