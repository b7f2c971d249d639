"""The command line of `stres`, and nothing else: every number is made in `pipelines`."""
