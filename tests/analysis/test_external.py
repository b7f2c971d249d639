"""Scores of other programs: read from CSV and npz, matched by id, fused as one asks, refused with what is wrong."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from pipelines.analysis.external import Table, add_external, external_name, read_external
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import Scores

CLASSES = ["jump", "run", "walk"]
IDS = ["jump/a", "run/b", "walk/c"]
LOGITS = np.array([[4, 1, 0], [0, 1, 3], [1, 2, 3]], np.float32)
OURS = Scores(IDS, np.array([0, 1, 2]), CLASSES, appearance=LOGITS, motion=LOGITS + 1, fused=LOGITS)
THEIRS = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0, 0, 1]])


def csv_file(
    folder: Path, ids: Sequence[str] = IDS, scores: np.ndarray = THEIRS, header: Sequence[str] | None = None
) -> Path:
    rows = [[name, *map(str, row)] for name, row in zip(ids, scores.tolist(), strict=True)]
    path = folder / "idt.csv"
    path.write_text("\n".join(",".join(row) for row in ([header] if header else []) + rows), encoding="utf-8")
    return path


def fused(path: Path, weight: float = 0.5, space: str | None = None) -> Table:
    (table,), _ = add_external([OURS], [read_external(path, CLASSES)], "idt", weight, space)
    return table


def test_csv_without_a_header_has_its_columns_in_class_order(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_external(csv_file(tmp_path), CLASSES).scores, THEIRS)


def test_csv_with_a_header_may_have_its_columns_in_any_order(tmp_path: Path) -> None:
    path = csv_file(tmp_path, scores=THEIRS[:, [2, 0, 1]], header=["video", "walk", "jump", "run"])
    np.testing.assert_array_equal(read_external(path, CLASSES).scores, THEIRS)


@pytest.mark.parametrize("kind", ["scores", "logits", "probabilities"])
def test_npz_holds_videos_scores_and_perhaps_classes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "idt.npz"
    np.savez(path, videos=np.array(IDS), classes=np.array(CLASSES[::-1]), **{kind: THEIRS[:, ::-1]})
    read = read_external(path, CLASSES)
    np.testing.assert_array_equal(read.scores, THEIRS)
    assert (read.videos, read.classes, read.probabilities) == (IDS, CLASSES, True)


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2, 3], CLASSES])
def test_labels_that_show_another_order_of_classes_are_refused(tmp_path: Path, labels: list[int] | list[str]) -> None:
    path = tmp_path / "idt.npz"
    np.savez(path, videos=np.array(IDS), scores=THEIRS, labels=np.array(labels))
    fused(path)
    np.savez(path, videos=np.array(IDS), scores=THEIRS[:, ::-1], labels=np.array(labels[::-1]))
    with pytest.raises(UsageError, match=r"gives jump/a the label 'walk': its classes are in another order"):
        fused(path)
    np.savez(path, videos=np.array(IDS), scores=THEIRS[:, ::-1], labels=[2, 1, 0], classes=np.array(CLASSES[::-1]))
    fused(path)


@pytest.mark.parametrize("ids", ["walk/c run/b jump/a", "walk/c.avi run/b.avi jump/a.mp4", "c b a", "c.avi b ./jump/a"])
def test_videos_are_matched_by_id_with_or_without_suffix_and_class(tmp_path: Path, ids: str) -> None:
    path = csv_file(tmp_path, ids=ids.split(), scores=THEIRS[::-1])
    np.testing.assert_allclose(softmax(fused(path).streams["idt"], axis=1), THEIRS, atol=1e-9)


def test_a_name_that_two_classes_share_needs_its_class(tmp_path: Path) -> None:
    ours = Scores(["jump/a", "run/a"], np.array([0, 1]), CLASSES, fused=LOGITS[:2])
    file = read_external(csv_file(tmp_path, ids=["a", "run/a"], scores=THEIRS[:2]), CLASSES)
    with pytest.raises(MissingError, match="lacks 1 of the 2 test videos, jump/a; it has a instead"):
        add_external([ours], [file], "idt", 0.5, None)


def test_the_fused_stream_stands_last_and_ours_are_kept(tmp_path: Path) -> None:
    table = fused(csv_file(tmp_path))
    assert list(table.streams) == ["appearance", "motion", "fused", "idt", "fused + idt"]
    assert table.streams["fused"] is OURS.fused


def test_logits_are_averaged_before_softmax_with_the_given_weight(tmp_path: Path) -> None:
    scores = np.array([[-3, 2, 1], [0, 5, 1], [2, 0, 1.5]])
    path = csv_file(tmp_path, scores=scores)
    np.testing.assert_allclose(fused(path, 0.25).streams["fused + idt"], 0.25 * scores + 0.75 * LOGITS)
    expected = 0.25 * softmax(scores, axis=1) + 0.75 * softmax(LOGITS, axis=1)
    averaged = fused(path, 0.25, "softmax").streams["fused + idt"]
    np.testing.assert_allclose(softmax(averaged, axis=1), expected, atol=1e-6)


def test_probabilities_are_averaged_with_probabilities_unless_told_otherwise(tmp_path: Path) -> None:
    path = csv_file(tmp_path)
    _, told = add_external([OURS], [read_external(path, CLASSES)], "idt", 0.5, None)
    assert (told.space, told.probabilities, told.weight) == ("softmax", True, 0.5)
    expected = (THEIRS + softmax(LOGITS, axis=1)) / 2
    np.testing.assert_allclose(softmax(fused(path).streams["fused + idt"], axis=1), expected, atol=1e-6)
    np.testing.assert_allclose(fused(path, space="logits").streams["fused + idt"], (THEIRS + LOGITS) / 2)


def test_l2_divides_each_video_by_its_norm_before_averaging(tmp_path: Path) -> None:
    scores = np.array([[-3, 2, 1], [0, 5, 1], [0, 0, 0]])
    averaged = fused(csv_file(tmp_path, scores=scores), 0.25, "l2").streams["fused + idt"]
    ours = [row / sum(value**2 for value in row) ** 0.5 for row in LOGITS.astype(float)]
    theirs = [scores[0] / 14**0.5, scores[1] / 26**0.5, scores[2]]  # zeros have no direction
    np.testing.assert_allclose(averaged, 0.25 * np.array(theirs) + 0.75 * np.array(ours), atol=1e-12)


def test_videos_that_the_test_has_not_are_left_out_and_told(tmp_path: Path) -> None:
    path = csv_file(tmp_path, ids=[*IDS, "run/other"], scores=np.vstack([THEIRS, THEIRS[:1]]))
    _, told = add_external([OURS], [read_external(path, CLASSES)], "idt", 0.5, None)
    assert told.extra == ("run/other",)


def test_a_file_named_like_a_stream_of_ours_is_told_apart() -> None:
    assert external_name(Path("idt{split}.csv")) == external_name(Path("idt-{split}.csv")) == "idt"
    assert external_name(Path("fused.csv")) == "fused.csv"
    assert external_name(Path("motion")) == external_name(Path("motion/late-25frames")) == "motion of the other run"


def test_a_file_without_suffix_named_like_a_stream_of_ours_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "motion").touch()
    assert external_name(tmp_path / "motion") == "motion of the file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("jump/a,1,2\n", "scores for 2 classes, not for 3"),
        ("video,jump,run,hop\njump/a,1,2,3\n", "lacks walk and has the unknown hop"),
        ("video,jump,run,run\njump/a,1,2,3\n", "lacks walk"),
        ("jump/a,1,2,3\nrun/b,1,x,3\n", "line 2: 'x' is not a number"),
        ("jump/a,1,2,3\nrun/b,1,2\n", "line 2: 2 numbers after the video's id, not 3"),
        ("jump/a,1,2,nan\n", "the scores of jump/a are not finite"),
        ("", "holds no scores"),
        ("video,jump,run,walk\n", "holds no scores"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "idt.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_external(tmp_path / "idt.csv", CLASSES)


def test_two_rows_for_one_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two rows for jump/a"):
        fused(csv_file(tmp_path, ids=["jump/a", "a", "walk/c"]))


def test_what_is_wrong_with_an_npz_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "idt.npz"
    np.savez(path, videos=np.array(IDS))
    with pytest.raises(UsageError, match=r"holds no table \(videos\): it must hold numbers"):
        read_external(path, CLASSES)
    np.savez(path, videos=np.array(IDS), scores=THEIRS[:2])
    with pytest.raises(UsageError, match=r"scores is float64 \(2, 3\), not numbers of 3 videos"):
        read_external(path, CLASSES)
    np.savez(path, videos=np.array([{}], dtype=object), scores=THEIRS)  # pickled: reading it could run anything
    with pytest.raises(MissingError, match="holds arrays of Python objects, stored as a pickle"):
        read_external(path, CLASSES)
    np.save(tmp_path / "idt.npy", THEIRS)
    with pytest.raises(UsageError, match=r"idt\.npy does not name its videos"):
        read_external(tmp_path / "idt.npy", CLASSES)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(MissingError, match="cannot be read as npz"):
        read_external(path, CLASSES)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'\.mat' is not a known kind of file, give \.csv, \.npz"):
        read_external(tmp_path / "idt.mat", CLASSES)
    with pytest.raises(MissingError, match="there is no such file"):
        read_external(tmp_path / "idt.csv", CLASSES)


NUMBERS = [str(number) for number in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)]  # as a run sorts them


def perfect_of_numbers(header: Sequence[str] | None) -> str:
    """Scores 1 in the column of its class for a video of each of twelve numbers; columns from 0 up unless named."""
    order = [name for name in header[1:] if name != "label"] if header else [str(number) for number in range(12)]
    labels = header is not None and "label" in header
    rows = [
        f"v{name}_1," + f"{name}," * labels + ",".join("1" if name == column else "0" for column in order)
        for name in NUMBERS
    ]
    return "\n".join(([",".join(header)] if header else []) + rows) + "\n"


@pytest.mark.parametrize(
    "header",
    [
        ["video", *map(str, range(12))],
        ["video", *NUMBERS],
        ["clip", *NUMBERS[::-1]],
        ["clip", "label", *NUMBERS[::-1]],
        ["", *NUMBERS],
        None,
    ],
)
def test_numbers_as_class_names_are_matched_by_name_or_by_their_number(
    tmp_path: Path, header: Sequence[str] | None
) -> None:
    path = tmp_path / "perfect.csv"
    path.write_text(perfect_of_numbers(header))
    read = read_external(path, NUMBERS, [f"{name}/v{name}_1" for name in NUMBERS])
    assert read.videos == [f"v{name}_1" for name in NUMBERS]
    np.testing.assert_array_equal(read.scores, np.eye(12))


def test_npz_columns_of_numbers_stand_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    videos, path = np.array([f"v{name}_1" for name in NUMBERS]), tmp_path / "perfect.npz"
    scores = np.array([[float(int(name) == column) for column in range(12)] for name in NUMBERS])
    np.savez(path, videos=videos, scores=scores)
    np.testing.assert_array_equal(read_external(path, NUMBERS).scores, np.eye(12))
    np.savez(path, videos=videos, scores=scores[:, ::-1], classes=np.arange(12)[::-1])
    np.testing.assert_array_equal(read_external(path, NUMBERS).scores, np.eye(12))


def test_a_first_row_of_scores_that_look_like_class_names_is_a_row_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("v0_1,1,0\nv1_1,0,1\n")
    read = read_external(path, ["0", "1"], ["0/v0_1", "1/v1_1"])
    assert read.videos == ["v0_1", "v1_1"]
    np.testing.assert_array_equal(read.scores, np.eye(2))
