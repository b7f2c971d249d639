import shlex
from dataclasses import asdict
from typing import Any

from pipelines import evaluate as stage
from pipelines.datasets.class_balance import ClassBalance
from pipelines.errors import MissingError
from pipelines.interface.options import command_line
from pipelines.interface.wording import duration, percent, plural, settings
from pipelines.reporting.result import ACCURACIES
from pipelines.runtime.devices import keep_freed_memory
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import ALL_SPLITS, choose_run, names_splits
from stres_cli.config_options import command
from stres_cli.console import CommandUI, interrupted_text
from stres_cli.estimate_view import show_evaluation
from stres_cli.tables import Table


@command(example="stres evaluate --run split1 --views full,10", shared=True, interrupted=interrupted_text)
def evaluate(ui: CommandUI, config: stage.Config) -> None:
    """Score the test videos of a run's split: appearance, motion and both fused, in one pass."""
    keep_freed_memory()
    if names_splits(Workspace(config.workspace), config.run):
        tested = stage.run_splits(config, ui.on_progress)
        runs = [_document(result) for result in tested.runs]
        incomplete = any(_incomplete(result) for result in tested.runs)
        document = {"runs": runs, "unusable": tested.unusable, "seconds": tested.seconds}
        ui.finish(document, exit_code=MissingError.exit_code if tested.unusable else int(incomplete))
        for result in tested.runs:
            _show(ui, result, "")
        for name, reason in tested.unusable.items():
            ui.out.say(f"run {name} was not tested: {reason}")
        if not config.dry_run:
            named = [] if config.run == ALL_SPLITS else ["--run", shlex.quote(str(config.run))]
            then = command_line(config.workspace, "report", *named, "--splits", "all")
            ui.out.say(f"their mean, next: {then}")
        return
    result = stage.run(config, ui.on_progress)
    ui.finish(_document(result), exit_code=int(_incomplete(result)))
    then = ""
    if result.estimate is None:
        from pipelines.evaluation.headline import headline

        folder = result.folder
        arguments = ["--run", shlex.quote(folder.parent.name)]
        folders = [file.parent for file in folder.parent.glob("*/results.json")]
        if headline(Workspace(config.workspace), folders) not in [each.folder for each in result.evaluations]:
            arguments += ["--protocol", folder.name]
        then = f"; next: {command_line(config.workspace, 'report', *arguments)}"
    _show(ui, result, then)
    if advice := _advice(config, result):
        ui.out.say(advice)


def _advice(config: stage.Config, result: stage.Result) -> str:
    """What to try where fusing the streams loses to one of them, and videos were held out; "" for nothing."""
    results = {} if result.estimate else result.results
    if "fused" not in results or "fusion_weight" in results["protocol"]:
        return ""
    better = max(("appearance", "motion"), key=lambda stream: results[stream]["top1"])
    if results[better]["top1"] <= results["fused"]["top1"]:
        return ""
    run = choose_run(Workspace(config.workspace), config.run, config.step, config.checkpoint).run
    if not (held_out := run.held_out()):
        return ""
    return (
        f"{better} alone is better than both fused with equal weights; --fusion-weight held-out weights the streams by "
        f"the {plural(len(held_out), 'video')} held out of training"
    )


def _incomplete(result: stage.Result) -> bool:
    return bool(result.failed or result.missing_videos or result.left_out)


def _document(result: stage.Result) -> Any:
    """For `--json`."""
    if result.estimate is not None:
        return result
    return {**asdict(result), "folder": result.folder, "results": result.results}


def _show(ui: CommandUI, result: stage.Result, then: str) -> None:
    if result.estimate is not None:
        show_evaluation(ui, result.run, result.estimate)
        _show_lacks(ui, result)
        return
    from pipelines.evaluation.fusion_weight import ChosenWeight

    _show_table(ui, result)
    ui.out.say(ClassBalance(**result.results["balance"]).of_test())
    for evaluation in result.evaluations:
        if "fusion" in evaluation.results:
            which = f"{evaluation.folder.name}: " if len(result.evaluations) > 1 else ""
            ui.out.say(which + ChosenWeight(**evaluation.results["fusion"]).sentence)
    folders = ", ".join(str(evaluation.folder) for evaluation in result.evaluations)
    videos = f"{plural(result.results['videos'], 'video')} in {duration(result.seconds)}"
    ui.out.say(f"{videos}; scores in {folders}{then}")
    _show_lacks(ui, result)


def _show_lacks(ui: CommandUI, result: stage.Result) -> None:
    if result.left_out:
        counted = f"{plural(sum(result.left_out.values()), 'video')} of {plural(len(result.left_out), 'class')}"
        ui.out.say(f"left out: {counted} that the run does not know ({', '.join(result.left_out)})")
    if result.failed or result.missing_videos:
        missing = plural(len(result.missing_videos), "test video is", "test videos are")
        ended = "could not be read: the results are those of the others"
        ui.out.say(f"{missing} missing, {result.failed} {'cannot be read' if result.estimate else ended}")


def _show_table(ui: CommandUI, result: stage.Result) -> None:
    """All protocols below each other, with what they share in the first line and what differs in a line above each."""
    protocols = [evaluation.results["protocol"] for evaluation in result.evaluations]
    shared = {name: value for name, value in protocols[0].items() if all(other[name] == value for other in protocols)}
    where = " on another data set" if result.results.get("dataset") == "other" else ""
    ui.out.say(f"run {result.run}, {result.results['step']}{where}: {settings(shared)}")
    unbalanced, has = result.results["balance"]["unbalanced"], result.results[_streams(result.results)[0]]
    names = [name for name in ACCURACIES if has[name] is not None]
    names.sort(key=lambda name: unbalanced and name != "mean_class_accuracy")
    titles = [ACCURACIES[name] for name in names]
    table = Table("", titles[0], "95 % interval", *titles[1:])
    for evaluation, protocol in zip(result.evaluations, protocols, strict=True):
        own = {name: value for name, value in protocol.items() if name not in shared}
        if own:
            table.add_section()
            table.add_row(settings(own), style="bold")
        for stream in _streams(evaluation.results):
            values = evaluation.results[stream]
            interval = " - ".join(percent(end) for end in values[f"{names[0]}_interval"])
            first, *others = (f"{percent(values[name])} %" for name in names)
            table.add_row(stream, first, f"{interval} %", *others)
    ui.out.print(table)


def _streams(results: dict[str, Any]) -> list[str]:
    return [stream for stream in ("appearance", "motion", "fused") if stream in results]
