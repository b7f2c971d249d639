"""Logits to probabilities and back. Letters: V videos, C classes."""

import numpy as np

LEAST = 1e-30  # the probability that stands for zero where a logarithm is taken


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of logits [V, C]: float64 [V, C], each row of sum 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logits [V, C] whose softmax gives back `probabilities` [V, C]; zeros become 1e-30."""
    return np.log(np.maximum(probabilities, LEAST))
