"""Pictures: the same for the same scene, and alike at any size."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import COLOURS, KINDS, PLACES, Character, Scene, sample_scene

FOX = Scene(Character("fox", "red"), "left", "meadow", "day")


def pixels(picture):
    return np.asarray(picture, dtype=float)


def test_equal_scenes_give_equal_pictures():
    for seed in range(10):
        first, second = (draw(sample_scene(random.Random(seed))) for _ in range(2))
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("size", [32, 50, 64, 256])
def test_any_size_shows_the_same(size):
    picture = draw(FOX, size)
    assert picture.size == (size, size) and picture.mode == "RGB"
    small = picture.resize((16, 16), Image.Resampling.BOX)
    assert abs(pixels(small) - pixels(draw(FOX, 64).resize((16, 16), Image.Resampling.BOX))).mean() < 6


@pytest.mark.parametrize(
    "change",
    [
        {"hero": Character("cat", "red")},
        {"hero": Character("fox", "blue")},
        {"side": "right"},
        {"place": "beach"},
        {"time": "night"},
        {"companion": Character("cat", "white")},
    ],
)
def test_every_attribute_can_be_seen(change):
    assert abs(pixels(draw(FOX)) - pixels(draw(replace(FOX, **change)))).max() > 50


def test_everything_that_can_be_sampled_can_be_drawn():
    for i, kind in enumerate(KINDS):
        scene = Scene(Character(kind, COLOURS[i]), "middle", PLACES[i % len(PLACES)], ("day", "night")[i % 2])
        assert pixels(draw(scene)).std() > 10
