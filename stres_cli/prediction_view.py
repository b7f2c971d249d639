"""How predictions look in a terminal: the best classes of each video, and the videos that failed.

Names come from folders of data, so they are shown as plain text, never as markup, and without control characters.
"""

import os
import shlex
from collections.abc import Sequence

from rich.text import Text

from pipelines.interface.options import EQUAL_WEIGHTS, command_line
from pipelines.interface.wording import duration, percent, plural, printable, setting, settings
from pipelines.predict import Config
from pipelines.prediction.results import Prediction, Result, Truth
from stres_cli.console import CommandUI, PlainConsole
from stres_cli.report_view import STREAM_COLOURS
from stres_cli.tables import Table

TABLES_UP_TO = 10  # videos; with more, each gets one line
_BAR = 20  # letters
_SEGMENTS = 20


def show(ui: CommandUI, result: Result, config: Config) -> None:
    """Prints all predictions, the failures and the rate; exit code 1 if there are failures."""
    ui.finish(result, exit_code=1 if result.failures else 0)
    _predictions(ui.out, result.predictions)
    for failure in result.failures:
        ui.out.say(f"failed: {failure.path}: {failure.reason}", "yellow")
    ui.out.say(f"run {result.run}, {result.step}: {settings(result.protocol)}", "dim")
    number = len(result.predictions)
    ui.out.say(
        f"{plural(number, 'video')} ({duration(result.video_seconds)} long) in {duration(result.seconds)}: "
        f"{result.video_seconds_per_second:.2g} s of video per second{_where_and_next(config, result.predictions)}"
    )
    if result.truth is not None:
        ui.out.say(_accuracy(result.truth))


def _where_and_next(config: Config, predictions: Sequence[Prediction]) -> str:
    """Where the CSV lies, and the command that shows more of the same videos, or trains on what was seen in them; none
    where none could be predicted."""
    where = "" if config.csv is None else f"; written: {config.csv}"
    if not predictions:
        return where
    from pipelines.prediction.timeline_files import SEGMENTS

    timelines = [one.timeline for one in predictions if one.timeline is not None]
    if lists := [one.files[SEGMENTS] for one in timelines if one.segments]:
        then = command_line(config.workspace, "extract-frames", shlex.quote(str(lists[0])))
        return f"{where}; next, once its segments are corrected, to train on them: {then}"
    words = [*config.videos] if len(config.videos) == 1 else ["VIDEOS"]
    words += ["--run", config.run] if config.run else []
    words += ["--network", config.step] if config.step else []
    words += ["--checkpoint", config.checkpoint] if config.checkpoint != "last" else []
    words += ["--fusion-weight", setting(config.fusion_weight)] if config.fusion_weight != EQUAL_WEIGHTS else []
    then = command_line(config.workspace, "predict", *map(shlex.quote, words), "--timeline")
    return f"{where}; next: {then}"


def _accuracy(truth: Truth) -> str:
    low, high = map(percent, truth.accuracy_interval)
    text = f"correct: {truth.right} of {plural(truth.labelled, 'labelled video')}, {percent(truth.accuracy)} %"
    text += f" (95 % interval {low} - {high} %)"
    if truth.trained_on:
        named = plural(truth.trained_on, "of them has the name of a video", "of them have names of videos")
        text += f"; {named} that the run was trained on, where being right proves little"
    if not truth.unknown:
        return text
    others = ", ".join(f"{name} ({number})" for name, number in truth.unknown.items())
    return f"{text}; not counted, since the run does not know their classes: {others}"


def show_partly(ui: CommandUI, predictions: Sequence[Prediction]) -> None:
    """Prints the predictions made before the command was stopped."""
    ui.close()
    if not ui.as_json:
        _predictions(ui.out, predictions)


def _predictions(console: PlainConsole, predictions: Sequence[Prediction]) -> None:
    names = _names(predictions)
    for name, prediction in zip(names, predictions, strict=True):
        if len(predictions) > TABLES_UP_TO:
            best = ", ".join(f"{item.class_name} {percent(item.probability)} %" for item in prediction.top)
            line = (
                Text(printable(name), style="bold")
                .append(f"  {printable(best)}", "not bold")
                .append(_truth(prediction))
            )
            console.say(line.append(f"  {prediction.warning}" if prediction.warning else "", "yellow"))
            continue
        about = f"  {plural(prediction.frames, 'frame')}, {duration(prediction.seconds)}"
        heading = Text(printable(name), style="bold").append(about, style="not bold dim").append(_truth(prediction))
        console.say(heading)
        if prediction.warning:
            console.say(f"  {prediction.warning}", "yellow")
        console.print(_table(prediction))
        if prediction.timeline is not None:
            _print_timeline(console, prediction)


def _truth(prediction: Prediction) -> Text:
    """The class that the video was given under, if the run knows it."""
    if prediction.right is None:
        return Text()
    told = f"  {printable(str(prediction.class_name))}: {'correct' if prediction.right else 'wrong'}"
    return Text(told, style="not bold green" if prediction.right else "not bold red")


def _names(predictions: Sequence[Prediction]) -> list[str]:
    """File names, with as much of their folders as it takes to tell them apart."""
    paths = [prediction.video for prediction in predictions]
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) == len(names) or len(paths) < 2:
        return names
    common = os.path.commonpath(paths)
    return [os.path.relpath(path, common) for path in paths]


def _table(prediction: Prediction) -> Table:
    """The best classes; with two streams, also the probabilities of each alone."""
    streams = list(prediction.probabilities)
    headline = prediction.probabilities[streams[-1]]
    order = sorted(range(len(headline)), key=lambda index: -headline[index])[: len(prediction.top)]
    table = Table(box=None, padding=(0, 2, 0, 2), pad_edge=True, show_header=len(streams) > 1)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    table.add_numbers(streams[-1] if len(streams) > 1 else "")
    table.add_column("")  # a bar
    table.add_numbers(*(Text(stream, style=STREAM_COLOURS[stream]) for stream in streams[:-1]))
    for place, (index, best) in enumerate(zip(order, prediction.top, strict=True)):
        bar = Text("━" * round(_BAR * best.probability), style=STREAM_COLOURS[streams[-1]])
        alone = (_share(prediction.probabilities[stream][index]) for stream in streams[:-1])
        name = Text(printable(best.class_name))
        table.add_row(name, _share(best.probability), bar, *alone, style="bold" if place == 0 else "")
    return table


def _print_timeline(console: PlainConsole, prediction: Prediction) -> None:
    timeline = prediction.timeline
    assert timeline is not None
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for segment in timeline.segments[:_SEGMENTS]:
        times = f"{_clock(segment.start)} - {_clock(segment.end)}"
        table.add_row(times, Text(printable(segment.class_name)), _share(segment.probability))
    console.print(f"  over time, {plural(timeline.windows, 'window')} of {timeline.window}:")
    console.print(table if timeline.segments else "    no window reaches the --threshold")
    if len(timeline.segments) > _SEGMENTS:
        console.print(f"  ... and {len(timeline.segments) - _SEGMENTS} more, in the files")
    if timeline.files:
        first, *others = timeline.files.items()
        kinds = "".join(f", .{kind}" for kind, _ in others)
        console.say(f"  written: {first[1]}{kinds}")


def _share(value: float) -> str:
    return f"{percent(value)} %"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
