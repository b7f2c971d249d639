"""Classes of unequal size: how they are told, drawn equally often, and weighed in the loss."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from pipelines.datasets.class_balance import ClassBalance, class_weights
from pipelines.datasets.sampler import StepSampler, balanced_order
from pipelines.models import StreamLogits
from pipelines.training.loop import video_loss

LABELS = np.array([0] * 7 + [1] + [3] * 4)  # no video of class 2


@pytest.mark.parametrize("places", [1, 2, 12, 36, 40])
def test_all_classes_stand_equally_often_at_every_place_and_so_do_the_videos_of_each(places):
    order = balanced_order(LABELS, places, seed=3, step_index=1, epoch=5)
    assert len(order) == places
    for end in range(1, places + 1):
        seen = np.bincount(LABELS[order[:end]], minlength=4)[[0, 1, 3]]
        assert seen.max() - seen.min() <= 1
        for label in (0, 1, 3):
            videos = np.flatnonzero(label == LABELS)
            counts = [int((order[:end] == video).sum()) for video in videos]
            assert max(counts) - min(counts) <= 1


def test_a_place_is_of_each_video_as_likely_as_weights_inverse_to_its_class_make_it():
    """As torch's WeightedRandomSampler draws."""
    first = Counter(int(balanced_order(LABELS, 5, seed=0, step_index=0, epoch=epoch)[4]) for epoch in range(1500))
    weights = 1 / np.bincount(LABELS)[LABELS]
    expected = 1500 * weights / weights.sum()
    found = np.array([first[video] for video in range(len(LABELS))])
    assert ((found - expected) ** 2 / expected).sum() < 31.3  # chi squared, 11 degrees of freedom, p = 0.001


def test_any_start_and_any_share_give_the_batches_of_a_whole_run():
    settings = {"seed": 1, "step_index": 2, "labels": LABELS}
    whole = list(itertools.islice(StepSampler(12, 2, 5, **settings), 11))
    assert [len(batch) for batch in whole[:5]] == [5, 5, 5, 5, 4]
    assert whole[:5] != whole[5:10]
    for start in (1, 4, 5, 7):
        assert list(itertools.islice(StepSampler(12, 2, 5, **settings, start=start), 11 - start)) == whole[start:]
    halves = [StepSampler(12, 2, 5, **settings, share=lambda batch, rank=rank: batch[rank::2]) for rank in (0, 1)]
    for batch, *parts in zip(whole, *halves, strict=False):
        assert sorted(parts[0] + parts[1]) == batch


def test_the_weights_of_the_loss_are_inverse_to_the_classes_and_one_on_average():
    weights = class_weights(LABELS, 4)
    np.testing.assert_allclose(weights[[0, 1, 3]] * [7, 1, 4], [4, 4, 4])  # 12 videos, 3 classes
    assert weights[2] == 1
    assert weights[LABELS].mean() == pytest.approx(1)
    np.testing.assert_array_equal(class_weights(np.arange(5), 5), np.ones(5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_loss_is_torchs_and_a_naive_one(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = StreamLogits(*(torch.randn(6, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2)))
    labels = torch.tensor([0, 1, 3, 0, 0, 3])
    weights = torch.tensor(class_weights(LABELS, 4))
    found = float(video_loss(logits, labels, smoothing, weights.float()))
    naive = 0.0
    for stream in logits:
        for video, label in enumerate(labels):
            target = np.full(4, smoothing / 4)
            target[label] += 1 - smoothing
            for step in stream[video].numpy():
                naive -= weights[label].item() * float(target @ (step - np.log(np.exp(step).sum())))
    assert found == pytest.approx(naive, rel=1e-5)
    if not smoothing:
        criterion = torch.nn.CrossEntropyLoss(weight=weights, reduction="sum")
        torchs = sum(criterion(stream.flatten(0, 1), labels.repeat_interleave(3)) for stream in logits)
        assert found == pytest.approx(float(torchs), rel=1e-5)


def test_the_accuracies_that_need_no_network():
    balance = ClassBalance.of({"a": 9, "b": 3, "none": 0, "c": 4}, 4)
    assert (balance.smallest, balance.median, balance.largest) == (3, 4, 9)
    labels = np.repeat([0, 1, 2], [9, 3, 4])
    assert balance.majority == max(np.mean(labels == guess) for guess in range(3))
    assert balance.chance == 0.25
    assert balance.sentence() == "always answering the most frequent class is right in 56.3 %, chance is 25.0 %"
    assert balance.unbalanced
    assert balance.of_test().startswith("3 to 9 test videos a class (median 4), unbalanced: mean class comes first; ")
    assert not ClassBalance.of({"a": 6, "b": 3}, 2).unbalanced  # twice is not more than twice
    assert ClassBalance.of({"a": 6, "b": 6}, 2).of_test().startswith("6 test videos a class; always")
