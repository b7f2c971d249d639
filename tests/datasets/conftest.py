"""A workspace of small artifacts, written by the artifact writers themselves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.workspace import Workspace

AddVideo = Callable[..., None]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "work")
    workspace.root.mkdir(parents=True, exist_ok=True)
    return workspace


@pytest.fixture
def add_video(workspace: Workspace) -> AddVideo:
    """Adds `class/video`: frame t is gray with value 4t (with a bright left half), field f is all x = f, y = 100 + f,
    so that a pixel tells which frame or field it came from. `frames=None` or `flow=None` leaves that artifact out."""

    def add(
        class_name: str,
        video: str,
        frames: int | None = 20,
        *,
        flow: dict[str, Any] | None = {},  # noqa: B006 (never changed)
        size: tuple[int, int] = (32, 40),
        flow_size: tuple[int, int] | None = None,
        step: int = 1,
        **attributes: Any,
    ) -> None:
        length = attributes.pop("length", frames or 20)
        height, width = size
        about = {
            "fps": 25.0,
            "source": f"/videos/{class_name}/{video}.avi",
            "source_sha256": f"{class_name}-{video}",
            "source_frames": length,
            "short_side": min(size),
            "width": width,
            "height": height,
            **attributes,
        }
        if frames is not None:
            with new_frames_file(workspace.frames_file(class_name, video)) as writer:
                for t in range(length):
                    picture = np.full((height, width, 3), 4 * t % 200, dtype=np.uint8)
                    picture[:, : width // 2] += 50
                    writer.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
                writer.finish(about)
        if flow is not None:
            with new_flow_file(workspace.flow_file(class_name, video)) as writer:
                numbers = np.arange(length - step)
                fields = np.stack([numbers, 100 + numbers], axis=1).astype(np.uint8)
                writer.append(np.broadcast_to(fields[:, :, None, None], (*fields.shape, *(flow_size or size))))
                settings = {"method": "tvl1", "method_parameters": json.dumps({"tau": 0.25}), "bound": 20.0}
                writer.finish({**about, **settings, "step": step, "flow_input": "video", **flow})

    return add
