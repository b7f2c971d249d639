"""Commands as processes that can be watched, struck and looked at afterwards."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.helpers.processes import Patience, processes_of

_REPOSITORY = Path(__file__).resolve().parents[2]  # whose code is to run, whatever is installed
_POLL = 0.001  # seconds; a temporary file of these clips lives for some milliseconds
_PATIENCE = 600.0  # seconds a command may take, as `Patience` counts them
_CAP_DAC_OVERRIDE = "dac_override"


class Running:
    """`python -m stres_cli ...` in a session of its own; what it prints goes into a file beside its workspace."""

    def __init__(
        self, arguments: Sequence[str], workspace: Path, *, wrapper: Sequence[str] = (), file_size: int | None = None
    ) -> None:
        """`file_size`: the most bytes a file of it may have (RLIMIT_FSIZE)."""
        self.workspace = workspace
        self.output = workspace.with_name(f"{workspace.name}.{time.monotonic_ns()}.log")
        env = {name: value for name, value in os.environ.items() if not name.startswith("STRES_")}
        limit = None if file_size is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "stres_cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
                cwd=_REPOSITORY,
                preexec_fn=limit,
            )

    @property
    def printed(self) -> str:
        return self.output.read_text()

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, moment: Callable[[], object]) -> bool:
        """Until `moment()` is true; False where the command ends before."""
        patience = Patience(self.process.pid, _PATIENCE)
        while self.is_running:
            if moment():
                return True
            assert not patience.is_at_an_end(), f"the moment does not come:\n{self.printed}"
            time.sleep(_POLL)
        return False

    def wait_for_files(self, folder: Path, count: int) -> bool:
        """Until so many files have appeared below `folder`, under temporary names or final ones."""
        seen: set[str] = set(_files(folder))
        before = len(seen)

        def moment() -> bool:
            seen.update(_files(folder))
            return len(seen) - before >= count

        return self.wait_for(moment)

    def has_begun(self, line: str, folder: Path) -> bool:
        """Until it prints a line that begins so, or without one until a file appears below `folder`."""
        if not line:
            return self.wait_for_files(folder, 1)
        return self.wait_for(lambda: any(text.startswith(line) for text in self.printed.splitlines()))

    def send(self, number: int, *, to_all: bool = False) -> None:
        """The signal, to the command or to all of its processes, as a terminal's Ctrl-C and batch systems send it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number) if to_all else self.process.send_signal(number)

    def end(self) -> int:
        """Waits for the command and all its processes; the exit code as a shell gives it: 128 + n after signal n."""
        try:
            patience = Patience(self.process.pid, _PATIENCE)
            while (code := self.process.poll()) is None:
                assert not patience.is_at_an_end(), f"the command does not end:\n{self.printed}"
                time.sleep(0.01)
            patience = Patience(self.process.pid, _PATIENCE)
            while processes_of(self.process.pid):
                assert not patience.is_at_an_end(), "processes outlive their command"
                time.sleep(0.05)  # each look goes through all processes of the machine
        finally:
            self.send(signal.SIGKILL, to_all=True)
        return 128 - code if code < 0 else code

    def workers(self) -> list[int]:
        """The processes that do the work: children of the fork server."""
        mine = processes_of(self.process.pid)
        return [pid for pid, of in mine.items() if of.parent in mine and of.parent != self.process.pid]


def run(arguments: Sequence[str], workspace: Path) -> tuple[int, str]:
    """Runs the command to its end: exit code and what it printed."""
    running = Running(arguments, workspace)
    return running.end(), running.printed


def _files(folder: Path) -> Iterator[str]:
    """Names below `folder`, of which a temporary file's changes when it becomes final: both count."""
    for parent, _, names in os.walk(folder):
        yield from (f"{parent}/{name}" for name in names)


# ------------------------------------------------------------------ disks


class Disk:
    """A small file system of its own, which can be full and be read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, size: int) -> None:
        self._remount(f"size={max(size, 4096)}")

    @property
    def used(self) -> int:
        return shutil.disk_usage(self.folder).used

    def make_read_only(self) -> bool:
        """False where a file is being written: then the system refuses."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._remount("ro")
            return True
        return False

    def make_writable(self) -> None:
        self._remount("rw")

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True, capture_output=True, timeout=300)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk | None]:
    """A tmpfs; None where the system lets nobody mount one (no root, a container without the capability)."""
    folder.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "stres-faults", folder],
            check=False,
            capture_output=True,
            timeout=300,
        ).returncode
    )
    try:
        yield Disk(folder) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True, timeout=300)


def without_root_rights() -> list[str] | None:
    """What to put before a command so that permissions bind it; None where that cannot be done."""
    if os.geteuid() != 0:
        return []
    drop = ["setpriv", f"--bounding-set=-{_CAP_DAC_OVERRIDE}", f"--inh-caps=-{_CAP_DAC_OVERRIDE}"]
    if (
        shutil.which("setpriv")
        and not subprocess.run([*drop, "true"], check=False, capture_output=True, timeout=300).returncode
    ):
        return drop
    return None


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Takes away the permission to write into `folder` and all folders in it."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)
    try:
        yield
    finally:
        for each in folders:
            each.chmod(0o755)
