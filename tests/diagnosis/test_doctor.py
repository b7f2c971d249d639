"""`doctor` on this machine, and on one that is made to look broken: every fault is a line with its fix."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from pipelines import doctor
from pipelines.diagnosis import gpu, machine, packages, speed, storage
from pipelines.diagnosis.check import Check, Place
from stres_cli.app import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "work")


@pytest.fixture
def only(monkeypatch):
    """`only("machine")`: these subjects alone are looked at."""

    def choose(*subjects: str) -> None:
        monkeypatch.setattr(doctor, "SUBJECTS", {name: doctor.SUBJECTS[name] for name in subjects})

    return choose


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """`stub("cv2", "raise ...")`: a module that stands before the real one, also in the processes started from here."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return lambda name, code: (folder / f"{name}.py").write_text(code)


def named(checks: list[Check], subject: str) -> Check:
    (check,) = (check for check in checks if check.subject == subject)
    return check


# ------------------------------------------------------------------ all of it


def test_a_broken_library_is_a_line_with_its_fix_and_the_rest_is_measured(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    command = [sys.executable, "-m", "stres_cli", "doctor", "--json", "-w", str(tmp_path / "work"), "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=env)

    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    lines = {check["subject"]: check for checks in document["checks"].values() for check in checks}
    broken = [check for check in lines.values() if check["status"] == "failure"]
    assert (done.returncode, document["failures"]) == (3, 1)
    assert [check["subject"] for check in broken] == ["torchvision"]
    assert "RuntimeError: operator torchvision::nms does not exist" in broken[0]["found"]
    assert "pip install --force-reinstall torchvision" in broken[0]["fix"]
    assert lines["flow"]["values"]["pairs_per_second"] > 0
    hours = speed.UCF101_FIELDS / lines["flow"]["values"]["pairs_per_second"] / 3600
    assert lines["flow"]["values"]["hours_for_ucf101"] == pytest.approx(hours)
    assert {"MPEG-4", "H.264"} <= set(lines["decoders"]["values"]["decoded"])
    assert lines["HDF5 filters"]["found"] == "zstd and gzip: written and read by two worker processes"
    assert lines["Numba cache"]["status"] == "ok"
    assert list(tmp_path.iterdir()) == [tmp_path / "torchvision.py"]  # nothing is left behind, and no workspace made


def test_a_healthy_machine_gives_0_and_plain_lines(only, tmp_path):
    only("machine")

    shown = CliRunner().invoke(app, ["doctor", "-w", str(tmp_path)])

    assert shown.exit_code == 0
    heading, *lines, summary = shown.stdout.splitlines()
    assert heading == "Machine"
    assert all(line.startswith(("  ok    ", "  warn  ", "        ")) for line in lines)
    assert any(line.split()[:2] == ["ok", "system"] for line in lines)
    assert summary.startswith("0 failures, ")
    assert summary.endswith("; next: stres demo")


def test_workers_that_cannot_start_are_a_line(only, stub, place):
    only("storage")
    stub("cv2", "raise ImportError('no cv2 here')")

    check = named(doctor.run(doctor.Config(place.workspace)).checks["Workspace"], "HDF5 filters")

    assert check.status == "failure"
    assert "worker processes cannot start" in check.found


def test_a_library_that_ends_the_process_takes_only_its_subject_with_it(only, stub, place):
    only("decoders", "machine")
    stub("av", "import os, sys; sys.stderr.write('Illegal instruction\\n'); os.abort()")

    (decoders,), rest = doctor.run(doctor.Config(place.workspace)).checks.values()

    assert decoders.status == "failure"
    assert decoders.found == "checking it ends the process (killed by signal 6): Illegal instruction"
    assert named(rest, "system").status == "ok"


def test_a_subject_that_hangs_is_given_up(only, stub, place, monkeypatch):
    only("decoders")
    stub("av", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_PATIENCE", 1.0)

    ((check,),) = doctor.run(doctor.Config(place.workspace)).checks.values()

    assert check.status == "failure"
    assert "takes longer than 1 s" in check.found


# ------------------------------------------------------------------ packages


def test_what_is_needed_always_and_what_for_an_extra_are_told_apart():
    asked = [Requirement(text) for text in metadata.requires("stres") or ()]

    assert {"torch", "opencv-contrib-python", "numba"} <= {one.name for one in asked if packages._applies(one)}
    assert not {"onnx", "pytest"} & {one.name for one in asked if packages._applies(one)}
    assert "onnx" in {one.name for one in asked if packages._applies(one, "export")}


@pytest.mark.parametrize(
    ("requirement", "accepted", "refused"),
    [
        ("torch>=2.11", ("2.11", "2.11.0+cu130", "2.12.0a0", "3"), ("2.9.1", "2.10.0+cpu", "2.11.0rc1")),
        ("torch (==2.11.0)", ("2.11.0+cu130", "2.11"), ("2.11.1", "2.12")),
        ("pillow (!=8.3.*,>=5.3.0)", ("8.4", "11"), ("5.2", "8.3.1")),
        ("onnx<2,>=1.17; extra == 'export'", ("1.17", "1.99"), ("2.0", "1.9")),
        ("onnx~=2.1", ("2.1", "2.9"), ("1.0", "3.0")),
    ],
)
def test_versions_are_compared_as_pip_does(requirement, accepted, refused):
    asked = Requirement(requirement)

    assert all(packages._accepts(asked, version) for version in accepted)
    assert not any(packages._accepts(asked, version) for version in refused)


def with_versions(monkeypatch, **versions: str | None) -> None:
    """Makes distributions (`_` for `-`) look installed in these versions, or not at all."""
    real = metadata.version
    given = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(name: str) -> str:
        found = given.get(name, "real")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return real(name) if found == "real" else found

    monkeypatch.setattr(packages.metadata, "version", version)


def look_at(requirement: str) -> Check:
    return packages._check_package(Requirement(requirement))


def test_an_old_or_missing_package_is_named_with_what_to_install(monkeypatch):
    with_versions(monkeypatch, av="9.0", jinja2=None, onnx="1.2")

    (extra,) = packages._check_extras([Requirement("onnx>=1.17; extra == 'export'")])

    assert look_at("av>=14.0").found == "9.0, but stres needs >=14.0"
    assert look_at("av>=14.0").fix.endswith("-m pip install 'av>=14.0'")
    assert look_at("jinja2>=3.1").found == "not installed; stres needs >=3.1"
    assert (extra.status, extra.found) == ("warning", "onnx 1.2; too old: onnx")
    assert extra.fix.endswith("-m pip install 'onnx>=1.17'")


RAISED = {
    "av": (ImportError("libavcodec.so.62: cannot open shared object file"), "--force-reinstall av"),
    "h5py": (SystemExit(1), "--force-reinstall h5py"),
    "scikit-learn": (ModuleNotFoundError("No module named 'scipy'", name="scipy.sparse"), "scikit-learn scipy"),
    "opencv-contrib-python": (ImportError("libGL.so.1: cannot open shared object file"), "apt-get install libgl1"),
}


@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_library_raises_is_told_with_what_mends_it(monkeypatch, name):
    error, fix = RAISED[name]

    def fail(module: str) -> None:
        raise error

    monkeypatch.setattr(packages.importlib, "import_module", fail)

    check = look_at(f"{name}>=0.1")

    assert check.status == "failure"
    assert f"fails: {type(error).__name__}: {error}" in check.found
    assert fix in check.fix


def test_opencv_without_windows_stands_for_the_other(monkeypatch):
    with_versions(monkeypatch, opencv_contrib_python=None, opencv_contrib_python_headless="4.11.0")

    assert look_at("opencv-contrib-python>=4.10").found == "4.11.0 (opencv-contrib-python-headless)"


def test_two_opencvs_are_a_warning_and_without_their_functions_a_failure(monkeypatch):
    import cv2

    with_versions(monkeypatch, opencv_python="4.11.0", opencv_contrib_python="4.11.0")
    (both,) = packages._check_opencv()
    monkeypatch.delattr(cv2, "DISOpticalFlow_create")
    (broken,) = packages._check_opencv()

    assert (both.status, broken.status) == ("warning", "failure")
    assert "pip uninstall -y opencv-python opencv-contrib-python && " in both.fix


def test_torchvision_for_another_torch_is_noticed(monkeypatch):
    real = metadata.requires
    monkeypatch.setattr(
        packages.metadata, "requires", lambda name: ["torch==1.0"] if name == "torchvision" else real(name)
    )

    (check,) = packages._check_torchvision()

    assert check.status == "warning"
    assert "torchvision is made for torch ==1.0" in check.found


# ------------------------------------------------------------------ the machine


def test_a_container_with_less_time_than_cores(monkeypatch, place):
    monkeypatch.setattr(machine, "available_cores", lambda: 64)
    texts = {"/sys/fs/cgroup/cpu.max": "250000 100000\n"}
    monkeypatch.setattr(machine, "_text", lambda path: texts.get(path, ""))

    check = named(machine.check(place), "cores")

    assert check.status == "warning"
    assert check.values["quota"] == 2.5
    assert "--workers 2" in check.fix
    texts["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    assert machine.cpu_quota() is None


def test_memory_is_that_of_the_container(monkeypatch, place):
    monkeypatch.setattr(machine, "available_cores", lambda: 4)
    texts = {
        "/proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable:   32000000 kB\n",
        "/sys/fs/cgroup/memory.max": "3000000000\n",
        "/sys/fs/cgroup/memory.current": "1500000000\n",
    }
    monkeypatch.setattr(machine, "_text", lambda path: texts.get(path, ""))

    check = named(machine.check(place), "memory")

    assert (check.status, check.values["free_bytes"], check.fix) == ("warning", 1_500_000_000, "give --workers 2")


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [("OMP_WAIT_POLICY", "active", "unset OMP_WAIT_POLICY"), ("OMP_NUM_THREADS", "4096", "export OMP_NUM_THREADS=")],
)
def test_threads_that_stand_in_each_others_way(monkeypatch, place, variable, value, fix):
    monkeypatch.setenv(variable, value)

    check = named(machine.check(place), "threads")

    assert check.status == "warning"
    assert fix in check.fix


def test_limits_that_are_too_low(monkeypatch, place):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda kind: (256, 100_000))
    monkeypatch.setattr(machine, "_SHARED_MEMORY", 10**18)

    found = machine.check(place)

    assert named(found, "open files").fix == "ulimit -n 4096"
    assert named(found, "shared memory").status == "warning"


# ------------------------------------------------------------------ the workspace


def test_a_disk_that_is_nearly_full(monkeypatch, place):
    for free, status in ((10**8, "failure"), (10**10, "warning"), (10**12, "ok")):
        usage = shutil.disk_usage(place.folder)._replace(free=free)
        monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder, usage=usage: usage)
        assert storage._check_space(place).status == status


def test_a_disk_without_inodes(monkeypatch, place):
    for free, status in ((0, "failure"), (1000, "warning"), (10**6, "ok")):
        found = type("Status", (), {"f_files": 10**7, "f_favail": free})
        monkeypatch.setattr(storage.os, "statvfs", lambda folder, found=found: found)
        assert storage._check_files(place).status == status


def test_a_workspace_that_cannot_be_written_to(monkeypatch, place):
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    (check,) = storage.check(place)

    assert check.status == "failure"
    assert str(place.folder) in check.found


def test_a_plugin_path_is_pointed_out(monkeypatch):
    monkeypatch.setenv("HDF5_PLUGIN_PATH", "/somewhere")

    assert storage._check_plugin_path().fix == "unset HDF5_PLUGIN_PATH"


# ------------------------------------------------------------------ GPU and flow


@pytest.mark.parametrize(
    ("driver", "built_for", "status", "found"),
    [
        ("", "13.0", "ok", "everything runs on the CPU"),
        ("580.1", None, "warning", "built for the CPU only"),
        ("580.1", "13.0", "warning", r"torch (CUDA 13.0) sees no GPU"),
    ],
)
def test_without_a_gpu_it_depends_on_whether_there_should_be_one(driver, built_for, status, found):
    check = gpu._without(built_for, driver)

    assert check.status == status
    assert found in check.found


def test_a_gpu_without_a_compiler_is_a_failure_that_says_what_it_costs(monkeypatch):
    monkeypatch.setattr("pipelines.runtime.devices.importlib.util.find_spec", lambda name: True)
    assert gpu._check_compiler().status == "ok"
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    check = gpu._check_compiler()
    assert check.status == "failure"
    assert "without a compiler (gcc or clang" in check.found
    assert "gcc" in check.fix


@pytest.mark.cuda
def test_a_gpu_computes(place):
    check = named(gpu.check(place), "GPU 0")

    assert check.status == "ok"
    assert check.values["total_bytes"] > 10**9


def test_a_device_that_is_not_there_and_a_jit_that_is_off_are_failures(monkeypatch, tmp_path):
    importlib.import_module("numba")  # it reads the variable once: later tests in this process want it unset
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")

    cache, flow = speed.check(Place(tmp_path, "cuda:99"))

    assert (cache.status, flow.status) == ("failure", "failure")
    assert cache.fix == "unset NUMBA_DISABLE_JIT"
    assert "--device cuda:99" in flow.found


def test_without_a_folder_for_compiled_kernels_it_says_how_to_name_one(monkeypatch):
    from pipelines.optical_flow.tvl1 import compilation

    monkeypatch.setattr(compilation, "cache_folder", lambda: None)

    check = speed._check_cache()

    assert check.status == "warning"
    assert "export NUMBA_CACHE_DIR=" in check.fix


def test_the_number_of_ucf101s_fields_is_that_of_its_frame_counts():
    counts = ROOT.parent / "shared/data/splits/ucf101_frame_counts.csv"
    if not counts.is_file():
        pytest.skip("no ../shared/data")
    _, *rows = counts.read_text().splitlines()

    assert sum(int(row.rpartition(",")[2]) for row in rows) == speed.UCF101_FIELDS
