"""What the report says of how a run was trained."""

from pathlib import Path

from pipelines.reporting.training_log import findings, read_configurations, read_curves
from pipelines.storage.atomic import write_json
from pipelines.storage.workspace import Workspace


def test_a_step_that_does_not_learn_is_named_with_its_run(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    line = '{"step": "motion", "iteration": %d, "loss": 0.6, "summed_loss": 0.6, "motion_accuracy": 0.5, '
    line += '"videos": 320, "updates": 10}\n'
    (workspace.runs / "flat").mkdir(parents=True)
    (workspace.runs / "flat" / "metrics.jsonl").write_text("".join(line % (10 * number) for number in range(1, 7)))
    split = {"number": 1, "train": ["a/1", "b/1"], "test": [], "classes": ["a", "b"], "source": ""}
    configurations = read_configurations(workspace, ["flat"])
    curves = read_curves(workspace, configurations)
    assert findings(workspace, configurations, curves) == []  # without its split nothing is known of the classes
    write_json(workspace.runs / "flat" / "split.json", split)
    (text,) = findings(workspace, configurations, curves)
    assert text.startswith("run flat: motion does not learn: over its last 50 updates it was right on 50.0 %")
