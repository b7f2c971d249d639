from rich.text import Text

from pipelines import runs as stage
from pipelines import status
from pipelines.interface.options import command_line
from pipelines.interface.wording import percent, printable
from stres_cli.config_options import command
from stres_cli.console import CommandUI
from stres_cli.tables import Table


@command(example="stres runs --json")
def runs(ui: CommandUI, config: stage.Config) -> None:
    """List every run with its scores and the settings in which it differs from the others.

    The newest comes first. Of the runs that were tested on the same videos the most accurate is marked.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    if not result.runs:
        ui.out.say(f"no run yet; next: {command_line(config.workspace, 'train', '--split', '1')}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("run", "split"):
        table.add_column(heading, no_wrap=True, overflow="fold")
    table.add_column("steps", overflow="fold")
    table.add_column("accuracy", justify="right")
    table.add_column("of", overflow="fold")
    for one in result.runs:
        marks = [word for word, marked in (("newest", one.newest), ("best", one.best)) if marked]
        name = Text(printable(one.name), style="bold" if one.best else "")
        table.add_row(
            name.append(f" ({', '.join(marks)})" if marks else "", "green"),
            " ".join(filter(None, [printable(one.split_set), "–" if one.split is None else str(one.split)])),
            Text(printable(_steps(one))),
            *_score(one),
        )
    ui.out.print(table)
    for one in result.runs:
        if settings := ", ".join(f"{what} {value}" for what, value in one.settings.items()):
            ui.out.say(Text.assemble((printable(one.name), "bold"), f": {printable(settings)}"))
    for fault in (fault for one in result.runs for fault in one.faults):
        ui.out.say(fault, "yellow")
    then = status.of_runs(config.workspace, result.runs).next
    ui.out.say(f"runs in {config.workspace / 'runs'}; next: {then}")


def _steps(one: stage.ListedRun) -> str:
    """Of a run, what it finished and what it has not; of scores alone, where they come from."""
    left = f"{', '.join(one.unfinished)} unfinished" if one.unfinished else ""
    if one.training:
        left += f" (in training: {one.training})"
    elif one.diverged:
        left += " (diverged)"
    best = "best weights kept" if one.has_best_weights else ""
    return "; ".join(filter(None, [", ".join(one.finished), left, best, one.origin]))


def _score(one: stage.ListedRun) -> tuple[str, Text]:
    if not one.scores:
        return "–", Text("not tested" if one.finished else "")
    score, *others = one.scores
    notes = [
        score.protocol
        if score.stream in ("fused", score.protocol.split("-")[0])
        else f"{score.stream}, {score.protocol}",
        "mean of classes" if score.unbalanced else "",
        "another data set" if score.other_data else "",
        "older than its weights" if one.scores_are_old else "",
        f"{len(others)} more" if others else "",
    ]
    return f"{percent(score.accuracy)} %", Text(printable("; ".join(filter(None, notes))))
