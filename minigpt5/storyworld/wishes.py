"""Wishes for pictures, and for what lies outside the world, with what is replied."""

from __future__ import annotations

import random
from dataclasses import replace
from difflib import get_close_matches

from minigpt5.storyworld.changes import changed
from minigpt5.storyworld.items import USUAL_COLOURS, Item, Part, or_it, random_scene, the, worded
from minigpt5.storyworld.language import (
    KNOWN_WORDS,
    PLACE_PHRASES,
    SIDE_PHRASES,
    TIME_PHRASES,
    article,
    caption,
    name_character,
    sentence,
    split_words,
)
from minigpt5.storyworld.questions import question
from minigpt5.storyworld.scene import KINDS, PLACES, TIMES, Character, Scene, sample_scene
from minigpt5.storyworld.wordings import CHANGES, OUTSIDE, SORRY, WISHES

# Where a wish names no place.
DEFAULT_PLACE = "meadow"
# Of what words are made up, which are none of those kept for judging and less like those of the world than a typo is.
WORDS = tuple(
    sorted({*KNOWN_WORDS, *(word for name in ("animal", "colour", "thing") for word in OUTSIDE[name]["train"])})
)
FRESH_WORDS = {word for wording in OUTSIDE.values() for text in wording["fresh"] for word in split_words(text)}
LIKE = 0.74
WHERE_OR_WHEN = tuple(
    phrase for phrases in (PLACE_PHRASES, TIME_PHRASES, SIDE_PHRASES) for told in phrases.values() for phrase in told
)


def paint(rng: random.Random, wording: str = "train") -> Item:
    """A wish for a picture: of a scene that is told, or of animals, now and then with no place told.

    In training one in five tells no colour.
    """
    if wording == "train" and rng.random() < 0.2:
        return paint_bare(rng, wording)
    scene = sample_scene(rng, companion_share=0.5)
    way = rng.random()
    if way < 0.1:
        return _tagged(scene, rng, wording)
    if way < 0.5:
        return Item("paint", (_wish(caption(scene, rng, wording, brief=True), rng, wording),), (scene,))
    return _named(scene, rng, wording)


def paint_two(rng: random.Random, wording: str = "train") -> Item:
    """A wish for a picture of two animals that are named and no more than that, or the place too."""
    return _named(sample_scene(rng, companion=True), rng, wording)


def _named(scene: Scene, rng: random.Random, wording: str) -> Item:
    """A wish that tells no side and no time, so that it is day and the first named stands on the left."""
    told = rng.random() < 0.6
    side = "left" if scene.companion else "middle"
    scene = replace(scene, side=side, time="day", place=scene.place if told else DEFAULT_PLACE)
    names = " and ".join(name_character(who, rng, wording) for who in scene.characters)
    where = f" {rng.choice(PLACE_PHRASES[scene.place])}" if told else ""
    return Item("paint", (_wish(f"{names}{where}", rng, wording),), (scene,))


def _tagged(scene: Scene, rng: random.Random, wording: str) -> Item:
    """A wish in tags, "red fox, forest, night", in any order: who comes first stands on the left."""
    names = [f"{who.colour} {who.kind}" for who in scene.characters]
    others = [scene.place, scene.time]
    rng.shuffle(others)
    tags = [*others, *names] if rng.random() < 0.3 else [*names, *others]
    text = ", ".join(tags)
    scene = replace(scene, side="left" if scene.companion else "middle")
    return Item("paint", (text if wording == "train" and rng.random() < 0.7 else _wish(text, rng, wording),), (scene,))


def paint_bare(rng: random.Random, wording: str = "train") -> Item:
    """A wish that tells no colour: every animal has one that it is painted in then."""
    who = [Character(kind, USUAL_COLOURS[kind]) for kind in rng.sample(KINDS, 2 if rng.random() < 0.3 else 1)]
    place = rng.choice(PLACES) if rng.random() < 0.5 else None
    time = rng.choice(TIMES) if rng.random() < 0.2 else None
    scene = Scene(
        who[0],
        side="left" if len(who) > 1 else "middle",
        place=place or DEFAULT_PLACE,
        time=time or "day",
        companion=who[1] if len(who) > 1 else None,
        decor=rng.getrandbits(32),
    )
    named = rng.choices((article, "the {}".format, str), (4, 1, 2))[0]
    told = [" and ".join(named(one.kind) for one in who)]
    told += [rng.choice(PLACE_PHRASES[place])] if place else []
    told += [rng.choice(TIME_PHRASES[time])] if time else []
    return Item("paint", (_wish(" ".join(told), rng, wording),), (scene,))


