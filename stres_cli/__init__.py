"""The command line of `stres`, and nothing else: every number is made in `pipelines`."""

INTERRUPTED = "interrupted: what is done is kept; run the same command to continue"
