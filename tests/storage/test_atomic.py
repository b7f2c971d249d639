"""Files that are whole or not there, and folders that one process has at a time."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import MissingError, StorageError
from pipelines.storage.atomic import (
    atomic_file,
    create_folder,
    locked,
    read_json,
    remove_left_over_temporary_files,
    require_place,
    require_writable,
    storage_errors,
    write_json,
    write_text,
)
from tests.helpers.processes import first_line


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.b.txt"

    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.name.startswith(f".{path.name}.tmp-")
        assert f"-{os.getpid()}-" in temporary.name

    assert path.read_text() == "half"
    assert names(path.parent) == {path.name}


@pytest.mark.parametrize("name", ["folder", "pipe", "/dev/null", "/dev/stdout"])
def test_what_is_no_file_is_not_replaced(tmp_path, name):
    """The superuser could replace even /dev/null."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    for refused in (lambda path: require_writable(files=[path]), lambda path: atomic_file(path).__enter__()):
        with pytest.raises(StorageError, match="that is a folder, a device or a pipe: name a file"):
            refused(tmp_path / name)

    assert names(tmp_path) == {"folder", "pipe"}


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, stop):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise stop

    with pytest.raises(stop):
        write_half()

    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with atomic_file(tmp_path / "a.txt") as one, atomic_file(tmp_path / "a.txt") as other:
        one.write_text("one")
        other.write_text("other")

    assert (tmp_path / "a.txt").read_text() == "one"  # the last to finish


@pytest.mark.parametrize(
    "name", ["x" * 255, "ü" * 127, "no\udcfftext"], ids=["longest", "longest of two bytes", "bytes"]
)
def test_every_name_that_the_file_system_takes_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "content")

    assert names(tmp_path) == {name}


def test_left_over_temporary_files_go_with_their_process(tmp_path):
    ours = tmp_path / "deep" / "b.h5"
    dead = f"import pipelines.storage.atomic as w; f = w.atomic_file(w.Path({str(tmp_path / 'a.h5')!r})); " + (
        "f.__enter__().touch(); w.os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", dead], check=True, timeout=300)
    (left,) = tmp_path.glob(".a.h5.tmp-*")
    other_host = left.with_name(left.name.replace(".tmp-", ".tmp-another-"))
    other_host.touch()
    unrelated = [tmp_path / ".a.h5.tmp-mine", tmp_path / "a.h5.tmp-x-1-00000000"]
    for path in unrelated:
        path.touch()

    with atomic_file(ours) as living:
        living.touch()
        assert remove_left_over_temporary_files(tmp_path) == 1
        assert living.exists()

    assert not left.exists()
    assert other_host.exists()
    assert all(path.exists() for path in unrelated)


def test_the_temporary_file_of_a_process_that_nobody_has_buried_goes(tmp_path):
    """In a container whose first process buries no others, a killed worker stays in the table of processes."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    with atomic_file(tmp_path / "a.h5") as temporary:
        left = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
        left.touch()
        temporary.touch()

        assert remove_left_over_temporary_files(tmp_path) == 1
    process.wait(60)
    assert names(tmp_path) == {"a.h5"}


def test_left_over_temporary_files_are_sought_below_a_folder_or_not(tmp_path):
    (tmp_path / "deep").mkdir()
    dead = multiprocessing.get_context("spawn").Process()
    dead.start()
    dead.join(300)
    for folder in (tmp_path, tmp_path / "deep"):
        with atomic_file(folder / "a.h5") as temporary:
            name = temporary.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
            temporary.touch()
        (folder / name).touch()

    assert remove_left_over_temporary_files(tmp_path, below=False) == 1
    assert remove_left_over_temporary_files(tmp_path) == 1


def test_a_locked_folder_is_free_again_with_the_end_of_its_process(tmp_path):
    holder = (
        "import sys, time; from pathlib import Path; from pipelines.storage.atomic import locked\n"
        "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert first_line(process.stdout) == b"locked\n"
        with locked(tmp_path, wait=False) as free:
            assert not free
        process.kill()
    with locked(tmp_path, wait=False) as free:
        assert free


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "--workspace"), (errno.EACCES, "permission")],
)
def test_refusals_to_write_say_what_to_do(tmp_path, number, advice):
    with pytest.raises(StorageError, match=advice), storage_errors(tmp_path / "a.h5"):
        raise OSError(number, "refused")
    with pytest.raises(StorageError, match=advice), storage_errors(tmp_path / "a.h5"):
        raise OSError(f"Unable to write (errno = {number}, message)")  # as h5py says it


def test_a_file_in_the_place_of_a_folder_is_a_refusal_to_write(tmp_path):
    (tmp_path / "work").write_text("a file")

    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "work" / "a.txt", "content")
    with pytest.raises(StorageError, match="cannot write"):
        create_folder(tmp_path / "work")


def test_json_returns_as_it_was_written(tmp_path):
    document = {"ü": [1, 0.5, None], "b": {"c": True}}
    write_json(tmp_path / "a.json", document)

    assert read_json(tmp_path / "a.json") == document


@pytest.mark.parametrize("content", [None, "{", b"\xff\xfe"])
def test_json_that_is_absent_or_damaged_is_missing(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(MissingError, match=r"a\.json"):
        read_json(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_json_file_holds_nan_or_infinity(tmp_path, number):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"loss": number})
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_never_given_back_is_waited_for_only_so_long(tmp_path, monkeypatch):
    """The other command hangs, or was stopped with Ctrl-Z."""
    monkeypatch.setattr("pipelines.storage.atomic._LOCK_PATIENCE", 0.05)
    with (
        locked(tmp_path),
        pytest.raises(MissingError, match=r"another command has kept .* locked for 0.05 s.*end it"),
        locked(tmp_path),
    ):
        pytest.fail("both have it")
    with locked(tmp_path) as free:
        assert free


def test_places_to_write_are_tried_beforehand_and_nothing_is_left_there(tmp_path):
    require_writable(tmp_path / "a" / "b", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_told_to_be_none_without_writing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    require_place(tmp_path / "a" / "b")
    with pytest.raises(StorageError, match="a part of this path is a file"):
        require_place(tmp_path / "file" / "a")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write everywhere
    with pytest.raises(StorageError, match="permission denied: choose another --workspace"):
        require_place(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_does_not_fit_on_the_disk_is_refused_beforehand(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match=r"1000000000.0 MB are needed there, but only .* MB are free"):
        require_writable(tmp_path / "a", room=10**15)

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="the disk is full"):
        require_writable(tmp_path / "a")
