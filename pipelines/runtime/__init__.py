"""How the work runs: processes, ranks, devices, signals, progress."""
