"""Stories of five steps and an end, and talks about pictures, with the ground truth of every frame.

A plot is a list of moves; a move changes the scene and has sentences that tell it. The hero's colour is given once: in
the first sentence, or only in the pictures (`colour_told=False`). From then on the text says "it" or "the fox", so that
whoever goes on with the story has to remember. No place is come back to, night falls and the sun rises at most once,
and a companion stays to the end.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache

from minigpt5.storyworld.language import (
    PLACE_PHRASES,
    TIME_PHRASES,
    article,
    caption,
    name_character,
    sentence,
    split_words,
)
from minigpt5.storyworld.scene import PLACES, Scene, sample_character, sample_scene
from minigpt5.storyworld.wordings import ENDINGS


@dataclass(frozen=True)
class Step:
    """A sentence and the frame that illustrates it."""

    text: str
    scene: Scene


@dataclass(frozen=True)
class Story:
    """Five steps of one hero and a sentence that ends the story, without a frame.

    `colour_told` says whether the first sentence names the hero's colour.
    """

    steps: tuple[Step, ...]
    colour_told: bool
    ending: str


@dataclass(frozen=True)
class Turn:
    """What one side of a talk says; `scene` is the picture it shows, if any."""

    text: str
    scene: Scene | None = None


PLOTS = (
    ("travel", "meet", "together", "nightfall"),
    ("meet", "nightfall", "sunrise", "together"),
    ("travel", "nightfall", "sunrise", "meet"),
    ("meet", "together", "nightfall", "together"),
    ("nightfall", "travel", "meet", "sunrise"),
    ("aside", "travel", "nightfall", "travel"),
    ("nightfall", "sunrise", "travel", "meet"),
    ("aside", "meet", "nightfall", "together"),
)
OPENINGS = {
    "train": (
        "{hero} wakes up {place}",
        "once there was {hero} {place}",
        "{place} lives {hero}",
        "{hero} is alone {place}",
        "one day {hero} walks {place}",
        "{hero} sits {place}",
        "this is {hero} {place}",
    ),
    "fresh": (
        "one day there was {hero} {place}",
        "{place} {hero} wakes up",
        "{place} sits {hero}",
        "{hero} lives {place}",
        "one day {hero} is {place}",
        "once {hero} walks {place}",
    ),
}
MOVES = {
    "train": {
        "travel": (
            "{it} walks {to}",
            "then {it} runs {to}",
            "{it} goes {to}",
            "{it} travels {to}",
            "now {it} runs {to}",
            "after that {it} goes {to}",
        ),
        "together": (
            "together they walk {to}",
            "they go {to}",
            "the two friends run {to}",
            "then they travel {to}",
            "both of them walk {to}",
            "now the friends go {to}",
        ),
        "meet": (
            "{it} meets {friend} {place}",
            "{place} {it} finds {friend}",
            "then {friend} comes {place}",
            "now {it} meets {friend} {place}",
        ),
        "nightfall": (
            "night comes and the moon is out {place}",
            "soon it is dark {place}",
            "it is night {place}",
            "then night comes {place}",
            "{place} the moon is out",
        ),
        "sunrise": (
            "the sun comes up {place}",
            "in the morning the sun is out {place}",
            "a new day begins {place}",
            "{place} a new day begins",
            "then the sun is up {place}",
        ),
        "aside": (
            "{it} walks to the {side} {place}",
            "{place} {it} goes to the {side} side",
            "soon {it} goes to the {side} {place}",
            "then {it} walks to the {side} side {place}",
        ),
    },
    "fresh": {
        "travel": ("soon {it} goes {to}", "then {it} walks {to}", "soon {it} travels {to}"),
        "together": ("soon they run {to}", "the two friends go {to}", "together they travel {to}"),
        "meet": ("then {it} meets {friend} {place}", "soon {it} finds {friend} {place}"),
        "nightfall": ("soon it is night {place}", "then the moon comes out {place}", "{place} it is dark"),
        "sunrise": ("soon the sun is out {place}", "{place} the sun comes up"),
        "aside": ("then {it} goes to the {side} {place}", "soon {it} walks to the {side} side {place}"),
    },
}
TO_PLACE = {
    "forest": ("into the forest", "to the woods"),
    "meadow": ("to the meadow", "to the grassy meadow"),
    "beach": ("to the beach", "to the sea"),
    "city": ("to the city", "into the town"),
    "desert": ("into the desert", "to the hot desert"),
    "mountains": ("to the mountains", "up into the snowy mountains"),
}


def move_on(move: str, scene: Scene, rng: random.Random, visited: Collection[str] = ()) -> Scene:
    """The scene after a move, with fresh decor; it travels to none of the places that were visited.

    A lone hero stands in the middle unless it steps aside.
    """
    elsewhere = rng.choice([place for place in PLACES if place != scene.place and place not in visited])
    changes = {
        "travel": {"place": elsewhere, "side": "middle"},
        "together": {"place": elsewhere},
        "meet": {
            "side": "left" if scene.side == "middle" else scene.side,
            "companion": sample_character(rng, unlike=scene.hero),
        },
        "nightfall": {"time": "night"},
        "sunrise": {"time": "day"},
        "aside": {"side": rng.choice(("left", "right"))},
    }
    return replace(scene, decor=rng.getrandbits(32), **changes[move])


def tell(move: str, after: Scene, rng: random.Random, wording: str = "train") -> str:
    """The sentence of a move: the hero is "it" or "the fox", a new companion is named with its colour."""
    return sentence(
        rng.choice(MOVES[wording][move]).format(
            it=rng.choice(("it", f"the {after.hero.kind}")),
            to=rng.choice(TO_PLACE[after.place]),
            place=rng.choice(PLACE_PHRASES[after.place]),
            friend=name_character(after.companion, rng, wording) if after.companion else "",
            side=after.side,
        )
    )


def tell_end(scene: Scene, rng: random.Random, wording: str = "train") -> str:
    """The sentence with which a story ends after its last frame."""
    animals = " and the ".join(who.kind for who in scene.characters)
    sleep = "sleep" if scene.companion else "sleeps"
    ending = rng.choice(ENDINGS[wording]).format(
        animals=animals, sleep=sleep, place=rng.choice(PLACE_PHRASES[scene.place])
    )
    return f"{ending[0].upper()}{ending[1:]}"


def sample_story(rng: random.Random, colour_told: bool | None = None, wording: str = "train") -> Story:
    """A story of a training pair's hero; `colour_told` is drawn where it is not given."""
    if colour_told is None:
        colour_told = rng.random() < 0.5
    scene = replace(sample_scene(rng, companion=False), side="middle", time="day")
    hero = name_character(scene.hero, rng) if colour_told else article(scene.hero.kind)
    opening = rng.choice(OPENINGS[wording]).format(hero=hero, place=rng.choice(PLACE_PHRASES[scene.place]))
    steps = [Step(sentence(opening), scene)]
    for move in rng.choice(PLOTS):
        scene = move_on(move, scene, rng, {step.scene.place for step in steps})
        steps.append(Step(tell(move, scene, rng, wording), scene))
    return Story(tuple(steps), colour_told, tell_end(scene, rng, wording))


