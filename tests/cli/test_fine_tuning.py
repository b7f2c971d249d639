"""`stres train --weights run:NAME`: a run fine-tuned on the videos of another workspace."""

import json

from tests.helpers.workspaces import write_workspace

TINY = "--recipe small --width 2 --size 32 --iterations 1 --batch-size 2 --device cpu --steps motion"


def test_a_run_is_fine_tuned_by_its_name_and_by_its_folder(stres, tmp_path):
    work = write_workspace(tmp_path / "work").root
    other = write_workspace(tmp_path / "other").root

    def train(line, workspace):
        return stres("train", *TINY.split(), *line.split(), "-w", workspace)

    assert train("--name old", work).exit_code == 0
    by_name = train("--name new --weights run:old --json", work)
    by_folder = train(f"--weights run:{work}/runs/old/motion", other)
    again = train(f"--weights run:{work}/runs/old/motion", other)
    as_file = train(f"--name file --weights {work}/runs/old/motion/weights.pt", other)
    wider = train("--name wide --weights run:old --width 3", work)

    assert by_name.exit_code == by_folder.exit_code == again.exit_code == 0, by_folder.stderr
    assert "motion starts from motion of run old, classifiers included" in by_name.stderr
    assert json.loads(by_name.stdout)["run"] == "new"
    assert f"motion starts from motion of run {work / 'runs' / 'old'}" in by_folder.stderr
    assert "already done" in again.stdout
    assert as_file.exit_code == 3
    assert f"give --weights run:{work / 'runs' / 'old' / 'motion'} instead" in as_file.stderr
    assert wider.exit_code == 2
    assert "width is 2 there and 3 here" in wider.stderr
