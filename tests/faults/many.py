"""Many faults at random moments: `make faults`, or `python -m tests.faults.many --kills 200 --others 5 --seed 1`.

Prints one line a fault and the table of docs/reliability.md; ends with 1 if anything was lost. A line that begins with
LOST gives seed and number of the case, under which the same moments are drawn again; the workspace is kept:

    python -m tests.faults.many --seed 21 --first-case 15 --commands train --faults SIGTERM --others 1
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.fault_injection import Running, run
from tests.faults.fault_kinds import FAULTS, Case, NotPossibleHere
from tests.faults.fault_stages import STAGES, References, Stage, write_clips

_MOST_KILLS_IN_A_ROW = 6


class Campaign:
    """All faults of one call. `counts` by stage, fault and what came of it."""

    def __init__(self, root: Path, seed: int, first_case: int = 1) -> None:
        self.root = root
        self.seed = seed
        self.counts: Counter[tuple[str, str, str]] = Counter()
        write_clips(root / "videos")
        self.measured: dict[str, tuple[int, float]] = {}
        self.references = References(root / "undisturbed", root / "videos", self._measure)
        self.cases = first_case - 1

    def _measure(self, arguments: list[str]) -> None:
        """Runs a command undisturbed; notes how many names it is seen to write and how long it works."""
        workspace = Path(arguments[arguments.index("-w") + 1])
        stage = next(stage for stage in STAGES if stage.name == arguments[0])
        running = Running(arguments, workspace)
        running.has_begun(stage.begins, workspace / stage.folder)
        begun, files = time.monotonic(), 1
        while running.wait_for_files(workspace / stage.folder, 1):
            files += 1
        assert running.end() == 0, running.printed
        self.measured[stage.name] = (files, time.monotonic() - begun)

    def case(self, stage: Stage, fault: str) -> Case:
        """Under a seed of its own, from which the moments follow."""
        self.cases += 1
        parts = _MOST_KILLS_IN_A_ROW if fault == "kill -9" else 2  # each kill of a row leaves less to do
        self.references.after(stage)
        folder = self.root / f"{self.cases:04d}-{stage.name}-{fault.replace(' ', '-')}"
        workspace = self.references.workspace(stage, folder / "work")
        files, seconds = self.measured[stage.name]
        return Case(
            stage,
            workspace,
            self.root / "videos",
            self.references,
            lambda arguments: run(arguments, folder / "rerun"),
            random.Random(f"{self.seed} {self.cases}"),
            max(1, files // parts),
            seconds / parts,
        )

    def strike(self, stage: Stage, fault: str, times: int) -> int:
        """The fault up to so many times in a row, until it comes too late, then the same command to its end; how often
        it struck."""
        case = self.case(stage, fault)
        started, struck = time.monotonic(), 0
        try:
            while struck < times and FAULTS[fault](case):
                struck += 1
            if fault != "full disk":  # healed where its disk is
                case.heal()
        except NotPossibleHere as reason:
            self._tell(stage, fault, f"not possible: {reason}")
            self.counts[stage.name, fault, "not possible"] += 1
            return times
        except Exception:
            traceback.print_exc()
            self._tell(stage, fault, f"LOST in {case.workspace.parent}, seed {self.seed}, case {self.cases}")
            self.counts[stage.name, fault, "lost"] += 1
            return times
        shutil.rmtree(case.workspace.parent)
        self.counts[stage.name, fault, "struck"] += struck
        self._tell(stage, fault, f"{struck or 'not'} struck, completed, {time.monotonic() - started:.0f} s")
        return struck

    def _tell(self, stage: Stage, fault: str, text: str) -> None:
        sys.stdout.write(f"{self.cases:4d} {stage.name}, {fault}: {text}\n")
        sys.stdout.flush()

    def table(self) -> Iterator[str]:
        """Markdown: struck faults by stage, and losses."""
        yield "| fault | " + " | ".join(stage.name for stage in STAGES) + " | losses |"
        yield "|---|" + "---:|" * (len(STAGES) + 1)
        for fault in FAULTS:
            cells = [self._cell(stage.name, fault) for stage in STAGES]
            lost = sum(self.counts[stage.name, fault, "lost"] for stage in STAGES)
            yield f"| {fault} | " + " | ".join(cells) + f" | {lost} |"

    def _cell(self, stage: str, fault: str) -> str:
        return "–" if self.counts[stage, fault, "not possible"] else str(self.counts[stage, fault, "struck"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kill -9 in all, the same for each command")
    parser.add_argument("--others", type=int, default=5, help="of each other fault, for each command")
    names = [stage.name for stage in STAGES]
    parser.add_argument("--commands", nargs="+", choices=names, default=names, help="which commands")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), help="which faults")
    parser.add_argument(
        "--first-case", type=int, default=1, help="number of the first case; seed and number give the moments of a case"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="stres-faults-"))
    sys.stdout.write(f"seed {arguments.seed}, in {root}\n")
    campaign = Campaign(root, arguments.seed, arguments.first_case)
    for stage in [stage for stage in STAGES if stage.name in arguments.commands]:
        kills, wanted = 0, -(-arguments.kills // len(arguments.commands))
        while "kill -9" in arguments.faults and kills < wanted:
            kills += campaign.strike(stage, "kill -9", min(_MOST_KILLS_IN_A_ROW, wanted - kills))
        for fault in arguments.faults:
            for _ in range(arguments.others if fault != "kill -9" else 0):
                campaign.strike(stage, fault, 1)
    lost = sum(count for (_, _, outcome), count in campaign.counts.items() if outcome == "lost")
    sys.stdout.write(f"\n{datetime.now(UTC):%Y-%m-%d}, seed {arguments.seed}\n\n")
    sys.stdout.write("\n".join(campaign.table()) + f"\n\n{lost} losses\n")
    if not lost:
        shutil.rmtree(root)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
