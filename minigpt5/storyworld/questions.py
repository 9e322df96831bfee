"""Questions about pictures, each with its true reply: what is there, which picture it is, where it stands."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minigpt5.storyworld.changes import change
from minigpt5.storyworld.draw import boxes
from minigpt5.storyworld.items import Item, check, in_row, or_it, other_than, random_scene, the, with_colour, worded
from minigpt5.storyworld.language import (
    NUMBERS,
    ORDINALS,
    PLACE_PHRASES,
    SIDE_PHRASES,
    TIME_PHRASES,
    article,
    plain_caption,
)
from minigpt5.storyworld.scene import COLOURS, KINDS, LIGHTS, PLACES, SIDES, TIMES, Character, Scene, sample_character
from minigpt5.storyworld.wordings import OUTSIDE, QUESTIONS
from minigpt5.utils.boxes import format_box


def _where(scene: Scene, side: str) -> str:
    """Which of two it is, by its side; nothing where it is alone."""
    return f" {SIDE_PHRASES[side][0]}" if scene.companion else ""


def _animal(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    """Which animal it is, which both are, or which stands on a side."""
    scene = scene or random_scene(rng)
    if scene.companion and rng.random() < 0.5:
        side = rng.choice([side for side, who in scene.slots.items() if who])
        who = scene.slots[side]
        assert who is not None, "a side was chosen on which somebody stands"
        text = worded(QUESTIONS["animal there"], rng, wording, side=rng.choice(SIDE_PHRASES[side]))
        return Item("animal", (scene, text), (f"{article(who.kind).capitalize()}.",))
    names = " and ".join(article(who.kind) for who in scene.slots.values() if who)
    text = worded(QUESTIONS["animals" if scene.companion else "animal"], rng, wording)
    return Item("animal", (scene, text), (f"{names.capitalize()}.",))


def _colour(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or random_scene(rng)
    side, who = rng.choice([(side, who) for side, who in scene.slots.items() if who])
    animal = or_it(f"the {who.kind}", scene, rng)
    text = worded(QUESTIONS["colour"], rng, wording, animal=animal)
    return Item("colour", (scene, text), (f"The {who.kind}{_where(scene, side)} is {who.colour}.",))


def _place(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or random_scene(rng)
    animal = or_it(the(rng.choice(scene.characters), rng), scene, rng)
    text = worded(QUESTIONS["place"], rng, wording, animal=animal)
    return Item("place", (scene, text), (f"It is {PLACE_PHRASES[scene.place][0]}.",))


def _time(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or random_scene(rng)
    return Item("time", (scene, worded(QUESTIONS["time"], rng, wording)), (f"It is {scene.time}.",))


def _side(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or random_scene(rng)
    side, who = rng.choice([(side, who) for side, who in scene.slots.items() if who])
    text = worded(QUESTIONS["side"], rng, wording, animal=or_it(the(who, rng), scene, rng))
    return Item("side", (scene, text), (f"The {who.kind} is {SIDE_PHRASES[side][0]}.",))


def _yes_or_no(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    """Both answers equally often, about every attribute."""
    about = rng.choice(("animal", "animal", "animal", "colour", "place", "time", "side", "number"))
    yes = rng.random() < 0.5
    if scene is None:
        scene = random_scene(rng, yes if about == "number" else None)
    elif about == "number":
        yes = scene.companion is not None
    side, who = rng.choice([(side, who) for side, who in scene.slots.items() if who])
    if about == "animal":
        if yes:
            named = article(who.kind if rng.random() < 0.5 else f"{who.colour} {who.kind}")
        else:
            named = _absent(scene, rng, wording)
        text = worded(QUESTIONS["is there"], rng, wording, a_fox=named)
        asked, seen = named, [(with_colour(other), yes and other == who) for other in in_row(scene)]
    elif about == "time":
        time = scene.time if yes else other_than(scene.time, TIMES, rng)
        text = worded(QUESTIONS["is it now"], rng, wording, time=time)
        asked, seen = time, [(f"it is {scene.time}", yes)]
    elif about == "number":
        text = worded(QUESTIONS["are there two"], rng, wording)
        asked, seen = "two animals", [(" and ".join(map(with_colour, in_row(scene))), yes)]
    else:
        truth, options = {
            "colour": (who.colour, COLOURS),
            "place": (scene.place, PLACES),
            "side": (side, SIDES),
        }[about]
        told = truth
        while not yes and (told == truth or Character(who.kind, told).held_out):
            told = rng.choice(options)
        phrases = {"place": PLACE_PHRASES, "side": SIDE_PHRASES}.get(about, {told: (told,)})
        animal = or_it(the(who, rng, colour=about != "colour"), scene, rng)
        so = rng.choice(phrases[told])
        text = worded(QUESTIONS["is it so"], rng, wording, animal=animal, so=so)
        # Training asks of "it" in this wording alone, judging in those of the list.
        if animal == "it" and wording == "train":
            text = f"Is it {so}?"
        where = _where(scene, side) if about == "colour" else ""
        fact = truth if about == "colour" else phrases[truth][0]
        asked, seen = phrases[told][0], [(f"the {who.kind}{where} is {fact}", yes)]
    concluded = f" So {'yes' if yes else 'no'}." if len(seen) > 1 else ""
    return Item("yes or no", (scene, text), (f"{check(asked, seen)}{concluded}",))


def _absent(scene: Scene, rng: random.Random, wording: str) -> str:
    """An animal that is not there: another kind, the same in another colour, or one that is not in the world."""
    kinds = {who.kind for who in scene.characters}
    way = rng.random()
    if way < 0.2:
        return article(rng.choice(OUTSIDE["animal"][wording]))
    while True:
        other = sample_character(rng)
        if way < 0.6 and other.kind not in kinds:
            return article(other.kind if rng.random() < 0.5 else f"{other.colour} {other.kind}")
        if way >= 0.6 and other.kind in kinds and other not in scene.characters:
            return article(f"{other.colour} {other.kind}")


def _count(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    """None, one and two equally often, where no scene is given that has not two."""
    number = rng.choice((0, 1, 2) if scene is None or scene.companion else (0, 1))
    scene = scene or random_scene(rng, True if number == 2 else None)
    kinds, colours = ({getattr(who, name) for who in scene.characters} for name in ("kind", "colour"))
    fits: Callable[[Character], bool]
    if number == 2 or (number == 1 and not scene.companion and rng.random() < 0.5):
        foxes, fits = "animals", lambda who: True
    elif rng.random() < 0.5:
        kind = rng.choice([kind for kind in KINDS if (kind in kinds) == (number == 1)])
        foxes, fits = _plural(kind), lambda who: who.kind == kind
    else:
        colour = rng.choice([colour for colour in COLOURS if (colour in colours) == (number == 1)])
        foxes, fits = f"{colour} animals", lambda who: who.colour == colour
    text = worded(QUESTIONS["count"], rng, wording, foxes=foxes)
    seen = [(with_colour(who), fits(who)) for who in in_row(scene)]
    return Item("count", (scene, text), (f"{check(foxes, seen)} So {NUMBERS[number]}.",))


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("x") else f"{kind}s"


def _which(rng: random.Random, wording: str) -> Item:
    """Which of two or three pictures alone shows something."""
    scene = random_scene(rng)
    who = rng.choice(scene.characters)
    fits: Callable[[Any], bool]
    # What there is in a picture to be compared with what is asked for.
    seen: Callable[[Scene], list[tuple[Any, str]]]

    def animals(other: Scene) -> list[tuple[Any, str]]:
        return [(one, with_colour(one)) for one in in_row(other)]

    fox, red_fox = article(who.kind), with_colour(who)
    what, asked, fits, seen = rng.choice(
        (
            (fox, fox, lambda one: one.kind == who.kind, animals),
            (red_fox, red_fox, lambda one: one == who, animals),
            (
                f"an animal {rng.choice(PLACE_PHRASES[scene.place])}",
                f"the {scene.place}",
                lambda place: place == scene.place,
                lambda other: [(other.place, f"the {other.place}")],
            ),
            (
                f"an animal {rng.choice(TIME_PHRASES[scene.time])}",
                scene.time,
                lambda time: time == scene.time,
                lambda other: [(other.time, other.time)],
            ),
        )
    )
    others = []
    while len(others) < 2:
        other = random_scene(rng)
        if not any(fits(one) for one, _ in seen(other)):
            others.append(other)
    scenes = others[: rng.choice((1, 2))]
    at = rng.randrange(len(scenes) + 1)
    scenes.insert(at, scene)
    text = worded(QUESTIONS["which"], rng, wording, a_fox=what)
    told = []
    for ordinal, each in zip(ORDINALS, scenes, strict=False):
        (first, name), *rest = seen(each)
        told += [(f"{ordinal} {name}", fits(first)), *((name, fits(one)) for one, name in rest)]
    return Item("which", (*scenes, text), (f"{check(asked, told)} So the {ORDINALS[at]} picture.",))


def _compare(rng: random.Random, wording: str) -> Item:
    """The one thing that differs between two pictures."""
    aspect = rng.choice(("colour", "animal", "place", "time"))
    before = random_scene(rng)
    after, old, new = change(before, aspect, rng)
    # What carries no meaning differs too.
    after = replace(after, decor=rng.getrandbits(32))
    first, then = {
        "colour": (old.colour, new.colour),
        "animal": (article(old.kind), article(new.kind)),
        "place": (f"the {before.place}", f"the {after.place}"),
        "time": (before.time, after.time),
    }[aspect]
    text = worded(QUESTIONS["compare"], rng, wording)
    return Item("compare", (before, after, text), (f"The {aspect}: first {first}, then {then}.",))


def _describe(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or random_scene(rng)
    return Item("describe", (scene, worded(QUESTIONS["describe"], rng, wording)), (plain_caption(scene),))


ASKED: dict[str, Callable[..., Item]] = {
    "animal": _animal,
    "colour": _colour,
    "place": _place,
    "time": _time,
    "side": _side,
    "yes or no": _yes_or_no,
    "count": _count,
    "which": _which,
    "compare": _compare,
    "describe": _describe,
}
# Of one picture, which may be given.
ASKED_OF_ONE = {kind: make for kind, make in ASKED.items() if kind not in ("which", "compare")}


def _place_and_time(rng: random.Random, wording: str) -> Item:
    scene = random_scene(rng)
    text = worded(QUESTIONS["place and time"], rng, wording)
    answer = f"It is {PLACE_PHRASES[scene.place][0]} {TIME_PHRASES[scene.time][0]}."
    return Item("place and time", (scene, text), (answer,))


# No task draws these, so that there is something for feedback to teach.
UNTAUGHT: dict[str, Callable[[random.Random, str], Item]] = {"place and time": _place_and_time}

# How often each kind is drawn: those that compare need the most examples, those that look one thing up by another more.
SHARES = dict.fromkeys(ASKED, 1) | {"colour": 3, "side": 3, "compare": 3, "yes or no": 6, "count": 6, "which": 6}


def question(rng: random.Random, wording: str = "train") -> Item:
    """A question about one picture or more, of any kind, as often as `SHARES` says."""
    (kind,) = rng.choices(tuple(SHARES), tuple(SHARES.values()))
    return ASKED[kind](rng, wording)


# Boxes.


def _boxed(rng: random.Random) -> tuple[Scene, str, Character | None, str]:
    """A scene, the box of a thing in it as text, whom it shows (`None` for sun and moon), and sun or moon."""
    scene = random_scene(rng)
    found, light = boxes(scene), LIGHTS[scene.time]
    who = None if light in found and rng.random() < 0.2 else rng.choice(scene.characters)
    return scene, format_box(found[who.kind if who else light]), who, light


def ground(rng: random.Random, wording: str = "train") -> Item:
    """The box of what a phrase names."""
    scene, box, who, light = _boxed(rng)
    thing = f"the {light}"
    if who:
        side = next(side for side, other in scene.slots.items() if other == who)
        thing = rng.choice((f"the {who.kind}", f"the {who.colour} {who.kind}", f"the animal {SIDE_PHRASES[side][0]}"))
    return Item("ground", (scene, worded(QUESTIONS["ground"], rng, wording, thing=thing)), (box,))


def refer(rng: random.Random, wording: str = "train") -> Item:
    """What a box shows."""
    scene, box, who, light = _boxed(rng)
    name = article(f"{who.colour} {who.kind}") if who else f"the {light}"
    text = worded(QUESTIONS["refer"], rng, wording, box=box)
    return Item("refer", (scene, text), (f"{name.capitalize()}.",))
