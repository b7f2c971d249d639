"""`stres predict` as it is typed: what is printed, the document, and how it ends."""

import json
import os
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import predict
from pipelines.video.isolation import Decoder
from stres_cli.app import app

DOCS = Path(__file__).parents[2] / "docs" / "predict.md"


@pytest.fixture
def stres(own_trained_on_videos, monkeypatch):
    for name in ("STRES_WORKSPACE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        given = [*arguments, "-w", own_trained_on_videos.workspace.root, "--step", "joint1", "--device", "cpu"]
        return CliRunner().invoke(app, ["predict", *map(str, given)], prog_name="stres")

    return call


def test_each_video_has_its_best_classes_with_those_of_each_stream(stres, trained_on_videos):
    clips = [trained_on_videos.video("jump/jump2"), trained_on_videos.video("wave/wave2")]
    shown = stres(*clips, "--crops", 3, "--fusion-weight", 0.3)

    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0] == "jump2.mkv  24 frames, 1 s"
    assert lines[1].split() == ["fused", "appearance", "motion"]
    assert {lines[2].split()[0], lines[3].split()[0]} == {"jump", "wave"}
    assert lines[2].count("%") == 3
    assert lines[-2] == "run split1, joint1: frames 3, views full, mirror yes, temporal sequence, fusion_weight 0.3"
    assert lines[-1].startswith("2 videos (1.9 s long) in ")
    assert (
        " s of video per second; next: stres predict VIDEOS --network joint1 --fusion-weight 0.3 --timeline"
        in lines[-1]
    )


def test_many_videos_get_a_line_each(stres, trained_on_videos, monkeypatch):
    monkeypatch.setattr("stres_cli.prediction_view.TABLES_UP_TO", 1)
    shown = stres(trained_on_videos.videos, "--crops", 1)
    lines = [line for line in shown.stdout.splitlines() if ".mkv  " in line]
    assert [line.split()[0] for line in lines] == [f"{name}{k}.mkv" for name in ("jump", "wave") for k in range(3)]
    assert all(line.count("%") == 2 for line in lines)


def test_the_document_holds_everything(stres, trained_on_videos):
    shown = stres(trained_on_videos.video("jump/jump2"), "--crops", 3, "--json")
    document = json.loads(shown.stdout)
    assert document["classes"] == ["jump", "wave"]
    assert document["protocol"] == {"frames": 3, "views": "full", "mirror": True, "temporal": "sequence"}
    (prediction,) = document["predictions"]
    assert set(prediction["probabilities"]) == set(prediction["logits"]) == {"appearance", "motion", "fused"}
    assert prediction["top"][0]["probability"] == max(prediction["probabilities"]["fused"])
    assert document["video_seconds_per_second"] > 0


def test_a_timeline_is_summed_up_and_its_files_are_named(stres, trained_on_videos, tmp_path):
    shown = stres(trained_on_videos.video("jump/jump2"), "--timeline", "--window", "12f", "--output", tmp_path)
    assert shown.exit_code == 0, shown.stderr
    assert "over time, 3 windows of 12 frames:" in shown.stdout
    assert "0:00.0 - " in shown.stdout
    assert f"  written: {tmp_path / 'jump2'}.csv, .json, .png, .segments.csv, .srt\n" in shown.stdout
    for kind in ("csv", "json", "png", "segments.csv", "srt"):
        assert (tmp_path / f"jump2.{kind}").stat().st_size > 30


def test_a_bad_video_costs_itself_and_the_exit_code(stres, trained_on_videos, tmp_path):
    bad = tmp_path / "bad.mkv"
    bad.write_text("no video")
    shown = stres(bad, trained_on_videos.video("jump/jump2"), "--crops", 1)
    assert shown.exit_code == 1
    assert f"failed: {bad}: not a video" in shown.stdout
    assert "jump2.mkv" in shown.stdout


def test_what_was_predicted_before_ctrl_c_is_shown(stres, trained_on_videos, monkeypatch):
    run = predict.run

    def stopped(config, on_progress, on_prediction):
        def stop(prediction):
            on_prediction(prediction)
            signal.raise_signal(signal.SIGINT)

        return run(config, on_progress, stop)

    monkeypatch.setattr(predict, "run", stopped)
    shown = stres(trained_on_videos.videos, "--crops", 1)
    assert shown.exit_code == 130
    assert "jump0.mkv" in shown.stdout
    assert "jump1.mkv" not in shown.stdout
    assert shown.stderr.endswith("interrupted: what was predicted so far is above\n")


def test_three_lines_of_python_do_the_same(trained_on_videos, tmp_path, monkeypatch, capsys):
    text = DOCS.read_text(encoding="utf-8")
    (code,) = (part.split("```")[0] for part in text.split("```python\n")[1:])
    assert len([line for line in code.splitlines() if line and "import" not in line]) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stres-work").symlink_to(trained_on_videos.workspace.root)
    (tmp_path / "clip.mp4").symlink_to(trained_on_videos.video("jump/jump2"))
    exec(compile(code, str(DOCS), "exec"), {})
    assert "clip.mp4" in capsys.readouterr().out


def test_a_decoder_that_dies_while_predicting_is_named_with_its_video_and_the_exit_code_is_1(
    stres, trained_on_videos, monkeypatch
):
    opened = Decoder.open

    def open_and_die(self, path, *given, **options):
        reader = opened(self, path, *given, **options)
        if path.stem == "wave2":
            os.kill(reader._process._process.pid, signal.SIGSEGV)
        return reader

    monkeypatch.setattr(Decoder, "open", open_and_die)

    shown = stres(trained_on_videos.video("jump/jump2"), trained_on_videos.video("wave/wave2"), "--crops", 1, "--json")

    assert shown.exit_code == 1
    document = json.loads(shown.stdout)
    assert [Path(prediction["video"]).stem for prediction in document["predictions"]] == ["jump2"]
    (failure,) = document["failures"]
    assert (failure["video"], failure["reason"]) == ("wave2", "the decoder died (killed by signal 11) on this video")
    assert "wave2.mkv: the decoder died (killed by signal 11) on this video" in shown.stderr