def _wish(told: str, rng: random.Random, wording: str) -> str:
    told = told.removesuffix(".")
    wishes = WISHES[wording]
    if told.lower().startswith("a picture "):
        wishes = [wish for wish in wishes if "picture" not in wish]
    elif told.lower().startswith(WHERE_OR_WHEN):
        # "Draw in the forest, a fox waits" is no sentence.
        wishes = [wish for wish in wishes if wish.endswith(": {scene}") or wish == "{scene}"]
    return sentence(rng.choice(wishes).format(scene=f"{told[0].lower()}{told[1:]}"))


def outside(rng: random.Random, wording: str = "train") -> Item:
    """A wish for what is not in the world, which a plain sentence answers and no picture.

    One in eight is about a picture that is not there, and a few would remove the only animal.
    """
    way = rng.random()
    if way < 0.125:
        asked = changed(rng, wording) if rng.random() < 0.3 else question(rng, wording)
        return Item("outside", asked.unseen().question, (SORRY["picture"],))
    if way < 0.17:
        scene = random_scene(rng, False)
        text = worded(CHANGES["remove"], rng, wording, animal=the(scene.hero, rng), it="it")
        return Item("outside", (scene, text), (SORRY["alone"],))
    kind = rng.choice(tuple(OUTSIDE))
    listed = word = rng.choice(OUTSIDE[kind][wording])
    if kind == "request":
        return Item("outside", (listed,), (SORRY[kind],))
    if kind == "unseen":
        scene = random_scene(rng)
        animal = or_it(the(rng.choice(scene.characters), rng), scene, rng)
        return Item("outside", (scene, worded(OUTSIDE[kind], rng, wording, animal=animal)), (SORRY[kind],))
    if wording == "train" and rng.random() < 0.5:
        # There are more words than any list has; alone, one that is made up could be an animal or a thing.
        at = rng.choice(("in the ", "in a ", "on the ", "on a ", "at the ")) if kind == "place" else ""
        word = f"{at}{_made_up(rng)}"
    scene = random_scene(rng, False)
    who = scene.hero
    where = rng.choice(PLACE_PHRASES[scene.place])
    if rng.random() < 0.3:
        where = ""
    shown: tuple[Part, ...] = ()
    if kind != "place" and rng.random() < 0.3:
        shown = (scene,)
        if kind == "colour":
            told = article(f"{word} {who.kind}")
            text = worded(CHANGES["colour"], rng, wording, animal=f"the {who.kind}", colour=word, a_red_fox=told)
        else:
            text = worded(CHANGES["add"], rng, wording, a_red_fox=article(listed))
    else:
        told = {
            "animal": f"{article(word if rng.random() < 0.5 else f'{who.colour} {word}')} {where}",
            "colour": f"{article(word)} {who.kind} {where}",
            "place": f"{name_character(who, rng, wording)} {word}",
            "thing": f"{name_character(who, rng, wording)} with {article(word)} {where}",
        }[kind]
        if kind in ("animal", "thing") and rng.random() < 0.3:
            told = article(listed)
        text = _wish(told, rng, wording)
    return Item("outside", (*shown, text), (SORRY[kind],))


def _made_up(rng: random.Random) -> str:
    """A word that is none: of two or three syllables, or the beginning of one word and the end of another.

    Were all made of syllables, what begins like a word of the world ("grey", "beaver") would be taken for a typo of it.
    """
    while True:
        if rng.random() < 0.3:
            syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 3))))
            word = "".join(syllables) + rng.choice("lnrtx")
        else:
            word = rng.choice(WORDS)[: rng.randint(1, 4)] + rng.choice(WORDS)[-rng.randint(2, 4) :]
        if len(word) > 3 and word not in FRESH_WORDS and not get_close_matches(word, KNOWN_WORDS, 1, LIKE):
            return word