def is_sound(text: str) -> bool:
    """Whether a sentence is put together as StoryWorld's are: each three words in a row stand in one of its stories."""
    return _threes(text) <= _threes_of_stories()


def _threes(text: str) -> set[tuple[str, ...]]:
    words = ["", "", *split_words(text), "", ""]
    return set(zip(words, words[1:], words[2:], strict=False))


@cache
def _threes_of_stories() -> set[tuple[str, ...]]:
    # So many that of the sentences of other stories 99.9 % are sound.
    stories = [sample_story(random.Random(f"{wording}/{i}"), wording=wording) for wording in MOVES for i in range(5000)]
    return set().union(*(_threes(text) for each in stories for text in (*(s.text for s in each.steps), each.ending)))


def sample_talk(rng: random.Random) -> tuple[Turn, ...]:
    """A talk of two: one shows or names a scene, asks about it, and wishes for a picture of it at another time."""
    scene = sample_scene(rng)
    other_time = "day" if scene.time == "night" else "night"
    changed = replace(scene, time=other_time, decor=rng.getrandbits(32))
    place = rng.choice(PLACE_PHRASES[scene.place])
    it = "they" if scene.companion else "it"
    told = caption(scene, rng, brief=True)

    if rng.random() < 0.5:
        turns = [Turn("What do you see?", scene), Turn(told)]
    else:
        turns = [Turn(f"Draw this: {told}"), Turn("Here it is.", scene)]
    turns.append(Turn(f"Where {'are' if scene.companion else 'is'} {it}?"))
    turns.append(Turn(sentence(f"{it} {'are' if scene.companion else 'is'} {place}")))
    turns.append(Turn(f"What colour is the {scene.hero.kind}?"))
    turns.append(Turn(f"The {scene.hero.kind} is {scene.hero.colour}."))
    when = rng.choice(TIME_PHRASES[other_time])
    turns.append(Turn(f"Show {'them' if scene.companion else 'it'} {when}."))
    turns.append(Turn(f"Here {'they are' if scene.companion else 'it is'} {when}.", changed))
    return tuple(turns)
