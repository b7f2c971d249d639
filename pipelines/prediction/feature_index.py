"""`features.json`, which lists the features of a folder, and what `extract-features` finds there of earlier calls."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.datasets.catalogue import artifact_paths
from pipelines.jobs.resume import Division
from pipelines.prediction.features import FEATURES_SCHEMA, FeatureSettings, FeatureTask
from pipelines.runtime.parallel_map import parallel_map
from pipelines.runtime.progress import OnProgress
from pipelines.storage.atomic import write_json
from pipelines.storage.hdf5 import peek_if_sound
from pipelines.storage.provenance import made_by
from pipelines.storage.typed_json import first_difference

INDEX_SCHEMA = "stres/feature-index/1"
_LISTED = (
    *("rows", "source", "source_sha256", "source_frames", "fps", "duration", "truncated", "damaged_frames"),
    *("settings", "channels"),
)


def write_index(folder: Path, settings: FeatureSettings, on_progress: OnProgress) -> dict[str, int]:
    """Writes `features.json`: the settings, and of each video in `folder` what it was made from. Returns the number of
    channels of each stream."""
    paths = list(artifact_paths(folder))
    listed = functools.partial(peek_if_sound, schema=FEATURES_SCHEMA, names=_LISTED)
    found = parallel_map(listed, paths, "extract-features (what was made)", on_progress)
    videos = {
        f"{path.parent.name}/{path.stem}": row
        for path, row in zip(paths, found, strict=True)
        if isinstance(row, dict) and not settings_difference(settings.document(), row)
    }
    if not videos:
        return {}
    channels: dict[str, int] = json.loads(next(iter(videos.values()))["channels"])
    for row in videos.values():
        del row["schema"], row["settings"], row["channels"]
    about = made_by(INDEX_SCHEMA, "av", "numpy", "opencv", "torch")
    about |= {"settings": settings.document(), "channels": channels, "videos": videos}
    write_json(folder / "features.json", about)
    return channels


def with_lost_arrays(division: Division[FeatureTask]) -> Division[FeatureTask]:
    """Those whose .npy is gone are to do."""
    kept = [task for task in division.done if task.array.exists()]
    lost = [task for task in division.done if not task.array.exists()]
    return Division([*division.to_do, *lost], kept, division.problems, division.changed)


def settings_difference(wanted: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """The first difference between the settings that features were made with and those that are wanted, in words."""
    try:
        made = json.loads(attributes.get("settings", "{}"))
    except ValueError:
        made = {}
    return first_difference(made, wanted, "settings")
