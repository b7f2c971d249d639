"""Two runs compared: parity with SciPy, videos matched by id, and refusal where that is impossible."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest

from pipelines.analysis.comparison import changed_videos, compare_streams, mcnemar
from pipelines.errors import UsageError
from pipelines.evaluation.intervals import of_paired_difference
from pipelines.evaluation.scores import Scores


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (5, 5), (1, 9), (12, 3), (130, 90), (1500, 1700)])
def test_the_p_value_is_scipys_two_sided_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second, 0.5).pvalue if first + second else 1
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(expected, rel=1e-9)


def scores_of(predictions: list[int], videos: str = "abcdef", labels: tuple[int, ...] = (0, 0, 0, 1, 1, 1)) -> Scores:
    logits = np.eye(2, dtype=np.float32)[predictions]
    return Scores(list(videos), np.array(labels), ["x", "y"], fused=logits)


FIRST, SECOND = scores_of([0, 0, 1, 1, 1, 1]), scores_of([0, 1, 1, 1, 0, 0])


def test_videos_are_counted_by_who_gets_them_right() -> None:
    one = compare_streams([FIRST], [SECOND], "fused", "fused")
    assert (one.both, one.only_first, one.only_second, one.neither) == (2, 3, 0, 1)
    assert one.difference == pytest.approx(3 / 6)
    assert one.p_value == pytest.approx(0.25)
    assert one.difference_interval[0] < one.difference < one.difference_interval[1]


def test_videos_are_matched_by_id_and_not_by_place() -> None:
    order = [1, 2, 0, 3, 4, 5]
    shuffled = Scores([SECOND.videos[i] for i in order], SECOND.labels[order], ["x", "y"], fused=SECOND.fused[order])
    found, expected = (compare_streams([FIRST], [second], "fused", "fused") for second in (shuffled, SECOND))
    assert found == expected


def test_what_only_one_gets_right_is_listed_won_before_lost() -> None:
    order = [5, 4, 3, 2, 1, 0]
    shuffled = Scores([SECOND.videos[i] for i in order], SECOND.labels[order], ["x", "y"], fused=SECOND.fused[order])
    won = [(1, "b", "x", "x", "y"), (4, "e", "y", "y", "x"), (5, "f", "y", "y", "x")]
    found = changed_videos([FIRST], [shuffled], "fused", "fused")
    assert [dataclasses.astuple(one) for one in found] == won
    both = changed_videos([FIRST, SECOND], [shuffled, FIRST], "fused", "fused")
    assert [(one.clip, one.won) for one in both] == [(c, True) for c in (1, 4, 5)] + [(c, False) for c in (7, 10, 11)]


def test_splits_are_counted_together() -> None:
    one = compare_streams([FIRST, FIRST], [SECOND, SECOND], "fused", "fused")
    assert (one.both, one.only_first, one.p_value) == (4, 6, pytest.approx(binomtest(6, 6).pvalue))


@pytest.mark.parametrize(("first", "second", "videos"), [(0, 0, 16), (3, 0, 6), (12, 2, 44), (9, 40, 300), (16, 0, 16)])
def test_the_interval_holds_what_a_score_test_does_not_reject(first: int, second: int, videos: int) -> None:
    """Tango 1998, by trying: at each assumed difference the most likely shares are searched for on a grid."""
    low, high = of_paired_difference(first, second, videos)

    def rejected(assumed: float) -> bool:
        shares = np.linspace(max(0.0, -assumed), (1 - assumed) / 2, 200_001)  # of videos only the second gets right
        chances = np.clip([shares + assumed, shares, 1 - 2 * shares - assumed], 1e-300, 1)
        counts = np.array([first, second, videos - first - second])[:, None]
        likely = shares[(counts * np.log(chances)).sum(axis=0).argmax()]
        variance = max(videos * (2 * likely + assumed * (1 - assumed)), 1e-12)
        return abs(first - second - videos * assumed) / variance**0.5 > 1.959963984540054

    for end, outside in ((low, -1), (high, 1)):
        assert not rejected(end - 1e-4 * outside)
        assert abs(end) == 1 or rejected(end + 1e-4 * outside)


def test_the_interval_of_two_equal_runs_is_not_a_point() -> None:
    for first, second in ((FIRST, FIRST), (scores_of([0, 0, 0, 1, 1, 1]),) * 2):
        low, high = compare_streams([first], [second], "fused", "fused").difference_interval
        assert low == pytest.approx(-high)
        assert 0.2 < high < 0.6


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (scores_of([0] * 6, videos="abcdeg"), "only the first has f and only the second has g; evaluate both"),
        (dataclasses.replace(SECOND, classes=["x", "z"]), "classes differ: only the first has y"),
        (dataclasses.replace(SECOND, classes=["y", "x"]), "classes differ: their order"),
        (scores_of([0] * 6, labels=(0, 0, 0, 1, 1, 0)), "other classes for f"),
    ],
)
def test_runs_that_were_not_tested_on_the_same_are_refused(second: Scores, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare_streams([FIRST], [second], "fused", "fused")


def test_of_many_differing_videos_a_few_are_named() -> None:
    with pytest.raises(UsageError, match="has a, b, c and 3 more"):
        compare_streams([FIRST], [scores_of([0] * 6, videos="uvwxyz")], "fused", "fused")
