"""`stres` and `python -m stres_cli`."""

import os
import sys

from stres_cli.app import app


def main() -> None:
    """Runs the command line; the process ends with the exit code of the command."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a locale may lack a letter
    # Before torch loads OpenMP: threads that spin while they wait make a training step 5 to 10 times slower as soon as
    # another process wants a core (measured: 0.5 s against 4 s on two busy cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


if __name__ == "__main__":
    main()
