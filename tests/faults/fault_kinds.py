"""The faults: each strikes one command at a random moment, and checks how the command ends.

What holds after every one of them is `Case.heal`: files with final names are whole, the same command completes, and
the workspace holds what an undisturbed run leaves.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.storage.failures import read_failures
from pipelines.storage.workspace import Workspace
from tests.faults.fault_injection import Running, read_only, small_disk, without_root_rights
from tests.faults.fault_stages import (
    CLASSES,
    CLIPS_A_CLASS,
    EXTRACT_FLOW,
    EXTRACT_FRAMES,
    PREDICT,
    TRAIN,
    Contents,
    References,
    Stage,
    checkpoint_iterations,
    contents,
    temporary_files,
    write_clip,
)

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a command to its end: exit code and what it printed."""


class NotPossibleHere(Exception):
    """This system does not let the fault be made."""


@dataclass
class Case:
    """A workspace before `stage`, on which one fault or several strike.

    files    how many names an undisturbed run is seen to write
    seconds  how long it works, its start not counted
    run      runs a command that is not to be disturbed
    options  further ones of the command
    touched  the video that a fault has changed
    """

    stage: Stage
    workspace: Path
    videos: Path
    references: References
    run: Run
    rng: random.Random
    files: int
    seconds: float
    options: tuple[str, ...] = ()
    touched: Path | None = None

    @property
    def arguments(self) -> list[str]:
        return [*self.stage.arguments(self.workspace, self.videos), *self.options]

    def start(self, wrapper: Sequence[str] = (), file_size: int | None = None) -> Running:
        return Running(self.arguments, self.workspace, wrapper=wrapper, file_size=file_size)

    def wait(self, running: Running) -> bool:
        """Until some moment at which the command is at work; False where it ended before."""
        folder = self.workspace / self.stage.folder
        if self.rng.random() < 0.5:  # just when a file appears, or soon after
            begun = running.wait_for_files(folder, self.rng.randint(1, self.files))
            time.sleep(self.rng.choice((0.0, self.rng.uniform(0, self.seconds / self.files))))
        else:
            begun = running.has_begun(self.stage.begins, folder)
            time.sleep(self.rng.uniform(0, self.seconds))
        return begun and running.is_running

    def expected(self) -> Contents:
        """What an undisturbed run leaves: here, or where the videos are no longer the same, of these."""
        if self.videos == self.references.videos:
            return contents(self.references.after(self.stage))
        undisturbed = self.workspace.with_name("undisturbed")
        if not undisturbed.exists():
            shutil.copytree(self.references.before(self.stage), undisturbed)
            code, printed = self.run(self.stage.arguments(undisturbed, self.videos))
            assert code == 0, printed
        return contents(undisturbed)

    def check_whole(self) -> None:
        """Every file with a final name is whole, and what a finished run has, it has already."""
        found, expected = contents(self.workspace), self.expected()
        for name in found.keys() & expected.keys() - {"dataset.json"}:
            if name.endswith("metrics.jsonl"):
                assert found[name] == expected[name][: len(found[name])], name
            else:
                assert found[name] == expected[name], f"{name} is not what an undisturbed run writes"

    def heal(self) -> None:
        """The same command completes, to what an undisturbed run leaves."""
        code, printed = self.run(self.arguments)
        assert code == 0, printed
        found, expected = contents(self.workspace), self.expected()
        different = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
        assert not different, f"not what an undisturbed run leaves: {different}"
        assert temporary_files(self.workspace) == []


# ------------------------------------------------------------------ ends


def kill_9(case: Case) -> bool:
    """Of the command alone, as by hand, or of all its processes, as when the power goes. False where it had ended."""
    running = case.start()
    struck = case.wait(running)
    before = checkpoint_iterations(case.workspace)
    running.send(signal.SIGKILL, to_all=case.rng.random() < 0.5)
    code = running.end()
    assert code in (0, 137), running.printed
    case.check_whole()
    if case.stage is TRAIN:
        after = checkpoint_iterations(case.workspace)
        for step, iteration in before.items():
            finished = (case.workspace / "runs/split1" / step / "weights.pt").exists()
            assert finished or after[step] >= iteration, f"a checkpoint of {step} is lost"
    return struck and code == 137


def sigterm(case: Case) -> bool:
    return _ask_to_stop(case, signal.SIGTERM, 143)


def ctrl_c(case: Case) -> bool:
    return _ask_to_stop(case, signal.SIGINT, 130)


def hang_up(case: Case) -> bool:
    """As when a terminal closes."""
    return _ask_to_stop(case, signal.SIGHUP, 129)


def _ask_to_stop(case: Case, number: int, expected: int) -> bool:
    running = case.start()
    if case.rng.random() < 0.3:
        time.sleep(case.rng.uniform(0.3, 3.0))  # amid imports
        struck = running.is_running
    else:
        struck = case.wait(running)
    running.send(number, to_all=number == signal.SIGINT or case.rng.random() < 0.5)
    code = running.end()
    assert code in (0, expected), running.printed
    assert "Traceback" not in running.printed, running.printed
    assert temporary_files(case.workspace) == []
    case.check_whole()
    return struck and code == expected


