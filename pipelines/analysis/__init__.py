"""The report's statistics."""
