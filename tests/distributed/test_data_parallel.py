"""How a batch is divided between ranks, without any."""

import errno
import os

import pytest
import torch
from torch import nn

from pipelines.datasets.sampler import StepSampler
from pipelines.errors import UsageError
from pipelines.models.dropout import VideoDropout
from pipelines.runtime.devices import available_cores, resolve_device
from pipelines.runtime.ranks import Ranks, launched, ranks
from pipelines.storage import atomic as workspace
from pipelines.storage.failures import Failure, read_failures, record_outcomes
from pipelines.storage.workspace import Workspace
from pipelines.training.data_parallel import micro_batch_shards, uses_sync_bn
from pipelines.training.recipes import PAPER, SMALL, override


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("places", "micro_batch", "size"), [(128, 4, 8), (7, 4, 2), (2, 4, 4), (33, 32, 5), (5, 1, 3)])
def test_every_place_is_one_ranks_and_micro_batches_are_those_of_one_process(together, places, micro_batch, size):
    whole = {part.number: (part.start, part.stop) for part in micro_batch_shards(places, micro_batch)}
    shares = [micro_batch_shards(places, micro_batch, rank, size, sync_bn=together) for rank in range(size)]
    taken = [place for share in shares for part in share for place in range(part.start, part.stop)]
    assert sorted(taken) == list(range(places))
    for share in shares:
        for part in share:
            assert (part.first, part.first + part.size) == whole[part.number]
            assert part.first <= part.start <= part.stop <= part.first + part.size
            assert together or part.stop - part.start == part.size


def test_ranks_draw_what_one_process_draws():
    alone = StepSampler(5, 3, 6, seed=1, step_index=2)
    shares = [
        StepSampler(
            5,
            3,
            6,
            seed=1,
            step_index=2,
            share=lambda batch, rank=rank: [
                batch[i] for part in micro_batch_shards(len(batch), 2, rank, 2) for i in range(part.start, part.stop)
            ],
        )
        for rank in range(2)
    ]
    for batch, first, second, _ in zip(alone, *shares, range(7), strict=False):
        assert first + second == batch


@pytest.mark.parametrize(
    ("step", "size", "together"),
    [
        ("appearance", 8, False),
        ("motion", 4, False),
        ("motion", 8, True),
        ("joint1", 32, False),
        ("appearance", 32, True),
    ],
)
def test_micro_batches_are_dealt_where_there_are_enough(step, size, together):
    assert uses_sync_bn(PAPER.steps[step], 9537, size, None) is together


def test_ranks_without_work_are_refused_before_training():
    with pytest.raises(UsageError, match=r"joint1: 64 processes cannot share micro-batches of 4 videos.*at most 32"):
        uses_sync_bn(PAPER.steps["joint1"], 9537, 64, None)
    with pytest.raises(
        UsageError, match=r"motion: without --sync-bn 2 processes need as many micro-batches.*has 1 of 32"
    ):
        uses_sync_bn(SMALL.steps["motion"], 100, 2, False)
    with pytest.raises(UsageError, match="2 processes cannot share micro-batches of 1 video"):
        uses_sync_bn(override(SMALL.steps["motion"], {"batch_size": 1}), 100, 2, None)


def test_a_part_of_a_micro_batch_drops_what_the_whole_drops():
    dropout = VideoDropout(0.4)
    x = torch.ones(4 * 3, 50)
    torch.manual_seed(0)
    whole = dropout(x, 3).unflatten(0, (4, 3))
    torch.manual_seed(0)
    plain = nn.Dropout(0.4)(x).unflatten(0, (4, 3))
    assert torch.equal(whole, plain)  # on a CPU
    torch.manual_seed(0)
    dropout.share = ([1, 3], 4)
    assert torch.equal(dropout(x[:6], 3).unflatten(0, (2, 3)), whole[[1, 3]])


def test_torchruns_variables_make_a_rank_and_divide_the_cores(monkeypatch):
    assert not launched()
    cores = available_cores()
    names = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    ranks.cache_clear()
    try:
        here = ranks()
        assert (here.rank, here.size, here.local_rank, here.is_first) == (5, 8, 1, False)
        assert available_cores() == max(1, cores // 4)
        assert resolve_device("cpu").type == "cpu"
    finally:
        ranks.cache_clear()


def test_alone_nothing_is_exchanged():
    here = Ranks()
    assert here.broadcast_from_rank0(lambda: 3) == here.rank0_first(lambda: 3) == 3
    assert here.gather("x") == ["x"]
    assert list(here.pool(3, lambda numbers: (10 * n for n in numbers))) == [(0, 0), (0, 10), (0, 20)]
    assert "store" not in vars(here)


def test_failures_are_recorded_where_folders_cannot_be_locked(tmp_path, monkeypatch):
    """NFS refuses an exclusive lock on what is open for reading."""

    def refuse(*_: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(workspace.fcntl, "flock", refuse)
    record_outcomes(Workspace(tmp_path), failed=[Failure("train", "a", "b", "c", "d")])
    assert [row.video for row in read_failures(Workspace(tmp_path))] == ["b"]
