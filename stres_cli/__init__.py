"""The command line of `stres`, and nothing else: every number is made in `pipelines`."""

INTERRUPTED = "interrupted: what is done is kept; the same command continues"
