"""Python and packages: whether their versions are those that stres needs, and whether they can be imported."""

import importlib
import platform
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipelines.diagnosis.check import Check, Place, can_import, failure, in_words, ok, pip_install, warning

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
    needed = sorted(filter(_applies, asked), key=lambda each: each.name)
    version = platform.python_version()
    found, values = f"{version} ({sys.executable})", {"version": version, "wanted": str(python)}
    if python.contains(version, prereleases=True):
        interpreter = ok("python", found, **values)
    else:
        fix = f"install a Python {python}, and stres into it"
        interpreter = failure("python", f"{found}, but stres needs {python}", fix, **values)
    return [
        interpreter,
        *map(_check_package, needed),
        *_check_opencv(),
        *_check_torchvision(),
        *_check_extras(asked),
    ]


def _applies(asked: Requirement, extra: str = "") -> bool:
    """Whether this machine needs the package, for `extra` or without any."""
    return asked.marker is None or asked.marker.evaluate({"extra": extra})


def _accepts(asked: Requirement, version: str) -> bool:
    return asked.specifier.contains(version, prereleases=True)


def _check_package(asked: Requirement) -> Check:
    candidates = (asked.name, *_ALTERNATIVES.get(asked.name, ()))
    name, version = next(((each, found) for each in candidates if (found := _version(each))), (asked.name, None))
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
        return failure(
            asked.name, f"{version}, but `import {module}` fails: {in_words(error)}", _fix_import(name, error)
        )
    return ok(asked.name, f"{version} ({wanted})" if name == asked.name else f"{version} ({name})", **values)


def _fix_import(name: str, error: BaseException) -> str:
    text = str(error)
    if "libGL" in text or "libgthread" in text or "libxcb" in text:
        return f"apt-get install libgl1 libglib2.0-0, or {pip_install('--force-reinstall', f'{name}-headless')}"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in (name, "cv2"):
        return pip_install("--force-reinstall", name, error.name.partition(".")[0])
    return pip_install("--force-reinstall", name)


def _check_opencv() -> list[Check]:
    """Several packages install the same folder `cv2`: the last one installed overwrites part of the others."""
    installed = [name for name in _OPENCVS if _version(name)]
    if len(installed) < 2:
        return []
    fix = f"{sys.executable} -m pip uninstall -y {' '.join(installed)} && {pip_install('opencv-contrib-python')}"
    found = f"{' and '.join(installed)} are both installed, and overwrite each other's files"
    try:
        import cv2

        usable = hasattr(cv2, "calcOpticalFlowFarneback") and hasattr(cv2, "DISOpticalFlow_create")
        usable = usable and hasattr(cv2.optflow, "DualTVL1OpticalFlow_create")
    except Exception:
        usable = False
    return [(warning if usable else failure)("opencv packages", found, fix, installed=installed)]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_torchvision() -> list[Check]:
    """One built for another torch may import, but its compiled operators do not load."""
    fix = pip_install("--force-reinstall", "torch", "torchvision")
    if not can_import("torch", "torchvision"):  # which registers its operators
        return []
    import torch

    try:
        asked = [Requirement(text) for text in metadata.requires("torchvision") or ()]
        wanted = next((each for each in asked if each.name == "torch"), None)
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
    """Optional packages may be absent, but not outdated."""
    checks = []
    extras = set(metadata.metadata(_US).get_all("Provides-Extra") or ()) - _FOR_CONTRIBUTORS
    for extra in sorted(extras):
        members = [each for each in asked if _applies(each, extra) and not _applies(each)]
        if not members:
            continue
        versions = {each.name: _version(each.name) for each in members}
        old = [each for each in members if (version := versions[each.name]) and not _accepts(each, version)]
        # Not `stres[...]`: it is installed from a checkout, and the package index has none.
        subject, fix = f"extra {extra}", pip_install(*(f"{each.name}{each.specifier}" for each in members))
        listed = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
        if old:
            checks.append(
                warning(subject, f"{listed}; too old: {', '.join(each.name for each in old)}", fix, **versions)
            )
        else:
            absent = None in versions.values()
            checks.append(ok(subject, listed + (f" (optional: {fix})" if absent else ""), **versions))
    return checks
