import shlex

from pipelines.importing import scores as stage
from pipelines.interface.options import command_line
from pipelines.interface.wording import percent, plural, some
from stres_cli import NOTHING_WRITTEN_IN_PART
from stres_cli.config_options import command
from stres_cli.console import CommandUI


@command(
    example="stres import-scores --name tsn --appearance rgb.npz --motion flow.npz --splits ucfTrainTestlist/",
    interrupted=NOTHING_WRITTEN_IN_PART,
)
def import_scores(ui: CommandUI, config: stage.Config) -> None:
    """Import the scores of another program as those of a run, for reports, comparisons and fusion.

    A file has a row per video and a number per class, before softmax or after it: CSV (id, maybe the label, numbers),
    npz or HDF5 (videos or names, scores, labels, classes), or npy with --list. Neither frames nor flow are needed.
    Videos are matched by name; where their classes are not in the files, split lists give them.
    """
    result = stage.run(config, ui.on_progress)
    ui.finish(result)
    checked = f"of {result.checked_against}" if result.checked_against else "as the files say (no split lists)"
    ui.out.say(f"{plural(result.videos, 'video')} of {plural(result.classes, 'class')}, split {result.split} {checked}")
    for stream, top1 in result.top1.items():
        source = f"{result.holds[stream]} in {config.places[stream]}" if stream in result.holds else "both averaged"
        ui.out.say(f"{stream}: top-1 {percent(top1)} % ({source})")
    if result.missing:
        ui.out.say(f"{plural(len(result.missing), 'test video')} without scores: {some(result.missing)}", "yellow")
    for reason, names in result.ignored.items():
        ui.out.say(f"{plural(len(names), 'row')} ignored, of videos {reason}: {some(names)}", "yellow")
    if result.constant:
        ui.out.say(f"the same score for every class: {some(result.constant)}", "yellow")
    then = command_line(config.workspace, "report", "--run", shlex.quote(result.name))
    ui.out.say("nothing was written (--dry-run)" if config.dry_run else f"scores in {result.folder}; next: {then}")
