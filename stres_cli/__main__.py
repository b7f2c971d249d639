"""`stres` and `python -m stres_cli`."""

from stres_cli.app import app


def main() -> None:
    """Runs the command line; the process ends with the exit code of the command."""
    app()


if __name__ == "__main__":
    main()
