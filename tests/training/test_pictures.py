"""The input's shape beside that of the stored pictures, and what is said of crops and mirrors."""

import dataclasses

import numpy as np
import pytest

from pipelines.datasets.augmentation import REFERENCE, draw_crop
from pipelines.datasets.catalogue import load_catalogue
from pipelines.training.pictures import input_size, median_picture, sentences, shaped_like, shown_share
from pipelines.training.recipes import FINETUNE, PAPER, SMALL, override
from pipelines.training.settings import settle
from tests.helpers.tiny_training import config


@pytest.fixture(scope="module")
def videos(random_workspace):
    """Of pictures of other sizes than the artifacts': `videos((height, width), ...)`."""
    some = load_catalogue(random_workspace, write=False).videos[0]
    return lambda *sizes: [dataclasses.replace(some, height=height, width=width) for height, width in sizes]


def test_the_median_is_by_shape_and_is_a_stored_picture(videos):
    assert median_picture(videos((240, 320), (1080, 1920), (216, 456))) == (1080, 1920)
    assert median_picture(videos((228, 128), (128, 170))) == (228, 128)  # the lower of two
    assert median_picture(videos((0, 0), (64, 80))) == (64, 80)
    assert median_picture(videos((0, 0))) is None


@pytest.mark.parametrize(
    ("recipe", "picture", "size"),
    [
        (PAPER, (216, 456), (224, 224)),
        (PAPER, (256, 340), (224, 224)),
        (SMALL, (64, 80), (64, 80)),
        (SMALL, (256, 340), (64, 88)),
        (SMALL, (456, 216), (136, 64)),
        (SMALL, (100, 100), (64, 64)),
        (SMALL, None, (64, 64)),
        (FINETUNE, (216, 456), (112, 240)),
        (FINETUNE, (128, 130), (112, 112)),
    ],
)
def test_the_input_follows_the_pictures_except_the_papers(recipe, picture, size):
    assert input_size(recipe, picture) == size


def test_a_set_that_is_kept_aside_has_the_shape_that_was_measured_on_it():
    assert shaped_like((216, 456), 96) == (96, 200)


@pytest.mark.parametrize("scheme", REFERENCE)
def test_the_shown_share_is_that_of_pixels_painted_by_crops(scheme):
    rng, picture, size = np.random.default_rng(5), (54, 114), (24, 50)
    painted = []
    for _ in range(2000):
        seen = np.zeros(picture, bool)
        crop = draw_crop(scheme, *picture, size, rng)
        seen[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width] = True
        painted.append(seen.mean())
    assert shown_share(scheme, picture, size) == pytest.approx(np.mean(painted), abs=0.02)


def test_what_is_said_of_an_input_that_leaves_much_out(videos):
    steps = [override(SMALL.steps[name], {"mirror": name == "motion"}) for name in ("appearance", "motion")]
    (text,) = sentences(videos((216, 456)), (96, 96), steps, ["jump", "run"])
    assert text == (
        "input 96x96 of pictures 216x456 (height x width): a training crop shows 39 % (--size 96x200 would show 81 %), "
        "half of them mirrored (--mirror no if left and right tell classes apart)"
    )
    several = sentences(videos((96, 96), (96, 200)), (96, 96), steps, ["jump"])[0]
    assert "(height x width, the median of shapes from 1.0 to 2.1)" in several
    paper = sentences(videos((256, 340)), (224, 224), [PAPER.steps["appearance"], PAPER.steps["motion"]], ["jump"])[0]
    assert paper.startswith(
        "input 224x224 of pictures 256x340 (height x width): a training crop shows 51-57 %, half of"
    )


@pytest.mark.parametrize("name", ["turn_left", "TurnRight", "LEFT-hook", "counterclockwise turn", "Rightward2"])
def test_classes_named_after_a_side_are_warned_of_by_name(videos, name):
    classes = ["bright_light", "upright", "Wright", name]
    told = sentences(videos((64, 80)), (64, 80), [SMALL.steps["motion"]], classes)[-1]
    assert told.startswith("warning: half of the training samples are mirrored, although left and right seem to tell")
    assert f"({name}): give --mirror no" in told


@pytest.mark.parametrize("changes", [{"mirror": False}, {"augmentation": "center"}])
def test_nothing_is_said_of_mirrors_where_nothing_is_mirrored(videos, changes):
    step = override(SMALL.steps["motion"], changes)
    (text,) = sentences(videos((64, 80)), (64, 80), [step], ["turn_left"])
    assert "mirrored" not in text


def test_a_run_that_is_continued_keeps_its_recipe_and_size(trained_on_videos):
    def settled(**changes):
        asked = config(workspace, **({"recipe": None, "size": None} | changes))
        return settle(asked)

    workspace = trained_on_videos.workspace
    known, reason = settled()
    assert (known.base.name, known.size, reason) == ("small", (32, 32), "")
    assert settled(size=(64, 80))[0].size == (64, 80)
    assert settled(recipe="paper")[0].recipe == "paper"
    other, reason = settled(name="other", weights="imagenet")
    assert (other.recipe, other.size) == ("finetune", None)
    assert reason == "--weights are given and there is no GPU for 6 clips"
    assert settled(overwrite=True, weights="imagenet")[0].recipe == "finetune"
    assert settled(name="other", base_run="split1", steps=("joint1",))[0].size == (32, 32)
    assert settled(split="all")[0].resolved is None  # for all, not as the first was begun
