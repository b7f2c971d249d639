"""Every command ends with where its result lies and the command to run next, which works as it is printed."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stres_cli.app import COMMANDS
from tests.helpers.workspaces import Trained

OF_OTHER_TESTS = {  # which run them anyhow, and see what they end with
    *("demo", "doctor", "train", "extract-flow", "show-flow", "export", "import-frames", "import-weights"),
    "import-scores",
}
ADDED = {
    "extract-frames": ["--workers", "1"],
    "evaluate": ["--crops", "7", "--device", "cpu"],
    "predict": ["--crops", "7", "--device", "cpu"],
    "extract-features": ["--per", "clip", "--device", "cpu", "--workers", "1"],
    "export-flow": ["--workers", "1"],
    "import-flow": ["--workers", "1"],
}


@pytest.fixture
def follow(stres: Callable[..., Any], capsys: pytest.CaptureFixture[str], walked: set[str]) -> Callable[[str], str]:
    """Runs a command as it was printed; returns what it says comes next, or what a line of Python prints."""

    def run(command: str) -> str:
        program, *words = shlex.split(command)
        if program == "python":
            assert words[0] == "-c"
            exec(compile(words[1], command, "exec"), {})
            return capsys.readouterr().out
        walked.add(words[0])
        done = stres(*words, *ADDED.get(words[0], []))
        assert done.exit_code == 0, done.stdout + done.stderr
        following = re.findall(r"\bnext(?:, [^:]*)?: (.*)$", done.stdout, re.MULTILINE)
        assert len(following) == 1, done.stdout
        return following[0]

    return run


@pytest.fixture
def walked() -> set[str]:
    """The commands that were run."""
    return set()


def test_every_command_names_the_next_and_it_works(
    own_trained_on_videos: Trained,
    follow: Callable[[str], str],
    walked: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.reporting.files.png", lambda figure, about: b"not drawn")
    work, videos = own_trained_on_videos.workspace.root, own_trained_on_videos.videos
    clip, here = own_trained_on_videos.video("jump/jump2"), f"--workspace {work}"

    assert follow(f"stres verify --quick {here}") == follow(f"stres status {here}") == follow(f"stres runs {here}")

    then = follow(f"stres evaluate --run split1 {here}")
    assert then.startswith("stres report --run split1")
    assert (then := follow(then)) == f"stres predict VIDEO {here}"
    assert (then := follow(then.replace("VIDEO", str(clip)))) == f"stres predict {clip} --timeline {here}"
    listed = work / "predictions" / "jump2.segments.csv"
    assert (then := follow(then)) == f"stres extract-frames {listed} {here}"
    assert follow(f"stres predict {clip} --timeline --overlay {here}") == then
    assert follow(then) == f"stres extract-flow {listed} {here}"

    arrays = follow(f"stres extract-features {videos} {here}")
    assert re.fullmatch(r"\(1, \d+\)\n", follow(arrays))
    flow = tmp_path / "it's"
    pictures = follow(f"stres export-flow {shlex.quote(str(flow))} --layout denseflow {here}")
    assert re.match(r"\[\[ *-?\d", follow(pictures))
    settings = f"--method farneback --bound 20 --workspace {tmp_path / 'other'}"
    assert follow(f"stres import-flow {shlex.quote(str(flow))} {settings}").startswith("stres import-frames DIR ")
    assert walked | OF_OTHER_TESTS == {*COMMANDS}
