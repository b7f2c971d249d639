"""Recipes, loss, optimiser, checkpoints and the loop of the paper's training steps."""
