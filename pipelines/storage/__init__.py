"""Files: their formats, written atomically and checked when they are read."""
