"""The settings of stored flow that are the same whoever computed it."""

from pipelines.errors import UsageError

COMPRESSIONS = ("zstd", "gzip")


def check_settings(bound: float, step: int, compression: str) -> None:
    """Raises `UsageError` naming the option whose value no stored flow can have."""
    if not 0 < bound < float("inf"):
        raise UsageError(f"--bound must be a positive number of pixels, not {bound}")
    if step < 1:
        raise UsageError(f"--step must be 1 or more frames, not {step}")
    if compression not in COMPRESSIONS:
        raise UsageError(f"--compression must be one of {', '.join(COMPRESSIONS)}, not {compression!r}")
