"""Finds the videos of a VIDEOS argument, and their classes."""
