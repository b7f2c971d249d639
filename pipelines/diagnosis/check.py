"""One line of the doctor's report, and what all subjects share."""

import importlib
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    A `failure` keeps a stage from working, a `warning` does not.
    """

    subject: str
    status: Status
    found: str
    fix: str = ""
    """The command, or what else to do, to fix what is not ok."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, for programs."""


@dataclass(frozen=True)
class Place:
    """Where the stages would work: the workspace, whether it exists or not, and the device."""

    workspace: Path
    device: str = "auto"

    @property
    def folder(self) -> Path:
        """The workspace, or where it would be made: the nearest folder above that exists."""
        path = self.workspace.absolute()
        while not path.is_dir() and path != path.parent:
            path = path.parent
        return path


def ok(subject: str, found: str, **values: Any) -> Check:
    return Check(subject, "ok", found, values=values)


def warning(subject: str, found: str, fix: str, **values: Any) -> Check:
    return Check(subject, "warning", found, fix, values)


def failure(subject: str, found: str, fix: str, **values: Any) -> Check:
    return Check(subject, "failure", found, fix, values)


def in_words(error: BaseException) -> str:
    """An exception on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def can_import(*modules: str) -> bool:
    """Whether all of these can be imported; if not, their own lines among the packages say why."""
    try:
        for module in modules:
            importlib.import_module(module)
    except BaseException:  # a broken library may raise anything
        return False
    return True


def pip_install(*arguments: str) -> str:
    """The command that installs into this very Python."""
    return shlex.join([sys.executable, "-m", "pip", "install", *arguments])
