"""`--compile`: the same training, by other code."""

from dataclasses import replace

import pytest
import torch
from torch import _dynamo

from pipelines import train
from pipelines.datasets.samples import Batch
from pipelines.errors import MissingError
from pipelines.models import STResNet
from pipelines.storage.atomic import write_json
from pipelines.training import compilation, session, settings
from pipelines.training.compilation import compiles, worthwhile
from pipelines.training.loop import StepTrainer
from pipelines.training.recipes import PAPER
from pipelines.training.runs import Run

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)


@pytest.fixture
def a_compiler(monkeypatch):
    monkeypatch.setattr(compilation, "missing_to_compile", lambda device: "")


def losses(compile_network=False, at_once=1, **network):
    """The loss of each of three updates of two micro-batches."""
    torch.manual_seed(0)
    step = replace(PAPER.steps["joint1"], iterations=4, batch_size=4, micro_batch=2, frames=2, lr=0.01)
    network = STResNet(2, depth=26, width=2, **network)
    trainer = StepTrainer(network, step, 4, CPU, compile_network=compile_network, at_once=at_once)
    found = []
    for _ in range(3):
        rgb, flow = (torch.randint(0, 256, (4, 2, channels, 32, 32), dtype=torch.uint8) for channels in (3, 20))
        trainer.fit([Batch(rgb, flow, torch.arange(4) % 2, torch.arange(4))])
        found.append(float(trainer.state.sums.pop("loss")))
    return found


def test_the_network_is_captured_whole_and_trains_alike(monkeypatch):
    """What torch.compile hands to its compiler, run by torch itself: no compiler is needed for this."""
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    _dynamo.reset()
    _dynamo.utils.counters.clear()
    assert losses(compile_network=True, at_once=2) == pytest.approx(losses(), rel=1e-3)
    counters = _dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    _dynamo.reset()


@pytest.mark.compiler
def test_compiled_code_trains_alike():
    _dynamo.reset()
    stream = {"streams": ("motion",)}
    found, expected = losses(compile_network=True, at_once=2, **stream), losses(**stream)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-2)  # so small a network soon enlarges what was rounded otherwise


def test_by_default_a_gpu_compiles_and_a_cpu_does_not(a_compiler):
    assert [compiles(None, device) for device in (CUDA, CPU)] == [True, False]
    assert [compiles(asked, CPU) for asked in (True, False)] == [True, False]
    assert [compiles(asked, CUDA) for asked in (True, False)] == [True, False]


def test_by_default_short_steps_are_not_compiled():
    step = PAPER.steps["appearance"]
    assert [worthwhile(None, replace(step, iterations=n), 10) for n in (999, 1000)] == [False, True]
    assert worthwhile(True, replace(step, iterations=1), 10)


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_continued_by_its_name_compiles_as_it_was_begun(own_trained_on_videos, a_compiler, monkeypatch, begun):
    class Asked(Exception):
        pass

    def ask(*given, compile, **others):
        raise Asked(compile)

    workspace = own_trained_on_videos.workspace
    run = Run(workspace.runs / "split1")
    write_json(run.config_file, replace(run.config(), compile=begun).to_json())
    monkeypatch.setattr(session, "Session", ask)
    monkeypatch.setattr(settings, "compiles", lambda asked, device: not begun if asked is None else asked)
    with pytest.raises(Asked, match=str(begun)):
        train.run(train.Config(workspace.root, name="split1", device="cpu"))


def test_more_sizes_of_micro_batches_than_dynamo_keeps_by_itself_are_all_compiled(monkeypatch):
    """The last batches of passes have sizes of their own, and every damaged video makes another."""
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    network = compilation.compiled(torch.nn.Linear(2, 2))
    _dynamo.utils.counters.clear()
    for size in range(2, 14):
        network(torch.zeros(size, 2))
    assert _dynamo.utils.counters["stats"]["unique_graphs"] == 12
    compilation.compiled(torch.nn.Linear(2, 2))(torch.zeros(2, 2))  # of the next step
    assert _dynamo.utils.counters["stats"]["unique_graphs"] == 13
    _dynamo.reset()


def test_without_python_s_headers_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr("pipelines.runtime.devices.sysconfig.get_path", lambda name: "/nowhere")
    with pytest.raises(MissingError, match="--compile needs Python's header files"):
        compiles(True, CPU)


def test_without_a_compiler_a_gpu_trains_as_it_is_and_asking_for_it_names_what_is_missing(no_compiler):
    assert not compiles(None, CUDA)
    with pytest.raises(MissingError, match=r"--compile needs a compiler \(g\+\+ or clang\+\+.*--no-compile"):
        compiles(True, CPU)
    assert not compiles(False, CPU)
