"""The numbers of a run: parity with scikit-learn and with a bootstrap written out, and what they mean at the edges."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, top_k_accuracy_score

from pipelines.evaluation.metrics import (
    class_metrics,
    confused_pairs,
    confusion_matrix,
    pooled_metrics,
    results_document,
    stream_metrics,
    true_class_ranks,
)
from pipelines.evaluation.scores import STREAMS, Scores
from pipelines.interface.wording import percent, points

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


def wilson(right: int, videos: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The formula as Wilson's paper has it."""
    share = right / videos
    middle = (share + z**2 / (2 * videos)) / (1 + z**2 / videos)
    half = z / (1 + z**2 / videos) * np.sqrt(share * (1 - share) / videos + z**2 / (4 * videos**2))
    return middle - half, middle + half


@pytest.mark.parametrize(("right", "videos"), [(0, 1), (1, 1), (16, 16), (0, 16), (9, 16), (54, 54), (3000, 3783)])
def test_the_interval_of_an_accuracy_is_wilsons(right: int, videos: int) -> None:
    metrics = stream_metrics([scores_of([0] * videos, [0] * right + [1] * (videos - right), 2)], "fused")
    assert metrics.top1_interval == pytest.approx(wilson(right, videos), abs=1e-12)
    assert metrics.mean_class_accuracy_interval == pytest.approx(metrics.top1_interval)  # one class has videos


def test_no_interval_is_a_point_where_every_video_is_right() -> None:
    right = scores_of([0, 1, 2, 3, 4, 5] * 4, [0, 1, 2, 3, 4, 5] * 4, 6)
    for metrics in (
        stream_metrics([right], "fused"),
        stream_metrics([right] * 3, "fused"),
        pooled_metrics([right] * 3, "fused"),
    ):
        assert (metrics.top1, metrics.top5, metrics.mean_class_accuracy) == (1, 1, 1)
        for low, high in (metrics.top1_interval, metrics.top5_interval, metrics.mean_class_accuracy_interval):
            assert 0.7 < low < 0.97
            assert high == 1
    wrong = stream_metrics([scores_of([0, 1] * 4, [1, 0] * 4, 2)], "fused")
    assert wrong.top1_interval[0] == wrong.mean_class_accuracy_interval[0] == 0
    assert min(wrong.top1_interval[1], wrong.mean_class_accuracy_interval[1]) > 0.25


def test_the_interval_of_a_mean_is_that_of_its_parts_combined() -> None:
    """Donner and Zou 2012: the distance to each end is the root of the summed squares."""
    metrics = stream_metrics([scores_of([0] * 5 + [1] * 20, [0] * 4 + [1] * 11 + [0] * 10, 2)], "fused")
    values, ends = np.array([4 / 5, 10 / 20]), np.array([wilson(4, 5), wilson(10, 20)])
    low = values.mean() - np.sqrt(((values - ends[:, 0]) ** 2).sum()) / 2
    high = values.mean() + np.sqrt(((ends[:, 1] - values) ** 2).sum()) / 2
    assert metrics.mean_class_accuracy_interval == pytest.approx((low, high))


def test_95_of_100_intervals_hold_the_true_accuracy() -> None:
    generator = np.random.default_rng(0)
    true = np.array([0.95, 0.8, 0.99, 0.6])
    held = np.zeros(2)
    for _ in range(400):
        labels = np.repeat(np.arange(4), 25)
        hits = generator.random(100) < true[labels]
        metrics = stream_metrics(
            [scores_of(labels.tolist(), np.where(hits, labels, (labels + 1) % 4).tolist(), 4)], "fused"
        )
        for place, (low, high) in enumerate((metrics.top1_interval, metrics.mean_class_accuracy_interval)):
            held[place] += low <= true.mean() <= high
    assert (held / 400 > 0.92).all()


def test_intervals_hold_their_value_and_are_the_same_every_time() -> None:
    metrics = stream_metrics([random_scores()], "fused")
    assert metrics.top1_interval[0] < metrics.top1 < metrics.top1_interval[1]
    assert metrics == stream_metrics([random_scores()], "fused")


def test_equal_logits_are_ranked_as_argmax_ranks_them() -> None:
    assert true_class_ranks(np.zeros((3, 3), np.float32), np.array([0, 1, 2])).tolist() == [1, 2, 3]


@pytest.mark.parametrize(("classes", "has_top5"), [(3, False), (5, False), (6, True)])
def test_top5_is_a_number_only_with_more_than_five_classes(classes: int, has_top5: bool) -> None:
    scores = scores_of([0, 1, 2], [1, 2, 0], classes)
    metrics = stream_metrics([scores], "fused")
    assert (metrics.top5 is not None, metrics.top5_interval is not None) == (has_top5, has_top5)
    document = results_document(PROTOCOL, 1, "r", scores)["fused"]
    assert (document["top5"] is None) == (document["top5_interval"] is None) == (not has_top5)


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
    about = ["protocol", "split", "run", "videos", "videos_sha256", "interval_method", "balance"]
    assert list(document) == [*about, "appearance", "motion", "fused", *PROVENANCE]
    assert document["interval_method"]["top1"] == "Wilson"
    assert (document["protocol"], document["split"], document["videos"]) == (PROTOCOL, 1, 300)
    other_order = replace(random_scores(), videos=random_scores().videos[::-1])
    assert results_document(PROTOCOL, 1, "split1", other_order)["videos_sha256"] == document["videos_sha256"]
    measures = ("top1", "top5", "mean_class_accuracy")
    assert list(document["fused"]) == [key for name in measures for key in (name, f"{name}_interval")]
    assert isinstance(document["fused"]["top1"], float)
    assert all(isinstance(value, float) for value in document["fused"]["top1_interval"])


def test_the_results_document_leaves_out_a_stream_that_was_not_evaluated() -> None:
    assert list(results_document(PROTOCOL, 1, "r", scores_of([0], [0], 2)))[7:] == ["fused", *PROVENANCE]


def test_the_results_document_refuses_an_incomplete_protocol() -> None:
    with pytest.raises(ValueError, match="frames, views, mirror, temporal"):
        results_document({"frames": 25}, 1, "r", random_scores())


# ------------------------------------------------------------------ one rounding


@pytest.mark.parametrize(
    ("right", "videos", "shown"),
    [
        (9, 16, "56.3"),
        (1, 16, "6.3"),
        (7, 16, "43.8"),
        (1, 2000, "0.1"),
        (3, 2000, "0.2"),
        (1, 3, "33.3"),
        (16, 16, "100.0"),
    ],
)
def test_half_a_tenth_of_a_percent_is_rounded_up_everywhere(right: int, videos: int, shown: str) -> None:
    assert percent(right / videos) == shown
    assert points(right / videos) == f"+{shown}"
    assert points(-right / videos) == f"-{shown}"


def test_percentages_are_rounded_as_their_exact_fractions() -> None:
    for videos in range(1, 400):
        for right in range(videos + 1):
            exact = math.floor(Fraction(1000 * right, videos) + Fraction(1, 2))
            assert percent(right / videos) == f"{exact // 10}.{exact % 10}"


def test_what_is_not_defined_or_no_difference_has_no_number_or_sign() -> None:
    assert (percent(None), points(0.0), points(-0.0001), percent(0.995, 0)) == ("–", "0.0", "0.0", "100")
