"""Frames and flow as other tools store them: one picture per frame, in folders."""
