"""The commands that run the network keep the memory of its feature maps."""

import pytest


@pytest.mark.parametrize(("command", "arguments"), [("train", []), ("evaluate", []), ("predict", ["clip.avi"])])
def test_commands_that_run_the_network_keep_freed_memory(stres, monkeypatch, tmp_path, command, arguments):
    called = []
    monkeypatch.setattr(f"stres_cli.commands.{command}.keep_freed_memory", lambda: called.append(command))
    stres(command, *arguments, "--workspace", tmp_path / "none")
    assert called == [command]
