"""Python and the packages: their versions against those that stres asks for, and whether they can be imported."""

import importlib
import platform
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipelines.diagnosis.check import Check, Place, failure, in_words, ok, pip_install, warning

_US = "stres"
_FOR_CONTRIBUTORS = {"dev", "docs"}  # extras
_MODULES = {"opencv-contrib-python": "cv2", "pillow": "PIL", "scikit-learn": "sklearn"}  # modules of other names
# Servers without a display use the one without windows: the same functions under another name.
_ALTERNATIVES = {"opencv-contrib-python": ("opencv-contrib-python-headless",)}
_OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def check(place: Place) -> list[Check]:
    try:
        asked = [Requirement(text) for text in metadata.requires(_US) or ()]
        python = SpecifierSet(metadata.metadata(_US)["Requires-Python"] or "")
    except metadata.PackageNotFoundError:
        found = "stres itself is not installed as a package: the versions it asks for are not known"
        return [warning("packages", found, pip_install("."))]
    needed = sorted((one for one in asked if _applies(one)), key=lambda one: one.name)
    return [
        _check_python(python),
        *(_check_package(one) for one in needed),
        *_check_opencv(),
        *_check_torchvision(),
        *_check_extras(asked),
    ]


def _applies(asked: Requirement, extra: str = "") -> bool:
    """Whether this machine needs the package, for `extra` or without any."""
    return asked.marker is None or asked.marker.evaluate({"extra": extra})


def _accepts(asked: Requirement, version: str) -> bool:
    return asked.specifier.contains(version, prereleases=True)


def _check_python(wanted: SpecifierSet) -> Check:
    version = platform.python_version()
    found, values = f"{version} ({sys.executable})", {"version": version, "wanted": str(wanted)}
    if not wanted.contains(version, prereleases=True):
        fix = f"install a Python {wanted}, and stres into it"
        return failure("python", f"{found}, but stres needs {wanted}", fix, **values)
    return ok("python", found, **values)


def _check_package(asked: Requirement) -> Check:
    name, version = _installed(asked.name)
    wanted = str(asked.specifier)
    values = {"version": version, "wanted": wanted}
    fix = pip_install(f"{asked.name}{wanted}")
    if version is None:
        return failure(asked.name, f"not installed; stres needs {wanted}", fix, **values)
    if not _accepts(asked, version):
        return failure(asked.name, f"{version}, but stres needs {wanted}", fix, **values)
    module = _MODULES.get(asked.name, asked.name)
    try:
        importlib.import_module(module)
    except BaseException as error:  # a broken library may raise anything
        return failure(asked.name, f"{version}, but `import {module}` fails: {in_words(error)}", _mend(name, error))
    return ok(asked.name, f"{version} ({wanted})" if name == asked.name else f"{version} ({name})", **values)


def _installed(name: str) -> tuple[str, str | None]:
    """The distribution that stands for `name`, and its version."""
    for candidate in (name, *_ALTERNATIVES.get(name, ())):
        try:
            return candidate, metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return name, None


def _mend(name: str, error: BaseException) -> str:
    text = str(error)
    if "libGL" in text or "libgthread" in text or "libxcb" in text:
        return f"apt-get install libgl1 libglib2.0-0, or {pip_install('--force-reinstall', f'{name}-headless')}"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in (name, "cv2"):
        return pip_install("--force-reinstall", name, error.name.partition(".")[0])
    return pip_install("--force-reinstall", name)


def _check_opencv() -> list[Check]:
    """Several packages hold the same folder `cv2`: what was installed last overwrites the rest in part."""
    installed = [name for name in _OPENCVS if _version(name)]
    if len(installed) < 2:
        return []
    fix = f"{sys.executable} -m pip uninstall -y {' '.join(installed)} && {pip_install('opencv-contrib-python')}"
    found = f"{' and '.join(installed)} are both installed, and overwrite each other's files"
    return [(warning if _has_flow_functions() else failure)("opencv packages", found, fix, installed=installed)]


def _has_flow_functions() -> bool:
    try:
        import cv2

        return all(
            hasattr(holder, name)
            for holder, name in (
                (cv2, "calcOpticalFlowFarneback"),
                (cv2, "DISOpticalFlow_create"),
                (cv2.optflow, "DualTVL1OpticalFlow_create"),
            )
        )
    except Exception:
        return False


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_torchvision() -> list[Check]:
    """Made for another torch, it imports or not, but its compiled operators do not load."""
    fix = pip_install("--force-reinstall", "torch", "torchvision")
    try:
        import torch
        import torchvision  # noqa: F401  (registers its operators)
    except BaseException:  # told by its own line
        return []
    try:
        asked = [Requirement(text) for text in metadata.requires("torchvision") or ()]
        wanted = next((one for one in asked if one.name == "torch"), None)
        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [8.0, 8.0, 9.0, 9.0]])
        kept = torch.ops.torchvision.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    except Exception as error:
        return [failure("torchvision operators", f"torchvision::nms does not run: {in_words(error)}", fix)]
    if kept != [0, 2]:
        return [failure("torchvision operators", f"torchvision::nms keeps the boxes {kept}, not [0, 2]", fix)]
    if wanted is not None and not _accepts(wanted, torch.__version__):
        found = f"torchvision is made for torch {wanted.specifier}, and torch is {torch.__version__}"
        return [warning("torchvision operators", found, fix)]
    return [ok("torchvision operators", "torchvision::nms loads and runs")]


def _check_extras(asked: list[Requirement]) -> list[Check]:
    """Optional packages may be absent, but not too old."""
    checks = []
    extras = set(metadata.metadata(_US).get_all("Provides-Extra") or ()) - _FOR_CONTRIBUTORS
    for extra in sorted(extras):
        members = [one for one in asked if _applies(one, extra) and not _applies(one)]
        if not members:
            continue
        versions = {one.name: _version(one.name) for one in members}
        old = [one for one in members if (version := versions[one.name]) and not _accepts(one, version)]
        subject, fix = f"extra {extra}", pip_install(f"{_US}[{extra}]")
        listed = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
        if old:
            checks.append(warning(subject, f"{listed}; too old: {', '.join(one.name for one in old)}", fix, **versions))
        else:
            absent = None in versions.values()
            checks.append(ok(subject, listed + (f" (optional: {fix})" if absent else ""), **versions))
    return checks
