"""Decoding, resizing and encoding videos."""
