"""Changes of a picture: what is wished for, the scene that comes of it, and how it is described."""

from __future__ import annotations

import random
from dataclasses import replace

from minigpt5.storyworld.items import (
    USUAL_COLOURS,
    Item,
    check,
    in_row,
    other_than,
    random_scene,
    the,
    with_colour,
    worded,
)
from minigpt5.storyworld.language import PLACE_PHRASES, TIME_PHRASES, article, plain_caption
from minigpt5.storyworld.scene import OPPOSITE, PLACES, TIMES, Character, Scene, sample_character
from minigpt5.storyworld.stories import TO_PLACE
from minigpt5.storyworld.wordings import CHANGES


def change(scene: Scene, aspect: str, rng: random.Random) -> tuple[Scene, Character, Character]:
    """The scene with one of `CHANGES` made, and whom it is about, before and after; no held-out pair comes of it."""
    name = rng.choice(("hero", "companion")) if scene.companion else "hero"
    who: Character = getattr(scene, name)
    stays = scene.hero if name == "companion" else scene.companion
    if aspect == "place":
        return replace(scene, place=other_than(scene.place, PLACES, rng)), who, who
    if aspect == "time":
        return replace(scene, time=other_than(scene.time, TIMES, rng)), who, who
    if aspect == "add":
        friend = sample_character(rng, unlike=scene.hero)
        # Beside a companion nobody stands in the middle.
        side = "left" if scene.side == "middle" else scene.side
        return replace(scene, side=side, companion=friend), friend, friend
    if aspect == "remove":
        if stays is None:
            raise ValueError("only one of two animals can be removed")
        side = OPPOSITE[scene.side] if name == "hero" else scene.side
        return replace(scene, hero=stays, side=side, companion=None), who, who
    while True:
        other = sample_character(rng, unlike=stays)
        changed = {name for name in ("kind", "colour") if getattr(other, name) != getattr(who, name)}
        if changed == {"kind" if aspect == "animal" else aspect}:
            return replace(scene, **{name: other}), who, other


def changed(rng: random.Random, wording: str = "train", aspect: str | None = None, scene: Scene | None = None) -> Item:
    """A picture with one thing changed, and its description; any of `CHANGES` where none is given.

    Now and then an animal that is alone is called "it", and one that is added has no colour told.
    """
    if scene is None:
        aspect = aspect or rng.choice(tuple(CHANGES))
        companion = {"add": False, "remove": True}.get(aspect)
        if wording == "train" and aspect in ("colour", "animal"):
            # Which of two it is that changes is the hard part.
            companion = rng.random() < 0.6
        scene = random_scene(rng, companion)
    else:
        unfit = "add" if scene.companion else "remove"
        aspect = aspect or rng.choice([aspect for aspect in CHANGES if aspect != unfit])
    after, old, new = change(scene, aspect, rng)
    animal = the(old, rng, colour=aspect not in ("colour", "animal"))
    asked, friend = animal.removeprefix("the "), f"{new.colour} {new.kind}"
    if rng.random() < 0.3:
        usual = Character(new.kind, USUAL_COLOURS[new.kind])
        if aspect in ("colour", "animal") and not scene.companion:
            animal = "it"
        elif aspect == "add" and usual.colour != scene.hero.colour:
            after, friend = replace(after, companion=usual), usual.kind
    text = worded(
        CHANGES[aspect],
        rng,
        wording,
        animal=animal,
        colour=new.colour,
        a_fox=article(new.kind),
        a_red_fox=article(friend),
        it="them" if scene.companion else rng.choice(("it", "it", animal)),
        place=rng.choice(PLACE_PHRASES[after.place]),
        to=rng.choice(TO_PLACE[after.place]),
        time=rng.choice(TIME_PHRASES[after.time]),
        day=after.time,
    )
    told = plain_caption(after)
    becomes = {"colour": new.colour, "animal": article(new.kind), "remove": "gone"}
    if aspect in becomes:
        seen = check(article(asked), ((with_colour(who), who == old) for who in in_row(scene)))
        told = f"{seen} So {becomes[aspect]}. {told}"
    return Item(f"change {aspect}", (scene, text), (told, after))
