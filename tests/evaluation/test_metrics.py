"""The numbers of a run: parity with scikit-learn and with a bootstrap written out, and what they mean at the edges."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, top_k_accuracy_score

from pipelines.evaluation.metrics import (
    class_metrics,
    confused_pairs,
    confusion_matrix,
    ranks,
    results_document,
    stream_metrics,
)
from pipelines.evaluation.scores import STREAMS, Scores

PROTOCOL = {"frames": 25, "views": "full", "mirror": True, "temporal": "sequence"}


def random_scores(seed: int = 0, videos: int = 300, classes: int = 8, gain: float = 1.5) -> Scores:
    """Scores whose fused stream is the best; classes of unequal size."""
    generator = np.random.default_rng(seed)
    labels = np.sort(generator.integers(0, classes, videos) * generator.integers(0, 2, videos))
    streams = {}
    for stream, strength in zip(STREAMS, (0.5, 1.0, gain), strict=True):
        logits = generator.normal(size=(videos, classes))
        logits[np.arange(videos), labels] += strength
        streams[stream] = logits.astype(np.float32)
    names = [f"class{label}/v{index}" for index, label in enumerate(labels)]
    return Scores(names, labels.astype(np.int64), [f"class{index}" for index in range(classes)], **streams)


def scores_of(labels: list[int], predictions: list[int], classes: int) -> Scores:
    logits = np.eye(classes, dtype=np.float32)[predictions]
    names = [f"v{index}" for index in range(len(labels))]
    return Scores(names, np.array(labels, dtype=np.int64), [f"class{i}" for i in range(classes)], fused=logits)


@pytest.mark.parametrize("stream", STREAMS)
def test_accuracies_are_those_of_scikit_learn(stream: str) -> None:
    scores = random_scores()
    logits = scores.streams[stream]
    metrics = stream_metrics([scores], stream)
    assert metrics.top1 == pytest.approx(accuracy_score(scores.labels, logits.argmax(axis=1)))
    assert metrics.top5 == pytest.approx(top_k_accuracy_score(scores.labels, logits, k=5, labels=np.arange(8)))
    assert metrics.mean_class_accuracy == pytest.approx(balanced_accuracy_score(scores.labels, logits.argmax(axis=1)))


def test_intervals_are_those_of_a_bootstrap_that_redraws_every_video() -> None:
    scores = random_scores(videos=200)
    predictions = scores.fused.argmax(axis=1)
    generator = np.random.default_rng(7)
    samples = []
    for _ in range(1500):
        drawn = generator.integers(0, 200, 200)
        labels, hits = scores.labels[drawn], predictions[drawn] == scores.labels[drawn]
        samples.append((hits.mean(), np.mean([hits[labels == label].mean() for label in np.unique(labels)])))
    top1, mean_class = np.percentile(samples, [2.5, 97.5], axis=0).T
    metrics = stream_metrics([scores], "fused")
    assert metrics.top1_interval == pytest.approx(top1, abs=0.011)
    assert metrics.mean_class_accuracy_interval == pytest.approx(mean_class, abs=0.011)


def test_intervals_hold_their_value_and_are_the_same_every_time() -> None:
    metrics = stream_metrics([random_scores()], "fused")
    assert metrics.top1_interval[0] < metrics.top1 < metrics.top1_interval[1]
    assert metrics == stream_metrics([random_scores()], "fused")


def test_equal_logits_are_ranked_as_argmax_ranks_them() -> None:
    assert ranks(np.zeros((3, 3), np.float32), np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_with_fewer_than_five_classes_top5_counts_them_all() -> None:
    metrics = stream_metrics([scores_of([0, 1, 2], [1, 2, 0], 3)], "fused")
    assert (metrics.top1, metrics.top5, metrics.top5_interval) == (0, 1, (1, 1))


def test_a_class_without_test_videos_does_not_lower_the_mean_class_accuracy() -> None:
    assert stream_metrics([scores_of([0, 0, 1], [0, 0, 1], 4)], "fused").mean_class_accuracy == 1


def test_several_splits_are_averaged_and_not_pooled() -> None:
    small, large = scores_of([0, 1], [0, 0], 2), scores_of([0, 1] * 10, [0, 1] * 10, 2)
    metrics = stream_metrics([small, large], "fused")
    assert metrics.top1 == pytest.approx((0.5 + 1) / 2)
    assert confusion_matrix([small, large], "fused").tolist() == [[11, 0], [1, 10]]


def test_the_mean_of_splits_is_surer_than_each() -> None:
    parts = [random_scores(seed) for seed in range(3)]
    mean = stream_metrics(parts, "fused").top1_interval
    each = [stream_metrics([part], "fused").top1_interval for part in parts]
    assert mean[1] - mean[0] < min(high - low for low, high in each) / 1.4


def test_class_figures_follow_scikit_learn_and_are_none_where_undefined() -> None:
    scores = scores_of([0, 0, 1, 1], [0, 1, 1, 1], 4)
    first, second, absent, _ = class_metrics([scores], "fused")
    f1 = f1_score([0, 0, 1, 1], [0, 1, 1, 1], average=None)
    assert (first.support, first.precision, first.recall, first.f1) == (2, 1, 0.5, pytest.approx(f1[0]))
    assert (second.precision, second.f1) == (pytest.approx(2 / 3), pytest.approx(f1[1]))
    assert (absent.support, absent.precision, absent.recall, absent.accuracy) == (0, None, None, {"fused": None})


def test_class_figures_hold_the_accuracy_of_every_stream() -> None:
    scores = random_scores()
    row = class_metrics([scores], "fused")[0]
    mine = scores.labels == 0
    for stream, logits in scores.streams.items():
        assert row.accuracy[stream] == pytest.approx((logits[mine].argmax(axis=1) == 0).mean())
    assert row.recall == row.accuracy["fused"]


def test_a_class_missing_from_one_split_is_averaged_over_the_others() -> None:
    rows = class_metrics([scores_of([0, 0], [0, 0], 2), scores_of([0, 1], [0, 0], 2)], "fused")
    assert (rows[1].support, rows[1].recall) == (1, 0)


def test_confused_pairs_stand_in_falling_order() -> None:
    matrix = np.array([[5, 1, 0], [2, 1, 0], [0, 1, 0]])
    pairs = [(pair.true, pair.predicted, pair.count, pair.share) for pair in confused_pairs(matrix, "abc")]
    assert pairs == [("b", "a", 2, pytest.approx(2 / 3)), ("c", "b", 1, 1), ("a", "b", 1, pytest.approx(1 / 6))]


PROVENANCE = ("schema", "stres_version", "library_versions", "scores_sha256")


def test_the_results_document_has_the_agreed_keys() -> None:
    document = results_document(PROTOCOL, 1, "split1", random_scores())
    assert list(document) == ["protocol", "split", "run", "videos", "appearance", "motion", "fused", *PROVENANCE]
    assert (document["protocol"], document["split"], document["videos"]) == (PROTOCOL, 1, 300)
    measures = ("top1", "top5", "mean_class_accuracy")
    assert list(document["fused"]) == [key for name in measures for key in (name, f"{name}_interval")]
    assert isinstance(document["fused"]["top1"], float)
    assert all(isinstance(value, float) for value in document["fused"]["top1_interval"])


def test_the_results_document_leaves_out_a_stream_that_was_not_evaluated() -> None:
    assert list(results_document(PROTOCOL, 1, "r", scores_of([0], [0], 2)))[4:] == ["fused", *PROVENANCE]


def test_the_results_document_refuses_an_incomplete_protocol() -> None:
    with pytest.raises(ValueError, match="frames, views, mirror, temporal"):
        results_document({"frames": 25}, 1, "r", random_scores())
