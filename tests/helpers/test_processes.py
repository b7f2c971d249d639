"""A limit that a busy machine does not reach: by the clock for who sleeps, by processor time for who computes."""

import subprocess
import sys

import pytest

from tests.helpers import processes
from tests.helpers.processes import Patience, Process, run_patiently


@pytest.mark.parametrize(
    ("is_computing", "taken", "waited"),
    [
        (True, 0.1, 0.1),  # others have the cores
        (True, 20.0, 20.0),  # on two cores at once
        (False, 0.0, 10.0),  # all sleep
    ],
)
def test_a_process_that_gets_no_core_is_waited_for_longer_than_one_that_sleeps(
    monkeypatch: pytest.MonkeyPatch, is_computing: bool, taken: float, waited: float
) -> None:
    clock = [100.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(processes, "processes_of", lambda session: {7: Process(1, taken, is_computing)})
    patience = Patience(7, waited - 0.01)
    assert not patience.is_at_an_end()
    clock[0] += 10.0
    assert patience.is_at_an_end()
    assert patience.waited == waited


def test_what_a_command_prints_is_returned_and_one_that_sleeps_for_too_long_is_ended() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = run_patiently([sys.executable, "-c", code], 60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(subprocess.TimeoutExpired):
        run_patiently([sys.executable, "-c", "import time; time.sleep(1000)"], 1.0)
