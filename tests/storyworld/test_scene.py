"""Worlds are named by split and seed, and held-out pairs stay out."""

import random

import pytest

from minigpt5.storyworld.scene import (
    COLOURS,
    HELD_OUT,
    KINDS,
    SPLITS,
    Character,
    Scene,
    sample_character,
    sample_scene,
    split_rng,
)
from minigpt5.storyworld.stories import sample_story, sample_talk

SEEDS = range(300)


def characters(scenes):
    return [character for scene in scenes for character in scene.characters]


def test_held_out_pairs_have_every_kind_and_every_colour_once():
    kinds, colours = zip(*HELD_OUT, strict=True)
    assert sorted(kinds) == sorted(KINDS) and sorted(colours) == sorted(COLOURS)


def test_a_seed_names_a_world():
    assert sample_scene(split_rng("train", 3)) == sample_scene(split_rng("train", 3))
    assert sample_scene(split_rng("train", 3)) != sample_scene(split_rng("train", 4))


def test_splits_share_no_scene():
    worlds = [{sample_scene(split_rng(split, seed)) for seed in SEEDS} for split in SPLITS]
    assert len(set.union(*worlds)) == sum(map(len, worlds)) == len(SPLITS) * len(SEEDS)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train, validation, test, got 'dev'"):
        split_rng("dev", 0)


@pytest.mark.parametrize("split", SPLITS)
def test_no_split_shows_a_held_out_pair_unasked(split):
    scenes = [sample_scene(split_rng(split, seed)) for seed in SEEDS]
    scenes += [step.scene for seed in SEEDS for step in sample_story(split_rng(split, seed)).steps]
    scenes += [turn.scene for seed in SEEDS for turn in sample_talk(split_rng(split, seed)) if turn.scene]
    assert not any(character.held_out for character in characters(scenes))


def test_held_out_heroes_on_request_beside_training_companions():
    scenes = [sample_scene(random.Random(seed), companion=True, held_out=True) for seed in SEEDS]
    assert all(scene.hero.held_out and not scene.companion.held_out for scene in scenes)
    assert {(scene.hero.kind, scene.hero.colour) for scene in scenes} == HELD_OUT


def test_a_companion_differs_in_kind_and_colour():
    scenes = [sample_scene(random.Random(seed), companion=True) for seed in SEEDS]
    assert all(s.hero.kind != s.companion.kind and s.hero.colour != s.companion.colour for s in scenes)
    assert sample_character(random.Random(0), unlike=Character("cat", "red")).kind != "cat"


def test_slots_say_who_stands_where():
    fox, cat = Character("fox", "red"), Character("cat", "white")
    assert Scene(fox, "right", "city", "day", cat).slots == {"left": cat, "middle": None, "right": fox}
    assert Scene(fox, "middle", "city", "day").slots == {"left": None, "middle": fox, "right": None}


def test_nobody_stands_in_the_middle_beside_a_companion():
    with pytest.raises(ValueError, match="not in the middle"):
        Scene(Character("fox", "red"), "middle", "city", "day", Character("cat", "white"))
