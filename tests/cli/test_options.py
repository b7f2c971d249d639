"""Every option is stated once, at the field of the stage's `Config`: what a command offers is that and nothing else."""

import dataclasses
import functools
import importlib
import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
from typer.testing import CliRunner

from pipelines.errors import UsageError
from pipelines.interface import options
from pipelines.interface.options import Option, fields_of
from pipelines.jobs.task import ExtractResult
from pipelines.sources.videos import ReadAs
from stres_cli import app as application
from stres_cli.app import COMMANDS
from stres_cli.config_options import spelled_out
from stres_cli.extraction_view import _where_and_next


def config_of(command):
    identifier = command.replace("-", "_")
    return getattr(importlib.import_module(f"stres_cli.commands.{identifier}"), identifier).config_type


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_with_help_is_an_option_with_its_help_choices_and_default(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    shown = CliRunner().invoke(application.app, [command, "--help"]).stdout
    lines = [line for line in shown.splitlines() if line[2:].startswith(("-", "*", "  "))]
    for field in fields_of(config_of(command)):
        for flag, _, text in field.option.switches:
            assert any(flag in line.split() and text in line for line in lines)
        if field.option.only_switches:
            continue
        line = next(line for line in lines if field.flag in line.split()[:3])
        assert field.help.removesuffix(".") in line
        assert all(str(choice) in line for choice in field.choices)
        if isinstance(field.default, str | int | float) and not isinstance(field.default, bool):
            assert f"Default: {field.typed(field.default)}." in line


BESIDE_THE_CONFIG = {"as_json", "debug", "show_recipe"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_no_other_options_than_the_fields_of_its_config(command):
    fields = {field.name for field in fields_of(config_of(command))}
    parameters = {parameter.name for parameter in application._load(command).params}
    others = {name for name in parameters if name.rpartition("_")[0] not in fields and name not in fields}
    assert others - {"help"} <= BESIDE_THE_CONFIG


def out_of_range(field):
    """The values next to the range of a field, of the type that is read."""
    option = field.option
    ends = ((option.minimum, -1), (option.maximum, 1), (option.above, 0), (option.below, 0))
    return [field.kind(end + beyond) for end, beyond in ends if math.isfinite(end)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_value_out_of_range_gives_the_same_message_in_python_and_on_the_command_line(command, tmp_path):
    config = config_of(command)
    fields = fields_of(config)
    given, words = {}, []
    for field in fields:
        if field.default is dataclasses.MISSING:
            value = "1" if field.kind is float else str(tmp_path)
            given[field.name] = field.read([value] if field.option.repeated else value)
            words += [value] if field.option.argument else [field.flag, value]
    tried = [(field, value) for field in fields if not field.many for value in out_of_range(field)]
    for field, value in tried:
        typed = f"motion={value}" if field.steps else str(value)
        make, values = functools.partial(config, **given), {field.name: value}
        if field.steps:
            values = {"overrides": {"motion": values}}
        elif field.within:
            make = functools.partial(dataclasses.replace, getattr(config, field.within))
        else:
            make.keywords.pop(field.name, None)
        with pytest.raises(UsageError) as error:
            make(**values)
        shown = CliRunner().invoke(application.app, [command, *words, f"{field.flag}={typed}"])
        where = " for motion" if field.steps else ""
        assert str(error.value) == f"{field.flag} {value}{where}: give {field.wanted}"
        assert (shown.exit_code, shown.stderr) == (2, f"error: {error.value}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_can_be_read(command):
    shown = CliRunner().invoke(application.app, [command, "--help"]).stdout
    assert f"Example: stres {command}" in shown


@dataclasses.dataclass(frozen=True)
class Config:
    workspace: options.WorkspaceFolder = Path("here")
    count: Annotated[int, Option(minimum=1, metavar="N")] = 25
    """How many."""
    share: Annotated[float, Option(minimum=0, below=1)] = 0.5
    """How much of it."""
    kind: Literal["full", "half"] = "full"
    """Which."""
    kinds: tuple[Literal["full", "half"], ...] = ("full",)
    """Which ones."""
    quiet: bool = False
    """Say
    nothing."""
    hidden: int = 3

    def __post_init__(self):
        options.check(self)


def test_help_is_the_string_below_the_field_and_a_field_without_is_no_option():
    assert {field.name: field.help for field in fields_of(Config)} == {
        "workspace": "Folder that holds every stage's artifacts.",
        "count": "How many.",
        "share": "How much of it.",
        "kind": "Which.",
        "kinds": "Which ones.",
        "quiet": "Say nothing.",
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "--count 0: give an integer of at least 1"),
        ({"share": 1.0}, "--share 1.0: give a number of at least 0 and below 1"),
        ({"share": float("nan")}, "--share nan: give a number of at least 0 and below 1"),
        ({"kind": "third"}, "--kind 'third' is not known: give one of full, half"),
        ({"kinds": ("full", "third")}, "--kinds 'third' is not known: give some of full, half"),
        ({"kinds": ("full", "full")}, "--kinds full,full names one of them twice: give each once"),
        ({"kinds": ["full", "third"]}, "--kinds 'third' is not known: give some of full, half"),
        ({"kinds": ()}, "--kinds '' is not known: give some of full, half"),
    ],
)
def test_ranges_and_choices_are_refused_in_the_same_words_everywhere(values, message):
    with pytest.raises(UsageError, match=message):
        Config(**values)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("count", "7", 7), ("share", "0.25", 0.25), ("kind", "half", "half"), ("kinds", "full, half", ("full", "half"))],
)
def test_text_is_read_by_the_fields_type(name, text, value):
    (field,) = (field for field in fields_of(Config) if field.name == name)
    assert field.read(text) == value


