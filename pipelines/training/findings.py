"""What the log of a training step says of it: that it does not learn, or that it overfits, and what to change."""

import math
from collections.abc import Mapping, Sequence

from pipelines.interface.options import Balance
from pipelines.interface.wording import percent, plural
from pipelines.training.metrics_log import accuracy_name, held_out_accuracy

Records = Sequence[Mapping[str, float]]
"""Log lines of a step in order, by today's names (`metrics_log.read_records`)."""

LINES = 5  # whose mean is what a step has come to; of fewer nothing is said
GAP = 0.15  # between training and held-out accuracy, from which on it is called overfitting
DEVIATIONS = 2.0  # of chance, by which a difference has to exceed it
RISE = 1.1  # times the lowest held-out loss, from which on it is said to have risen


def finding(
    step: str, records: Records, videos: Mapping[str, int], balance: Balance, *, interrupted: bool = False
) -> str:
    """One sentence, or "" for a step that learns and does not overfit, as far as its log can tell.

    A step does not learn if its training accuracy over the last log lines is not above what always answering the most
    frequent class would have. It overfits if that accuracy is well above the held-out one, measured last. Both must be
    more than chance makes of so few videos.

    Args:
        videos: The numbers of training videos by class.
        balance: How unequal numbers are made to count alike.
        interrupted: Whether updates are still to come, in which the step may yet learn.
    """
    recent = [record for record in records[-LINES:] if record.get("videos")]
    name = accuracy_name(records[-1])
    if len(recent) < LINES or not all({name, "loss", "updates"} <= record.keys() for record in recent):
        return ""
    seen = sum(record["videos"] for record in recent)
    accuracy = sum(record["videos"] * record[name] for record in recent) / seen
    blind = max(videos.values()) / sum(videos.values()) if balance == "none" else 1 / len(videos)
    updates = plural(int(sum(record["updates"] for record in recent)), "update")
    if accuracy <= blind + DEVIATIONS * _deviation(blind, seen):
        if interrupted:
            return ""
        loss = sum(record["videos"] * record["loss"] for record in recent) / seen
        guessing = math.log(len(videos))
        change = f"more updates, a larger --lr {step}=..., or pretrained --weights"
        if loss > guessing:
            change = f"a smaller --lr {step}=..., a tenth of it or less, since the loss {loss:.2f} is above guessing's"
            change += f" {guessing:.2f}"
        return (
            f"{step} does not learn: over its last {updates} it was right on {percent(accuracy)} % of the training "
            f"videos, and a guess without looking is on {percent(blind)} %; try {change} (under another --name), and "
            "look at what it sees (stres show-flow, stres verify)"
        )
    return _overfitting(step, accuracy, [record for record in records if "validation_loss" in record])


def _overfitting(step: str, accuracy: float, measured: Records) -> str:
    held_out = held_out_accuracy(measured[-1]) if measured else None
    if held_out is None or "validation_videos" not in measured[-1]:
        return ""
    count = measured[-1]["validation_videos"]
    of_few = (held_out * count + 1) / (count + 2)  # Laplace's rule: all of four right does not prove a share of 1
    if accuracy - held_out < max(GAP, DEVIATIONS * _deviation(of_few, count)):
        return ""
    lowest = min(measured, key=lambda record: record["validation_loss"])
    change = "more --dropout, pretrained --weights, a smaller --width, or more videos"
    text = (
        f"{step} overfits: it is right on {percent(accuracy)} % of the videos that it trains on, and on "
        f"{percent(held_out)} % of {plural(int(count), 'video')} held out"
    )
    if measured[-1]["validation_loss"] > RISE * lowest["validation_loss"]:
        after = f"{lowest['iteration']:.0f}"
        text += f", whose loss has risen since update {after}"
        change = f"about --iterations {step}={after}, {change}; --checkpoint best tests the weights that were best"
    return f"{text}; try {change}"


def _deviation(share: float, videos: float) -> float:
    """The standard deviation of a share of independent videos."""
    return math.sqrt(share * (1 - share) / videos)
