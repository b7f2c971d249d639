"""Numbers in sentences, and the texts of others."""

import pytest

from pipelines.interface.wording import duration, first_line, plural, printable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (0.42, "0.4 s"),
        (5, "5 s"),
        (9.96, "10 s"),
        (13.3, "13 s"),
        (8.4, "8.4 s"),
        (59.6, "1 min 00 s"),
        (65, "1 min 05 s"),
        (3599.7, "1 h 00 min"),
        (9900, "2 h 45 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_a_duration_is_in_words_that_a_person_can_use(seconds, words):
    assert duration(seconds) == words


def test_one_video_is_not_videos():
    assert [plural(number, "video") for number in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert [plural(number, "class") for number in (1, 3)] == ["1 class", "3 classes"]
    assert [plural(number, "video is", "videos are") for number in (1, 3)] == ["1 video is", "3 videos are"]


def test_what_is_not_printable_is_replaced() -> None:
    assert printable("a\x1b[2Jb\n\udcff") == "a\ufffd[2Jb\ufffd\ufffd"
    assert printable("naïve 走る") == "naïve 走る"


def test_the_first_line_of_an_error_is_its_type_where_it_has_no_text() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
