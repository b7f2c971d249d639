"""Which video a name means, as files of groups and of other programs' scores write it."""

import pytest

from pipelines.datasets.video_names import VideoNames

NAMES = VideoNames(["Hand Stand/a", "Hand Stand/v.1", "run/a", "run/b", "run/B", "run/c.avi", "walk/d"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("run/a", "run/a"),
        ("/data/run/a.mkv", "run/a"),
        ("run\\a.AVI", "run/a"),
        ("./handstand/A.mp4", "Hand Stand/a"),  # the class is spelled otherwise
        ("a", None),  # of two classes
        ("v.1", "Hand Stand/v.1"),
        ("v.1.webp", "Hand Stand/v.1"),
        ("b", "run/b"),
        ("B.avi", "run/B"),
        ("c.avi", "run/c.avi"),  # which is the whole name
        ("c.avi.avi", "run/c.avi"),
        ("videos/d.mp4", "walk/d"),  # the folder is no class
        ("run/d", None),  # but here it is another one
        ("d.1", None),
        ("", None),
    ],
)
def test_a_name_means_the_one_video_that_it_fits(text, meant):
    assert NAMES.find(text) == meant


def test_a_label_tells_videos_of_one_name_apart():
    assert (NAMES.find("a", "run"), NAMES.find("a.avi", "hand_stand"), NAMES.find("a", "walk")) == (
        "run/a",
        "Hand Stand/a",
        None,
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("+1/a", "+1/a"),
        ("+1/b", None),  # which is -1's
        ("1/b", None),  # either's
        ("walk/clip2", None),
        ("Walk/clip2", "Walk/clip2"),
        ("WALK/clip2", None),
        ("c", "!/c"),
        ("./?/c.mp4", "!/c"),
    ],
)
def test_classes_that_differ_in_punctuation_or_case_are_not_taken_for_one_another(text, meant):
    assert VideoNames(["+1/a", "-1/b", "walk/clip", "Walk/clip2", "!/c"]).find(text) == meant
