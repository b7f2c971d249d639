"""Files of scores: the arrays and columns that other programs leave, and what is no table of scores."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipelines.analysis.score_files import read_score_file
from pipelines.datasets.video_names import VideoNames
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import Scores, write_scores

NAMES = ["a", "b", "c"]
TABLE = np.array([[4, 1, 0], [0, 1, 3], [1, 2, 3.5]])


def test_one_of_several_arrays_is_named_behind_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    np.savez(path, names=NAMES, labels=[0, 2, 1], classes=["x", "y", "z"], rgb=TABLE, flow=-TABLE.astype(np.float32))
    read = read_score_file(Path(f"{path}:flow"))
    np.testing.assert_array_equal(read.scores, -TABLE)
    assert (read.videos, read.labels, read.classes) == (NAMES, ["0", "2", "1"], ["x", "y", "z"])
    with pytest.raises(UsageError, match=r"several tables \(rgb, flow\).* of which two\.npz:rgb takes one"):
        read_score_file(path)
    with pytest.raises(UsageError, match="has no array 'idt': it holds names, labels, classes, rgb, flow"):
        read_score_file(Path(f"{path}:idt"))
    with pytest.raises(UsageError, match=r"labels is int64 \(3,\), not numbers of 3 videos"):
        read_score_file(Path(f"{path}:labels"))


def test_hdf5_holds_the_same_as_npz_and_our_own_scores_are_such_a_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["videos"], file["classes"] = np.array(NAMES, "S"), np.array(["x", "y", "z"], "S")
        file["logits"] = TABLE
    read = read_score_file(tmp_path / "other.h5")
    np.testing.assert_array_equal(read.scores, TABLE)
    assert (read.videos, read.labels, read.classes) == (NAMES, None, ["x", "y", "z"])
    ours = Scores(["x/a", "y/ä"], np.array([0, 1]), ["x", "y"], appearance=TABLE[:2, :2].astype(np.float32))
    write_scores(tmp_path / "scores.h5", ours, {"run": "split1"})
    read = read_score_file(tmp_path / "scores.h5")
    np.testing.assert_array_equal(read.scores, TABLE[:2, :2])
    assert (read.videos, read.labels, read.classes) == (["x/a", "y/ä"], ["0", "1"], ["x", "y"])


def test_npy_holds_numbers_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", TABLE)
    read = read_score_file(tmp_path / "scores.npy")
    np.testing.assert_array_equal(read.scores, TABLE)
    assert (read.videos, read.labels, read.classes) == (None, None, None)


@pytest.mark.parametrize(
    "text", ["video,label,x,y\na,x,1,0\nb,y,0,1\n", "a,x,1,0\nb,y,0,1\n", "name,Label,y,x\na,x,0,1\nb,y,1,0\n"]
)
def test_csv_may_hold_labels_in_its_second_column(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    read = read_score_file(tmp_path / "a.csv")
    assert (read.videos, read.labels) == (["a", "b"], ["x", "y"])
    assert read.classes in (None, ["x", "y"], ["y", "x"])
    np.testing.assert_array_equal(read.scores, np.eye(2)[:, :: -1 if read.classes == ["y", "x"] else 1])


@pytest.mark.parametrize(
    "text",
    [
        "video;x;y\na;0,5;1\nb;0;-1,25\n",
        "a;x;0,5;1\nb;y;0;-1,25\n",
        "video\tx\ty\na\t0.5\t1\nb\t0\t-1.25\n",
        '"video","x","y"\n"a","0,5","1"\n"b","0","-1,25"\n',
    ],
)
def test_csv_may_have_semicolons_tabs_and_decimal_commas(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    read = read_score_file(tmp_path / "a.csv")
    assert read.videos == ["a", "b"]
    np.testing.assert_array_equal(read.scores, [[0.5, 1], [0, -1.25]])


def test_a_semicolon_in_a_name_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a;1,0.5,1\nb,0,2\n")
    assert read_score_file(tmp_path / "a.csv").videos == ["a;1", "b"]


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("video,x,y\na,0,5,0,1\n", r"line 2: 4 numbers .*, not 2: separate columns by semicolons where numbers have"),
        ("video;x;y\na;0,5;1\nb;0.5;1\n", r"decimal commas in line 2 and points in line 3"),
        ("video;x;y\na;1.000,5;1\n", r"line 2: '1\.000,5' is not a number"),
    ],
)
def test_numbers_that_could_be_misread_are_refused(tmp_path: Path, text: str, refusal: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UsageError, match=refusal):
        read_score_file(tmp_path / "a.csv")


def test_a_pickle_is_refused_in_whatever_file_it_stands(tmp_path: Path) -> None:
    (tmp_path / "mm.pkl").write_bytes(pickle.dumps([TABLE]))
    with pytest.raises(UsageError, match=r"mm\.pkl is stored as a pickle, which can run code .* numpy\.savez"):
        read_score_file(tmp_path / "mm.pkl")
    of_tsn = np.empty(2, dtype=object)  # TSN saves a list of (scores, label) of each video
    of_tsn[:] = [(TABLE, 0), (TABLE, 1)]
    np.savez(tmp_path / "tsn.npz", scores=of_tsn, labels=[0, 1])
    with pytest.raises(MissingError, match=r"tsn\.npz holds arrays of Python objects, stored as a pickle"):
        read_score_file(tmp_path / "tsn.npz")


def test_rows_that_are_no_probabilities_among_such_are_named(tmp_path: Path) -> None:
    rows = np.array([[0.5, 0.5], [1, 0], [0.7, 0.1]])
    np.savez(tmp_path / "p.npz", videos=NAMES, scores=rows)
    with pytest.raises(UsageError, match=r"1 row of 3, such as that of c, .* \(sum 0\.8\)"):
        read_score_file(tmp_path / "p.npz")


@pytest.mark.parametrize("header", ["", ",video,jump,run\n", "index,video,jump,run\n"])
def test_a_column_that_numbers_the_rows_is_told(tmp_path: Path, header: str) -> None:
    path, known = tmp_path / "scores.csv", VideoNames(["jump/a", "run/c", "run/7"])
    path.write_text(f"{header}0,jump/a,.9,.1\n4,jump/other,.8,.2\n9,run/c.avi,.1,.9\n")
    with pytest.raises(UsageError, match=r"its first column numbers the rows, .* second: leave the first out"):
        read_score_file(path, ["jump", "run"], known)
    path.write_text("7,run,.1,.9\n")  # a video's name and its label
    assert read_score_file(path, ["jump", "run"], known).videos == ["7"]
