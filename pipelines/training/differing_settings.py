"""In which settings several runs differ, in words."""

from collections.abc import Mapping
from typing import Any

from pipelines.interface.wording import setting
from pipelines.training.run_config import RunConfig, compared

_SHOWN_ELSEWHERE = ("split", "split_set", "train_videos", "classes")


def differing_settings(configs: Mapping[str, RunConfig]) -> dict[str, dict[str, str]]:
    """The settings of each run that are not the same in all, by the run's name.

    What the split decides is left out, and so are versions of programs and hashes. A setting of a step is compared
    among the runs that have the step; its value is one for all steps that share it (`lr`), or `step=value` for each.
    """
    flat = {name: _flat(config) for name, config in configs.items()}
    values: dict[str, set[str]] = {}
    for settings in flat.values():
        for key, value in settings.items():
            values.setdefault(key, set()).add(value)
    steps = {key for key in values if key.startswith("steps.")}
    lacking = {key for key in values.keys() - steps if any(key not in settings for settings in flat.values())}
    differing = {key for key, found in values.items() if len(found) > 1} | lacking
    found: dict[str, dict[str, str]] = {}
    for name, settings in flat.items():
        found[name] = {
            key.removeprefix("network.").replace(".", " ").replace("_", " "): settings.get(key, "none")
            for key in sorted(differing - steps)
        }
        of_steps: dict[str, dict[str, str]] = {}
        for key in sorted(differing & steps & settings.keys()):
            _, step, what = key.split(".", 2)
            of_steps.setdefault(what.replace(".", " ").replace("_", " "), {})[step] = settings[key]
        for what, by_step in of_steps.items():
            together = set(by_step.values())
            found[name][what] = (
                together.pop()
                if len(together) == 1 and len(by_step) > 1
                else ",".join(f"{step}={value}" for step, value in by_step.items())
            )
    asked = {name: tuple(config.steps) for name, config in configs.items()}
    if len(set(asked.values())) > 1:
        for name, of_run in asked.items():
            found[name]["steps"] = ",".join(of_run)
    return found


def _flat(config: RunConfig) -> dict[str, str]:
    """The settings by their path, `steps.motion.lr`, in words."""
    found: dict[str, str] = {}

    def add(value: Any, path: str) -> None:
        name = path.rpartition(".")[2]
        if isinstance(value, dict):
            for key, item in value.items():
                add(item, f"{path}.{key}" if path else key)
        elif name not in ("name", "num_classes") and not name.endswith("sha256"):
            found[path] = setting(value)

    document = compared(config.to_json(defaults=True))
    for name in ("schema", *_SHOWN_ELSEWHERE):
        document.pop(name, None)
    document["base_run"] = config.base_run.name if config.base_run else None
    document["size"] = "x".join(map(str, config.size))  # as the option takes it
    add(document, "")
    return found