def test_the_old_spelling_of_center_is_read_wherever_it_is_a_choice():
    fields = [field for command in COMMANDS for field in fields_of(config_of(command)) if "center" in field.choices]
    assert {field.flag for field in fields} == {"--augmentation", "--temporal-init", "--views"}
    for field in fields:
        assert field.read("centre") == field.read("center")
    with pytest.raises(UsageError, match="--kind 'centre' is not known"):  # no choice there
        Config(kind="centre")


def test_text_that_is_no_number_is_refused_with_what_to_give():
    (field,) = (field for field in fields_of(Config) if field.name == "count")
    with pytest.raises(UsageError, match="--count 'many' cannot be read: give an integer of at least 1"):
        field.read("many")


@pytest.mark.parametrize(
    ("command", "given", "read"),
    [
        ("evaluate", "--mirror yes --views 5", "--mirror yes --views 5"),
        ("evaluate", "--mirror --views 5", "--mirror yes --views 5"),
        ("evaluate", "--no-mirror", "--mirror no"),
        ("evaluate", "--views 5 --mirror", "--views 5 --mirror yes"),
        ("predict", "--mirror clip.avi", "--mirror yes clip.avi"),
        ("predict", "--mirror no clip.avi", "--mirror no clip.avi"),
        ("train", "--mirror motion=no --no-nesterov", "--mirror motion=no --nesterov no"),
        ("train", "--no-mirror --no-compile --split 2", "--mirror no --no-compile --split 2"),
    ],
)
def test_yes_or_no_is_given_in_one_form_and_accepted_in_the_older_ones(command, given, read):
    assert spelled_out(config_of(command), given.split()) == read.split()


def test_both_forms_reach_the_command(stres, tmp_path):
    shown = [stres("evaluate", *form, "--views", 10, "-w", tmp_path) for form in (["--no-mirror"], ["--mirror", "no"])]
    assert all("without mirrors it is --views 5" in one.stderr for one in shown)
    assert "--mirror 'maybe' cannot be read: give yes or no" in stres("evaluate", "--mirror", "maybe").stderr
    assert stres("train", "--show-recipe", "--no-mirror").exit_code == 0


def test_the_next_stage_is_told_to_read_videos_in_the_same_way(tmp_path):
    read_as = ReadAs(label_column="a b", whole_videos=True)
    config = config_of("extract-frames")(videos="l.csv", workspace=tmp_path, read_as=read_as)
    told = _where_and_next(a_result("extract-frames"), config)
    assert f"next: stres extract-flow l.csv --label-column 'a b' --whole-videos --workspace {tmp_path}" in told


def test_the_next_stage_is_told_the_size_of_what_is_stored_and_to_make_again_what_does_not_fit(tmp_path):
    options = {"videos": "v", "workspace": tmp_path, "short_side": 32, "overwrite": True, "allow_damaged": True}
    frames = _where_and_next(a_result("extract-frames"), config_of("extract-frames")(**options))
    assert f"next: stres extract-flow v --short-side 32 --allow-damaged --workspace {tmp_path}" in frames
    (tmp_path / "frames").mkdir()
    config = config_of("extract-flow")(**options)
    assert "next: stres train --split 1 " in _where_and_next(a_result("extract-flow"), config)
    flow = _where_and_next(a_result("extract-flow", misfits=1), config)
    assert "next: stres extract-frames v --short-side 32 --allow-damaged --overwrite " in flow


def test_frames_come_after_imported_flow_where_there_are_none(tmp_path):
    config = config_of("import-flow")(folder=tmp_path, workspace=tmp_path, method="x", bound=5)
    assert "next: stres import-frames DIR " in _where_and_next(a_result("import-flow"), config)
    (tmp_path / "frames").mkdir()
    assert "next: stres train --split 1 " in _where_and_next(a_result("import-flow"), config)


def a_result(stage: str, misfits: int = 0) -> ExtractResult:
    return ExtractResult(stage=stage, skipped=0, failed=0, ignored=0, unit="frames", misfits=misfits)


@pytest.mark.parametrize("command", ["extract-frames", "extract-flow", "extract-features", "predict"])
def test_lists_of_segments_are_offered_only_where_segments_are_stored(command):
    offered = next(field.help for field in fields_of(config_of(command)) if field.name == "videos")
    assert ("path,start,end,label" in offered) is (command in ("extract-frames", "extract-flow"))
