"""Which settings would suit flow that is still to be made, from pieces of it: the end of `extract-flow --dry-run`."""

from collections import Counter
from collections.abc import Sequence

from pipelines.jobs.task import Clipping, Proposal
from pipelines.optical_flow.displacement import Displacement
from pipelines.optical_flow.probing import FASTER, FlowProbe

_LONG = 24.0  # hours, from where on a faster method is proposed


def propose(probes: Sequence[FlowProbe], method: str, bound: float, hours: float) -> Proposal | None:
    """What suits, where `method` and `bound` are asked for and would take `hours`; None where nothing was measured."""
    parts = [(float(probe.frames), probe.displacement) for probe in probes if probe.displacement is not None]
    moved = Displacement.together(parts)
    if moved is None:
        return None
    sides = [probe.short_side for probe in probes]
    both = [probe for probe in probes if probe.faster_seconds]
    by_method = {method: hours}
    if both:
        by_method[FASTER] = hours * sum(probe.faster_seconds for probe in both) / sum(probe.seconds for probe in both)
    return Proposal(
        videos=len(probes),
        method=method if hours <= _LONG else min(by_method, key=lambda name: by_method[name]),
        bound=moved.suitable_bound,
        short_side=Counter(sides).most_common(1)[0][0],
        short_sides=(min(sides), max(sides)),
        clipping=Clipping(bound, moved.clipped_share, moved.largest, moved.suitable_bound),
        hours=by_method,
    )
