"""Pictures: the same for the same scene, and alike at any size."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageChops

from minigpt5.storyworld.draw import boxes, draw
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


def changed_box(one, other, size):
    """The box of the pixels that differ clearly between two pictures, in shares."""
    unlike = ImageChops.difference(one, other).convert("L").point([0] * 24 + [255] * 232)
    return np.array(unlike.getbbox()) / size


@pytest.mark.parametrize("size", [64, 128])
def test_boxes_hold_the_pixels_that_another_colour_changes(size):
    for seed in range(40):
        scene = sample_scene(random.Random(seed), companion_share=0.5)
        found = boxes(scene, size)
        for name in ("hero", "companion"):
            # A bird's beak and legs are of one colour whatever the bird's.
            if (who := getattr(scene, name)) and who.kind != "bird":
                other = "blue" if who.colour == "white" else "white"
                changed = changed_box(
                    draw(scene, size), draw(replace(scene, **{name: Character(who.kind, other)}), size), size
                )
                assert np.abs(changed - found[who.kind]).max() < 1.6 / size, scene


def test_boxes_of_sun_and_moon_hold_what_is_seen_of_them():
    meadow, seen = replace(FOX, decor=3), {}
    for time, light in (("day", "sun"), ("night", "moon")):
        scene = replace(meadow, time=time)
        assert set(boxes(scene)) == {"fox", light}
        seen[time] = boxes(scene, 256)[light]
    left, top, right, lower = seen["day"]
    assert right - left == pytest.approx(0.17, abs=0.01) and lower - top == pytest.approx(0.17, abs=0.01)
    picture = pixels(draw(meadow, 256))
    middle = picture[round((top + lower) * 128), round((left + right) * 128)]
    assert middle == pytest.approx((255, 222, 84))
    # A building hides the lower part of the sun.
    city = replace(meadow, place="city")
    assert boxes(city, 256)["sun"][3] < lower and boxes(city, 256)["sun"][:3] == seen["day"][:3]


@pytest.mark.parametrize(
    ("change", "same"),
    [({"time": "night"}, "fox"), ({"place": "city"}, "fox"), ({"companion": Character("cat", "white")}, "fox")],
)
def test_what_a_change_does_not_name_stays_where_it_is(change, same):
    for decor in range(20):
        scene = replace(FOX, decor=decor)
        assert boxes(scene)[same] == boxes(replace(scene, **change))[same]
