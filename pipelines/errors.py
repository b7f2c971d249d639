"""What can go wrong, by what the user has to do about it.

An error's text is one sentence that says what, where and what to do next; its class says with which exit code the
command ends. Anything else that is raised is an error of ours (exit code 4).
"""


class StresError(Exception):
    """Base of every error a user can cause."""

    exit_code = 4


class UsageError(StresError):
    """The command was called wrongly: a value out of range, settings that contradict each other."""

    exit_code = 2


class MissingError(StresError):
    """Something needed is missing or refuses: data, weights, a device, a package."""

    exit_code = 3


class StorageError(MissingError):
    """Writing failed (disk full, read-only): ends the command, since every further video would fail the same way."""


class VideoError(StresError):
    """One video cannot be processed: becomes its row of `failures.csv`; never ends a run."""

    exit_code = 1


class Interrupted(BaseException):
    """A signal asked the command to stop; what is done is kept, and the same command continues.

    Not an `Exception`, so that no handler of errors takes it for a failed video.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
