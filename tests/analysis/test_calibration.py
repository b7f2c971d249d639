"""Calibration: parity with scikit-learn's curve and with the error written out as the paper has it."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from pipelines.analysis.calibration import BINS, calibration
from pipelines.evaluation.scores import Scores


def random_scores(videos: int = 500, classes: int = 5, seed: int = 0) -> Scores:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, videos)
    logits = 2 * generator.normal(size=(videos, classes)).astype(np.float32)
    logits[np.arange(videos), labels] += 1
    return Scores([f"v{i}" for i in range(videos)], labels, [f"c{i}" for i in range(classes)], fused=logits)


def test_the_curve_is_scikit_learns() -> None:
    scores = random_scores()
    confidence = softmax(scores.fused.astype(np.float64), axis=1).max(axis=1)
    hit = scores.fused.argmax(axis=1) == scores.labels
    accuracy, mean_confidence = calibration_curve(hit, confidence, n_bins=BINS)
    filled = [one for one in calibration([scores], "fused").bins if one.count]
    np.testing.assert_allclose([one.accuracy for one in filled], accuracy)
    np.testing.assert_allclose([one.confidence for one in filled], mean_confidence)


def test_the_error_is_the_papers_sum_over_bins() -> None:
    scores = random_scores(seed=3)
    confidence = softmax(scores.fused.astype(np.float64), axis=1).max(axis=1)
    hit = scores.fused.argmax(axis=1) == scores.labels
    expected = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    assert calibration([scores], "fused").ece == pytest.approx(expected)


def test_scores_that_know_how_sure_to_be_have_no_error() -> None:
    # Four videos at 75 %, three of them right.
    logits = np.tile(np.log(np.array([0.75, 0.25], np.float32)), (4, 1))
    scores = Scores([*"abcd"], np.array([0, 0, 0, 1]), ["x", "y"], fused=logits)
    values = calibration([scores], "fused")
    assert values.ece == pytest.approx(0, abs=1e-7)
    assert (values.confidence, values.accuracy) == (pytest.approx(0.75), 0.75)


def test_a_confidence_between_two_bins_belongs_to_the_lower_one() -> None:
    thirds = Scores(["a"], np.array([0]), ["x", "y", "z"], fused=np.zeros((1, 3), np.float32))
    assert [one.high for one in calibration([thirds], "fused").bins if one.count] == [pytest.approx(1 / 3)]


def test_every_video_of_every_split_is_in_one_bin() -> None:
    sure = Scores(["a"], np.array([0]), ["x", "y"], fused=np.array([[400, -400]], np.float32))
    torn = Scores(["b"], np.array([0]), ["x", "y"], fused=np.zeros((1, 2), np.float32))
    bins = calibration([sure, torn], "fused").bins
    assert [one.count for one in bins] == [0] * 7 + [1] + [0] * 6 + [1]
    assert (bins[0].accuracy, bins[-1].accuracy) == (None, 1)
