"""A workspace that is there, and one that is not."""

import pytest

from pipelines.errors import MissingError
from pipelines.storage.workspace import Workspace


def test_a_workspace_that_is_not_there_is_missing(tmp_path):
    workspace = Workspace(tmp_path / "work")
    with pytest.raises(MissingError, match="there is no workspace at"):
        workspace.require()
    workspace.root.mkdir(parents=True, exist_ok=True)
    workspace.require()
