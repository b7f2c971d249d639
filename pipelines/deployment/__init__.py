"""A run's network as one file that runs without stres: its inputs, formats, check and card."""
