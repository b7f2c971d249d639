"""The sweep of the fusion weight: what each weight gives, and that the best is known for what it is."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score

from pipelines.analysis.fusion import WEIGHTS, fuse, weight_sweep
from pipelines.evaluation.scores import Scores


def two_streams(seed: int = 0, videos: int = 200, classes: int = 6) -> Scores:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, videos)
    streams = [generator.normal(size=(videos, classes)).astype(np.float32) for _ in range(2)]
    for logits in streams:
        logits[np.arange(videos), labels] += 1
    names = [f"v{index}" for index in range(videos)]
    appearance, motion = streams
    return Scores(names, labels, [f"c{i}" for i in range(classes)], appearance, motion, (appearance + motion) / 2)


def test_every_weight_gives_scikit_learns_accuracy_of_the_weighted_sum() -> None:
    scores = two_streams()
    sweep = weight_sweep([scores], "appearance", "motion", [0.5])
    for weight, top1 in zip(sweep.weights, sweep.top1, strict=True):
        mixed = weight * scores.appearance + (1 - weight) * scores.motion
        assert top1 == pytest.approx(accuracy_score(scores.labels, mixed.argmax(axis=1)))


def test_the_ends_are_the_streams_and_a_half_is_the_fused_one() -> None:
    scores = two_streams()
    sweep = weight_sweep([scores], "appearance", "motion", [0.5])
    accuracy = {name: (logits.argmax(axis=1) == scores.labels).mean() for name, logits in scores.streams.items()}
    assert (WEIGHTS[0], WEIGHTS[10], WEIGHTS[-1]) == (0, 0.5, 1)
    assert sweep.top1[0] == accuracy["motion"]
    assert sweep.top1[-1] == accuracy["appearance"]
    assert sweep.top1[10] == sweep.used_top1 == accuracy["fused"]


def test_splits_are_averaged_not_pooled() -> None:
    parts = [two_streams(1, videos=50), two_streams(2, videos=300)]
    each = [weight_sweep([part], "appearance", "motion", [0.5]).top1 for part in parts]
    sweep = weight_sweep(parts, "appearance", "motion", [0.2, 0.7])
    np.testing.assert_allclose(sweep.top1, np.mean(each, axis=0))
    assert sweep.used_top1 == pytest.approx((each[0][4] + each[1][14]) / 2)


def test_the_weights_used_are_told_with_what_they_rest_on() -> None:
    parts = [two_streams(1, videos=50), two_streams(2, videos=50)]
    for used, chosen_on, words in (
        ([0.5, 0.5], [], "weight 0.5"),
        ([0.35, 0.5], [12, 9], "weight 0.35, 0.5, chosen on 12, 9 held-out videos"),
    ):
        assert weight_sweep(parts, "appearance", "motion", used, chosen_on=chosen_on).used_in_words == words


def test_of_equally_good_weights_the_best_is_the_one_nearest_to_the_used() -> None:
    labels = np.array([0, 1])
    logits = np.eye(2, dtype=np.float32)
    scores = Scores(["a", "b"], labels, ["x", "y"], logits, logits, logits)
    assert weight_sweep([scores], "appearance", "motion", [0.3]).best == (0.3, 1)


def test_in_softmax_space_probabilities_are_averaged() -> None:
    scores = two_streams()
    fused = fuse(scores.appearance, scores.motion, 0.3, "softmax")
    expected = 0.3 * softmax(scores.appearance, axis=1) + 0.7 * softmax(scores.motion, axis=1)
    np.testing.assert_allclose(softmax(fused, axis=1), expected, atol=1e-6)