def dying_worker(case: Case) -> bool:
    """As when memory runs out. Of an extraction: its video is a row, the others are done. Of a loader: all ends."""
    if case.stage is PREDICT:
        raise NotPossibleHere("its one decoder has a test of its own")
    extracts = case.stage in EXTRACTIONS
    case.options = () if extracts else ("--workers", "2")
    running = case.start()
    struck = case.wait(running)
    workers = running.workers()
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(case.rng.choice(workers), signal.SIGKILL)
    code = running.end()
    if extracts:
        failures = read_failures(Workspace(case.workspace))
        rows = [row.reason for row in failures]
        assert code == (1 if rows else 0), running.printed
        assert all("the worker process died (killed by signal 9" in reason for reason in rows), rows
        stored = {(path.parent.name, path.stem) for path in (case.workspace / case.stage.folder).glob("*/*.h5")}
        # One that dies between storing and saying so has both, and the next run takes the row away.
        assert len(stored | {(row.class_name, row.video) for row in failures}) == len(CLASSES) * CLIPS_A_CLASS
    elif code != 0:
        assert code == 3, running.printed
        assert "a process that loads videos died" in running.printed, running.printed
    assert "Traceback" not in running.printed, running.printed
    case.check_whole()
    return struck and code != 0


# ------------------------------------------------------------------ disks


def full_disk(case: Case) -> bool:
    """A disk, or without the right to mount one a limit to the size of files, that is full at some moment."""
    with small_disk(case.workspace.with_name("disk")) as disk:
        if disk is None:
            largest = max(path.stat().st_size for path in written(case))
            running = case.start(file_size=case.rng.randrange(1, largest))
        else:
            shutil.copytree(case.workspace, disk.folder / "work")
            case.workspace = disk.folder / "work"
            room = sum(path.stat().st_blocks * 512 for path in written(case))
            disk.resize(disk.used + case.rng.randrange(4096, int(0.9 * room)) // 4096 * 4096)
            running = case.start()
        code = running.end()
        assert code == 3, running.printed
        assert re.search("the disk is full|the file would grow too large", running.printed), running.printed
        assert "Traceback" not in running.printed, running.printed
        assert temporary_files(case.workspace) == []
        case.check_whole()
        assert not (case.workspace / "failures.csv").exists(), "the full disk is no fault of a video"
        if disk is not None:
            disk.resize(2**26)
        case.heal()
    return True


def written(case: Case) -> list[Path]:
    """The files that an undisturbed run leaves and did not find."""
    before, after = case.references.before(case.stage), case.references.after(case.stage)
    files = (path for path in after.rglob("*") if path.is_file())
    return [path for path in files if not (before / path.relative_to(after)).exists()]


def read_only_workspace(case: Case) -> bool:
    """All folders of the workspace lose the permission to write at some moment."""
    wrapper = without_root_rights()
    if wrapper is None:
        raise NotPossibleHere("permissions do not bind root, and setpriv cannot take that right away")
    running = case.start(wrapper)
    struck = case.wait(running)
    with read_only(case.workspace):
        code = running.end()
    if code != 0:
        assert code == 3, running.printed
        assert "permission denied" in running.printed, running.printed
    assert "Traceback" not in running.printed, running.printed
    case.check_whole()
    assert not (case.workspace / "failures.csv").exists(), "the refusal is no fault of a video"
    return struck and code == 3


# ------------------------------------------------------------------ others that write


def second_copy(case: Case) -> bool:
    """The same command once more, begun before the first has ended. Of two trainings one is refused."""
    first = case.start()
    if case.rng.random() < 0.5:
        case.wait(first)
    struck = first.is_running
    second = case.start()
    codes = sorted((second.end(), first.end()))
    if case.stage is TRAIN and codes != [0, 0]:
        assert codes == [0, 3], first.printed + second.printed
        assert "another process is training the run split1" in first.printed + second.printed
    else:
        assert codes == [0, 0], first.printed + second.printed
    case.check_whole()
    return struck


def changing_source(case: Case) -> bool:
    """Another video takes the place of one, in one step or written over it."""

    def change(video: Path) -> None:
        other = write_clip(case.workspace.with_name(f"other{video.suffix}"), CLASSES[0], (9, 9))
        if case.rng.random() < 0.5:
            other.replace(video)
        else:
            video.write_bytes(other.read_bytes())

    return _touch_a_source(case, change)


def vanishing_source(case: Case) -> bool:
    """A video is gone, and is back before the command is run again."""
    kept = case.workspace.with_name("kept")
    struck = _touch_a_source(case, lambda video: video.rename(kept))
    kept.rename(case.touched)
    return struck


def _touch_a_source(case: Case, touch: Callable[[Path], object]) -> bool:
    if case.stage not in EXTRACTIONS:
        raise NotPossibleHere("this command stores nothing made of videos alone")
    case.videos = Path(shutil.copytree(case.videos, case.workspace.with_name("videos")))
    running = case.start()
    struck = case.wait(running)
    case.touched = case.rng.choice(sorted(case.videos.glob("*/*")))
    touch(case.touched)
    code = running.end()
    rows = read_failures(Workspace(case.workspace))
    assert code == (1 if rows else 0), running.printed
    assert {Path(row.path) for row in rows} <= {case.touched}
    contents(case.workspace)
    return struck


EXTRACTIONS = (EXTRACT_FRAMES, EXTRACT_FLOW)
FAULTS: dict[str, Callable[[Case], bool]] = {
    "kill -9": kill_9,
    "SIGTERM": sigterm,
    "Ctrl-C": ctrl_c,
    "SIGHUP": hang_up,
    "full disk": full_disk,
    "read-only workspace": read_only_workspace,
    "second copy": second_copy,
    "dying worker": dying_worker,
    "changing source": changing_source,
    "vanishing source": vanishing_source,
}
"""Each returns whether it struck a command at work; where not, it had ended before."""
