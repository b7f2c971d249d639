"""Stages that take in what other programs made: one module for each `import-...` command."""
