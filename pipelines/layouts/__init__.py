"""Frames and flow as other tools keep them: one picture a frame, in folders."""
