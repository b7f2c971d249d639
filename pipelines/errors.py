"""The errors that a user can cause or has to deal with.

An error's text is one sentence that says what, where and what to do next; its class determines the exit code of the
command. Any other exception is a bug in stres (exit code 4).
"""


class StresError(Exception):
    """Base of every error a user can cause."""

    exit_code = 4


class UsageError(StresError):
    """The command was called incorrectly: a value out of range, contradictory settings."""

    exit_code = 2


class MissingError(StresError):
    """Something needed is missing or unusable: data, weights, a device, a package."""

    exit_code = 3


class StorageError(MissingError):
    """Writing failed (disk full, read-only): ends the command, since every other video would fail as well."""


class VideoError(StresError):
    """One video cannot be processed: becomes its row of `failures.csv`; never ends a run."""

    exit_code = 1


class Interrupted(BaseException):
    """A signal asked the command to stop; what is done is kept, and the same command continues.

    Not an `Exception`, so that no error handler takes it for a failed video.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
