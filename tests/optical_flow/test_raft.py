"""RAFT with weights of our own: padding, weights from a file, and what is said when they are missing."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models.optical_flow import Raft_Large_Weights, raft_small

from pipelines.errors import MissingError, UsageError
from pipelines.optical_flow.methods import make_method


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "weights.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


def options(weights: Path) -> dict[str, str | float]:
    return {"model": "raft_small", "weights": str(weights), "updates": 1}


def frames(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randint(0, 256, (2, 1, 3, height, width), generator=generator, dtype=torch.uint8)
    return before, after


@torch.inference_mode()
def test_frames_of_a_fitting_size_give_torchvisions_flow(weights: Path) -> None:
    before, after = frames(128, 136)
    network = raft_small(weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    expected = network(before / 127.5 - 1, after / 127.5 - 1, num_flow_updates=1)[-1]
    torch.testing.assert_close(make_method("raft", options(weights)).flow(before, after), expected)


@pytest.mark.parametrize("size", [(64, 80), (131, 130)])
def test_frames_of_any_size_give_flow_of_that_size(weights: Path, size: tuple[int, int]) -> None:
    flow = make_method("raft", options(weights)).flow(*frames(*size))
    assert flow.shape == (1, 2, *size)
    assert flow.isfinite().all()


def test_parameters_name_the_weights_by_content(weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights.read_bytes())
    parameters = make_method("raft", options(weights)).parameters
    assert parameters["weights"].startswith("sha256:")
    assert make_method("raft", options(copy)).parameters == parameters


def test_weights_that_cannot_be_fetched_say_which_file_goes_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingError) as error:
        make_method("raft")
    assert Raft_Large_Weights.DEFAULT.url in str(error.value)
    assert str(tmp_path / "hub" / "checkpoints") in str(error.value)


def test_files_that_are_no_weights_are_named(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no")
    with pytest.raises(MissingError, match="not a PyTorch state dict"):
        make_method("raft", {"weights": str(tmp_path / "text.pth")})
    torch.save({"weight": torch.tensor([float("nan")])}, tmp_path / "nan.pth")
    with pytest.raises(MissingError, match="NaN or infinity in weight"):
        make_method("raft", {"weights": str(tmp_path / "nan.pth")})
    with pytest.raises(MissingError, match="cannot be read"):
        make_method("raft", {"weights": str(tmp_path / "gone.pth")})
    with pytest.raises(MissingError, match="not weights of raft_large"):
        make_method("raft", {"weights": str(weights)})
    with pytest.raises(UsageError, match="one of raft_large, raft_small"):
        make_method("raft", {"model": "raft_huge"})
