"""`scores.h5`: what is written is read, in the agreed layout; what is damaged or foreign is refused."""

import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipelines.errors import Interrupted, MissingError, StorageError
from pipelines.evaluation.scores import SCORES_SCHEMA, Scores, read_scores, write_scores
from pipelines.storage.hdf5 import ArtifactError, peek

CLASSES = ["bend", "größer", "a b"]
VIDEOS = ["bend/v.1", "größer/#&[", "a b/二"]


def example(**changes: object) -> Scores:
    logits = np.arange(9, dtype=np.float32).reshape(3, 3)
    fields = {"videos": VIDEOS, "labels": np.array([0, 1, 2]), "classes": CLASSES, "motion": logits, "fused": -logits}
    return Scores(**(fields | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "scores" / "split1" / "protocol" / "scores.h5"
    write_scores(path, example(), {"run": "split1", "frames": 25})
    return path


def test_what_was_written_is_read(path: Path) -> None:
    scores = read_scores(path)
    assert (scores.videos, scores.classes, scores.appearance) == (VIDEOS, CLASSES, None)
    np.testing.assert_array_equal(scores.labels, [0, 1, 2])
    np.testing.assert_array_equal(scores.fused, example().fused)
    assert (list(scores.streams), scores.headline) == (["motion", "fused"], "fused")


def test_the_file_has_the_agreed_layout(path: Path) -> None:
    with h5py.File(path) as file:
        assert set(file) == {"videos", "labels", "motion", "fused"}
        assert file["videos"].asstr()[:].tolist() == VIDEOS
        assert (file["labels"].dtype, file["fused"].dtype, file["fused"].shape) == ("i8", "f4", (3, 3))
        assert list(file.attrs["classes"]) == CLASSES
    attributes = peek(path, SCORES_SCHEMA)
    assert (attributes["schema"], attributes["run"], attributes["frames"]) == ("stres/scores/1", "split1", 25)


def test_a_name_that_is_not_utf8_is_kept_readable(tmp_path: Path) -> None:
    write_scores(tmp_path / "s.h5", example(videos=["a/\udcff", "b", "c"]), {})
    assert read_scores(tmp_path / "s.h5").videos[0] == "a/\\udcff"


def test_an_interruption_waits_until_the_file_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_dataset = h5py.Group.create_dataset

    def pressed_ctrl_c(group: h5py.Group, name: str, **options: object) -> h5py.Dataset:
        if name == "labels":
            signal.raise_signal(signal.SIGINT)
        return create_dataset(group, name, **options)

    monkeypatch.setattr(h5py.Group, "create_dataset", pressed_ctrl_c)
    with pytest.raises(Interrupted):
        write_scores(tmp_path / "s.h5", example(), {})
    assert read_scores(tmp_path / "s.h5").videos == VIDEOS


def test_one_class_is_enough(tmp_path: Path) -> None:
    one = Scores(["v"], np.array([0]), ["only"], appearance=np.ones((1, 1), np.float32))
    write_scores(tmp_path / "s.h5", one, {})
    assert read_scores(tmp_path / "s.h5").classes == ["only"]


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        read_scores(tmp_path / "scores.h5")


def test_a_truncated_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(ArtifactError, match="damaged"):
        read_scores(path)


def test_a_changed_score_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["fused"][0, 0] = 3
    with pytest.raises(ArtifactError, match="checksum"):
        read_scores(path)


def test_a_file_whose_links_cannot_be_followed_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(group: h5py.Group, name: str, **options: object) -> None:
        raise RuntimeError("Unable to synchronously check link existence (addr overflow)")

    monkeypatch.setattr(h5py.Group, "get", broken)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_scores(path)


def test_another_schema_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = "stres/flow/1"
    with pytest.raises(ArtifactError, match="stres/flow/1"):
        read_scores(path)


@pytest.mark.parametrize("name", ["videos", "labels", "fused"])
def test_a_link_into_another_file_is_refused(path: Path, name: str) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink("other.h5", name)
    with pytest.raises(ArtifactError, match="of its own"):
        read_scores(path)


def test_external_storage_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["fused"]
        file.create_dataset("fused", (3, 3), "f4", external=[("/etc/hostname", 0, 36)])
    with pytest.raises(ArtifactError, match="does not hold its data itself"):
        read_scores(path)


def test_a_failed_write_leaves_the_old_scores(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_scores(path, example(), {"run": object()})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["scores.h5"]


def test_a_folder_that_cannot_be_made_is_an_error_of_storage(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        write_scores(tmp_path / "scores" / "s.h5", example(), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1])}, "labels are"),
        ({"labels": np.array([0, 1, 3])}, "reach 0..3 with 3 classes"),
        ({"videos": ["v", "v", "w"]}, "video stands twice"),
        ({"classes": ["a", "a", "b"]}, "class stands twice"),
        ({"fused": np.zeros((3, 2), np.float32)}, "fused is float32"),
        ({"fused": np.zeros((3, 3))}, "fused is float64"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(**changes)


def test_scores_of_a_diverged_training_are_refused_with_advice() -> None:
    broken = np.full((3, 3), np.nan, np.float32)
    with pytest.raises(MissingError, match=r"3 of 3 videos are not finite.*lower --lr.*--overwrite"):
        example(fused=broken)


def test_a_score_in_a_file_that_is_not_finite_is_refused_with_the_files_name(tmp_path: Path) -> None:
    scores = example()
    scores.motion[1, 2] = np.inf  # after it was checked
    write_scores(tmp_path / "scores.h5", scores, {})
    with pytest.raises(ArtifactError, match=r"scores\.h5: the motion scores of 1 of 3 videos are not finite"):
        read_scores(tmp_path / "scores.h5")


@pytest.mark.parametrize(
    "changes",
    [{"videos": [], "labels": np.zeros(0, np.int64)}, {"motion": None, "fused": None}],
)
def test_nothing_scored_is_missing(changes: dict[str, object]) -> None:
    with pytest.raises(MissingError, match="stres evaluate"):
        example(**changes)
