"""What is found about classes: where motion helps, which stand together, which data set they are of."""

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.analysis.calibration import motion_effects
from pipelines.analysis.class_order import confusion_order
from pipelines.analysis.published import published
from pipelines.evaluation.scores import Scores


def predicted(appearance: list[int], fused: list[int], labels: list[int]) -> Scores:
    eye = np.eye(3, dtype=np.float32)
    videos = [f"v{index}" for index in range(len(labels))]
    return Scores(videos, np.array(labels), [*"xyz"], eye[appearance], eye[fused], eye[fused])


def test_motion_helps_where_only_fused_is_right_and_hurts_where_only_appearance_is() -> None:
    scores = predicted(appearance=[1, 1, 0, 1, 1], fused=[0, 0, 0, 1, 0], labels=[0, 0, 0, 1, 1])
    helped, hurt = motion_effects([scores])
    assert (helped.class_name, helped.support, helped.helped, helped.hurt) == ("x", 3, 2, 0)
    assert (hurt.class_name, hurt.support, hurt.helped, hurt.hurt) == ("y", 2, 0, 1)
    assert (helped.difference, hurt.difference) == pytest.approx((2 / 3, -1 / 2))


def test_effects_of_splits_are_summed() -> None:
    scores = predicted([1, 1], [0, 1], [0, 1])
    assert [(effect.support, effect.helped) for effect in motion_effects([scores, scores])] == [(2, 2), (2, 0)]


def test_classes_that_are_confused_stand_side_by_side() -> None:
    matrix = 10 * np.eye(6, dtype=int)
    for one, other, count in ((0, 3, 5), (3, 5, 3), (1, 4, 6)):
        matrix[one, other] += count
    order = confusion_order(matrix)
    assert sorted(order) == list(range(6))
    place = {index: at for at, index in enumerate(order)}
    assert abs(place[0] - place[3]) == abs(place[3] - place[5]) == abs(place[1] - place[4]) == 1


def test_without_confusion_the_order_is_the_classes_own() -> None:
    assert confusion_order(np.diag([3, 1, 0, 2])) == [0, 1, 2, 3]
    assert confusion_order(np.array([[4]])) == [0]


UCF101 = """ApplyEyeMakeup BabyCrawling BalanceBeam CliffDiving FieldHockeyPenalty HandstandPushups JugglingBalls
PommelHorse TaiChi YoYo""".split()  # noqa: SIM905


@pytest.mark.parametrize("spelled", [str, str.lower, lambda name: name.replace("Makeup", "_Makeup")])
def test_ucf101_is_known_by_its_classes_however_they_are_spelled(spelled: Callable[[str], str]) -> None:
    found = published([spelled(name) for name in UCF101] + [f"class{index}" for index in range(91)])
    assert found.dataset == "UCF101"
    assert {method.name: method.top1 for method in found.methods}["ST-ResNet (Feichtenhofer et al. 2016)"] == 0.934


def test_hmdb51_has_its_own_numbers() -> None:
    names = "brush_hair cartwheel draw_sword fall_floor flic_flac kick_ball ride_bike shoot_bow sword_exercise wave"
    found = published(names.split() + [f"class{index}" for index in range(41)])
    assert [method.top1 for method in found.methods] == [0.594, 0.654, 0.664, 0.703, 0.689, 0.742, 0.809]


def test_another_data_set_of_the_same_size_is_not_taken_for_it() -> None:
    assert published([f"class{index}" for index in range(101)]) is None
    assert published(UCF101) is None
