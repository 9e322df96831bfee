"""Captions and their reading back."""

import random

import pytest

from minigpt5.storyworld.language import WORDINGS, caption, describes, imagine, read, sentence
from minigpt5.storyworld.scene import Character, Scene, sample_scene


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("brief", [False, True])
@pytest.mark.parametrize("wording", WORDINGS)
def test_every_caption_is_read_back(wording, brief, held_out):
    for seed in range(500):
        rng = random.Random(seed)
        scene = sample_scene(rng, held_out=held_out, companion_share=0.5)
        told = caption(scene, rng, wording, brief)
        assert describes(told, scene), (told, scene)


def test_captions_describe_no_other_scene():
    for seed in range(300):
        rng = random.Random(seed)
        scene, other = sample_scene(rng), sample_scene(rng)
        same = (scene.slots, scene.place, scene.time) == (other.slots, other.place, other.time)
        assert describes(caption(scene, rng), other) == same


def test_fresh_captions_are_not_training_captions():
    def worded(wording, seeds):
        rngs = [random.Random(seed) for seed in seeds]
        return {caption(sample_scene(rng), rng, wording) for rng in rngs}

    assert not worded("train", range(2000)) & worded("fresh", range(2000, 4000))


def test_an_unknown_wording_is_refused():
    with pytest.raises(ValueError, match="train, fresh, got 'old'"):
        caption(sample_scene(random.Random(0)), random.Random(0), "old")


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("a red fox in the forest", Scene(Character("fox", "red"), "middle", "forest", "day")),
        ("A fox that is red sits by the sea at night.", Scene(Character("fox", "red"), "middle", "beach", "night")),
        (
            "In the town under the moon: a white cat and a green dog",
            Scene(Character("cat", "white"), "left", "city", "night", Character("dog", "green")),
        ),
        (
            "on the right a white cat, on the left a green dog in the snow",
            Scene(Character("cat", "white"), "right", "mountains", "day", Character("dog", "green")),
        ),
    ],
)
def test_imagine_fills_in_the_defaults(text, scene):
    assert imagine(text) == scene


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "a fox in the forest",
        "a red fox",
        "a red fox, a blue cat and a green dog in the city",
        "a red fox in the middle and a white cat on the left in the city",
        "a red fox on the left and a white cat on the left in the city",
        "on the left a red fox and a white cat on the left in the city",
        "a red fox on the left on the right in the city",
        "a red fox in the city in the forest",
        "a red fox in the city by night by day",
    ],
)
def test_imagine_refuses_what_is_no_scene(text):
    assert imagine(text) is None


def test_a_colour_belongs_to_its_own_animal():
    mentions = read("a fox that is red meets a white cat").mentions
    assert [(mention.kind, mention.colour) for mention in mentions] == [("fox", "red"), ("cat", "white")]


def test_sentences_are_put_right():
    assert sentence("  , on the left ,,  a cat  ") == "On the left, a cat."
