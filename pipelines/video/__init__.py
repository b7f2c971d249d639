"""Videos: which ones a command means, and their frames."""
