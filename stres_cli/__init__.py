"""The command line of `stres`; the work is done in `pipelines`."""

INTERRUPTED = "interrupted: what is done is kept; run the same command to continue"
NOTHING_WRITTEN_IN_PART = "interrupted: no incomplete file is left; run the command again"
