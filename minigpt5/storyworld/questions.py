"""Questions about pictures, changes of them, wishes and what lies outside the world: each with its true reply.

A task is a function that makes an `Item` of a `random.Random`; `TASKS` has them all by the names that mixtures draw
them by. A reply is right by what it means, not by its words: `MARKS` has what counts for each kind of question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import groupby
from typing import Any

from minigpt5.data.tasks import CONTINUE, exchange
from minigpt5.readers.prompts import Message
from minigpt5.storyworld.draw import boxes, draw
from minigpt5.storyworld.language import (
    KNOWN_WORDS,
    PLACE_PHRASES,
    SIDE_PHRASES,
    SIDE_WORDS,
    TIME_PHRASES,
    WORD_PLACES,
    WORD_TIMES,
    article,
    caption,
    describes,
    imagine,
    name_character,
    plain_caption,
    read,
    sentence,
    split_words,
)
from minigpt5.storyworld.prompts import roughen
from minigpt5.storyworld.scene import (
    COLOURS,
    KINDS,
    LIGHTS,
    OPPOSITE,
    PLACES,
    SIDES,
    TIMES,
    Character,
    Scene,
    sample_character,
    sample_scene,
)
from minigpt5.storyworld.stories import TO_PLACE, sample_story, tell_end
from minigpt5.storyworld.wordings import CHANGES, END_QUESTIONS, OUTSIDE, QUESTIONS, SORRY, WISHES, Wording
from minigpt5.utils.boxes import format_box, parse_box, same_thing

Part = str | Scene
# Of prompts in training; replies are never rough.
ROUGH_SHARE = 0.7
COMPANION_SHARE = 0.4
# Where a wish names no place, and where it names no colour.
DEFAULT_PLACE = "meadow"
USUAL_COLOURS: dict[str, str] = dict(
    zip(KINDS, ("orange", "yellow", "red", "white", "pink", "blue", "green", "purple"), strict=True)
)
# Of what words are made up, which are none of those kept for judging and less like those of the world than a typo is.
WORDS = tuple(
    sorted({*KNOWN_WORDS, *(word for name in ("animal", "colour", "thing") for word in OUTSIDE[name]["train"])})
)
FRESH_WORDS = {word for wording in OUTSIDE.values() for text in wording["fresh"] for word in split_words(text)}
LIKE = 0.74
WHERE_OR_WHEN = tuple(
    phrase for phrases in (PLACE_PHRASES, TIME_PHRASES, SIDE_PHRASES) for told in phrases.values() for phrase in told
)
ORDINALS = ("first", "second", "third")
NUMBERS = ("none", "one", "two")
_DIGITS = {"one": "1", "two": "2", "three": "3"}


@dataclass(frozen=True)
class Item:
    """A question and its true reply: texts, and scenes where pictures stand.

    Args:
        kind: what is asked, for `MARKS` where words alone are replied.
        before: the questions and true replies of a chat that this one goes on.
    """

    kind: str
    question: tuple[Part, ...]
    answer: tuple[Part, ...]
    before: tuple[Item, ...] = ()

    @property
    def text(self) -> str:
        """What is replied in words."""
        return " ".join(part for part in self.answer if isinstance(part, str))

    @property
    def scene(self) -> Scene | None:
        """What the picture of the reply shows; `None` where it has none."""
        return next((part for part in self.answer if isinstance(part, Scene)), None)

    def messages(self, picture: Callable[[Scene], Any] = draw) -> list[Message]:
        """Question and reply as a chat; `picture` makes what stands for a scene."""

        def content(parts: Sequence[Part]) -> list[dict]:
            return [
                {"type": "image", "image": picture(part)} if isinstance(part, Scene) else {"type": "text", "text": part}
                for part in parts
            ]

        earlier = [message for item in self.before for message in item.messages(picture)]
        return [*earlier, *exchange(content(self.question), content(self.answer))]

    def unseen(self) -> Item:
        """The same without its question's pictures, which stand elsewhere or nowhere."""
        return replace(self, question=tuple(part for part in self.question if isinstance(part, str)))

    def roughened(self, rng: random.Random, wording: str = "train") -> Item:
        """The same, its last text typed as people do; see `roughen`."""
        *before, last = self.question
        return replace(self, question=(*before, roughen(last, rng, wording) if isinstance(last, str) else last))


def _worded(options: Wording, rng: random.Random, wording: str, **words: str) -> str:
    text = rng.choice(options[wording]).format(**words)
    return f"{text[0].upper()}{text[1:]}"


def _the(who: Character, rng: random.Random, colour: bool = True) -> str:
    """The fox, or where its colour may be told now and then the red fox."""
    return f"the {who.colour} {who.kind}" if colour and rng.random() < 0.4 else f"the {who.kind}"


def _or_it(animal: str, scene: Scene, rng: random.Random) -> str:
    """An animal by its name, or now and then "it", where it is alone."""
    return "it" if not scene.companion and rng.random() < 0.25 else animal


def _in_row(scene: Scene) -> list[Character]:
    """Who is there, from left to right."""
    return [who for who in scene.slots.values() if who]


def _with_colour(who: Character) -> str:
    return article(f"{who.colour} {who.kind}")


def _check(asked: str, seen: Iterable[tuple[str, bool]]) -> str:
    """What was asked for, and one by one what is there and whether it is that, in the same words.

    Replies that conclude begin with it. A small model cannot compare what it has not said, and so it has one way to
    compare to learn for all of them.
    """
    told = ", ".join(f"{what}: {'yes' if fits else 'no'}" for what, fits in seen)
    return f"{asked[0].upper()}{asked[1:]}? {told[0].upper()}{told[1:]}."


def _where(scene: Scene, side: str) -> str:
    """Which of two it is, by its side; nothing where it is alone."""
    return f" {SIDE_PHRASES[side][0]}" if scene.companion else ""


def _other(value: str, options: Sequence[str], rng: random.Random) -> str:
    return rng.choice([option for option in options if option != value])


def _scene(rng: random.Random, companion: bool | None = None) -> Scene:
    return sample_scene(rng, companion, companion_share=COMPANION_SHARE)


# What is asked about pictures.


def _animal(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    """Which animal it is, which both are, or which stands on a side."""
    scene = scene or _scene(rng)
    if scene.companion and rng.random() < 0.5:
        side = rng.choice([side for side, who in scene.slots.items() if who])
        who = scene.slots[side]
        assert who is not None, "a side was chosen on which somebody stands"
        text = _worded(QUESTIONS["animal there"], rng, wording, side=rng.choice(SIDE_PHRASES[side]))
        return Item("animal", (scene, text), (f"{article(who.kind).capitalize()}.",))
    names = " and ".join(article(who.kind) for who in scene.slots.values() if who)
    text = _worded(QUESTIONS["animals" if scene.companion else "animal"], rng, wording)
    return Item("animal", (scene, text), (f"{names.capitalize()}.",))


def _colour(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or _scene(rng)
    side, who = rng.choice([(side, who) for side, who in scene.slots.items() if who])
    animal = _or_it(f"the {who.kind}", scene, rng)
    text = _worded(QUESTIONS["colour"], rng, wording, animal=animal)
    return Item("colour", (scene, text), (f"The {who.kind}{_where(scene, side)} is {who.colour}.",))


def _place(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or _scene(rng)
    animal = _or_it(_the(rng.choice(scene.characters), rng), scene, rng)
    text = _worded(QUESTIONS["place"], rng, wording, animal=animal)
    return Item("place", (scene, text), (f"It is {PLACE_PHRASES[scene.place][0]}.",))


def _time(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or _scene(rng)
    return Item("time", (scene, _worded(QUESTIONS["time"], rng, wording)), (f"It is {scene.time}.",))


def _side(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or _scene(rng)
    side, who = rng.choice([(side, who) for side, who in scene.slots.items() if who])
    text = _worded(QUESTIONS["side"], rng, wording, animal=_or_it(_the(who, rng), scene, rng))
    return Item("side", (scene, text), (f"The {who.kind} is {SIDE_PHRASES[side][0]}.",))


def _yes_or_no(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    """Both answers equally often, about every attribute."""
    about = rng.choice(("animal", "animal", "animal", "colour", "place", "time", "side", "number"))
    yes = rng.random() < 0.5
    if scene is None:
        scene = _scene(rng, yes if about == "number" else None)
    elif about == "number":
        yes = scene.companion is not None
    side, who = rng.choice([(side, who) for side, who in scene.slots.items() if who])
    if about == "animal":
        if yes:
            named = article(who.kind if rng.random() < 0.5 else f"{who.colour} {who.kind}")
        else:
            named = _absent(scene, rng, wording)
        text = _worded(QUESTIONS["is there"], rng, wording, a_fox=named)
        asked, seen = named, [(_with_colour(other), yes and other == who) for other in _in_row(scene)]
    elif about == "time":
        time = scene.time if yes else _other(scene.time, TIMES, rng)
        text = _worded(QUESTIONS["is it now"], rng, wording, time=time)
        asked, seen = time, [(f"it is {scene.time}", yes)]
    elif about == "number":
        text = _worded(QUESTIONS["are there two"], rng, wording)
        asked, seen = "two animals", [(" and ".join(map(_with_colour, _in_row(scene))), yes)]
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
        animal = _or_it(_the(who, rng, colour=about != "colour"), scene, rng)
        so = rng.choice(phrases[told])
        text = _worded(QUESTIONS["is it so"], rng, wording, animal=animal, so=so)
        if animal == "it" and wording == "train":
            text = f"Is it {so}?"
        where = _where(scene, side) if about == "colour" else ""
        fact = truth if about == "colour" else phrases[truth][0]
        asked, seen = phrases[told][0], [(f"the {who.kind}{where} is {fact}", yes)]
    concluded = f" So {'yes' if yes else 'no'}." if len(seen) > 1 else ""
    return Item("yes or no", (scene, text), (f"{_check(asked, seen)}{concluded}",))


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
    scene = scene or _scene(rng, True if number == 2 else None)
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
    text = _worded(QUESTIONS["count"], rng, wording, foxes=foxes)
    seen = [(_with_colour(who), fits(who)) for who in _in_row(scene)]
    return Item("count", (scene, text), (f"{_check(foxes, seen)} So {NUMBERS[number]}.",))


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("x") else f"{kind}s"


def _which(rng: random.Random, wording: str) -> Item:
    """Which of two or three pictures alone shows something."""
    scene = _scene(rng)
    who = rng.choice(scene.characters)
    fits: Callable[[Any], bool]
    # What there is in a picture to be compared with what is asked for.
    seen: Callable[[Scene], list[tuple[Any, str]]]

    def animals(other: Scene) -> list[tuple[Any, str]]:
        return [(one, _with_colour(one)) for one in _in_row(other)]

    fox, red_fox = article(who.kind), _with_colour(who)
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
        other = _scene(rng)
        if not any(fits(one) for one, _ in seen(other)):
            others.append(other)
    scenes = others[: rng.choice((1, 2))]
    at = rng.randrange(len(scenes) + 1)
    scenes.insert(at, scene)
    text = _worded(QUESTIONS["which"], rng, wording, a_fox=what)
    told = []
    for ordinal, each in zip(ORDINALS, scenes, strict=False):
        (first, name), *rest = seen(each)
        told += [(f"{ordinal} {name}", fits(first)), *((name, fits(one)) for one, name in rest)]
    return Item("which", (*scenes, text), (f"{_check(asked, told)} So the {ORDINALS[at]} picture.",))


def _compare(rng: random.Random, wording: str) -> Item:
    """The one thing that differs between two pictures."""
    aspect = rng.choice(("colour", "animal", "place", "time"))
    before = _scene(rng)
    after, old, new = change(before, aspect, rng)
    # What carries no meaning differs too.
    after = replace(after, decor=rng.getrandbits(32))
    first, then = {
        "colour": (old.colour, new.colour),
        "animal": (article(old.kind), article(new.kind)),
        "place": (f"the {before.place}", f"the {after.place}"),
        "time": (before.time, after.time),
    }[aspect]
    text = _worded(QUESTIONS["compare"], rng, wording)
    return Item("compare", (before, after, text), (f"The {aspect}: first {first}, then {then}.",))


def _describe(rng: random.Random, wording: str, scene: Scene | None = None) -> Item:
    scene = scene or _scene(rng)
    return Item("describe", (scene, _worded(QUESTIONS["describe"], rng, wording)), (plain_caption(scene),))


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
    scene = _scene(rng)
    text = _worded(QUESTIONS["place and time"], rng, wording)
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
    scene = _scene(rng)
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
    return Item("ground", (scene, _worded(QUESTIONS["ground"], rng, wording, thing=thing)), (box,))


def refer(rng: random.Random, wording: str = "train") -> Item:
    """What a box shows."""
    scene, box, who, light = _boxed(rng)
    name = article(f"{who.colour} {who.kind}") if who else f"the {light}"
    text = _worded(QUESTIONS["refer"], rng, wording, box=box)
    return Item("refer", (scene, text), (f"{name.capitalize()}.",))


# Pictures that are wished for.


def change(scene: Scene, aspect: str, rng: random.Random) -> tuple[Scene, Character, Character]:
    """The scene with one of `CHANGES` made, and whom it is about, before and after; no held-out pair comes of it."""
    name = rng.choice(("hero", "companion")) if scene.companion else "hero"
    who: Character = getattr(scene, name)
    stays = scene.hero if name == "companion" else scene.companion
    if aspect == "place":
        return replace(scene, place=_other(scene.place, PLACES, rng)), who, who
    if aspect == "time":
        return replace(scene, time=_other(scene.time, TIMES, rng)), who, who
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
        scene = _scene(rng, companion)
    else:
        unfit = "add" if scene.companion else "remove"
        aspect = aspect or rng.choice([aspect for aspect in CHANGES if aspect != unfit])
    after, old, new = change(scene, aspect, rng)
    animal = _the(old, rng, colour=aspect not in ("colour", "animal"))
    asked, friend = animal.removeprefix("the "), f"{new.colour} {new.kind}"
    if rng.random() < 0.3:
        usual = Character(new.kind, USUAL_COLOURS[new.kind])
        if aspect in ("colour", "animal") and not scene.companion:
            animal = "it"
        elif aspect == "add" and usual.colour != scene.hero.colour:
            after, friend = replace(after, companion=usual), usual.kind
    text = _worded(
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
        seen = _check(article(asked), ((_with_colour(who), who == old) for who in _in_row(scene)))
        told = f"{seen} So {becomes[aspect]}. {told}"
    return Item(f"change {aspect}", (scene, text), (told, after))


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
        scene = _scene(rng, False)
        text = _worded(CHANGES["remove"], rng, wording, animal=_the(scene.hero, rng), it="it")
        return Item("outside", (scene, text), (SORRY["alone"],))
    kind = rng.choice(tuple(OUTSIDE))
    listed = word = rng.choice(OUTSIDE[kind][wording])
    if kind == "request":
        return Item("outside", (listed,), (SORRY[kind],))
    if kind == "unseen":
        scene = _scene(rng)
        animal = _or_it(_the(rng.choice(scene.characters), rng), scene, rng)
        return Item("outside", (scene, _worded(OUTSIDE[kind], rng, wording, animal=animal)), (SORRY[kind],))
    if wording == "train" and rng.random() < 0.5:
        # There are more words than any list has; alone, one that is made up could be an animal or a thing.
        at = rng.choice(("in the ", "in a ", "on the ", "on a ", "at the ")) if kind == "place" else ""
        word = f"{at}{_made_up(rng)}"
    scene = _scene(rng, False)
    who = scene.hero
    where = rng.choice(PLACE_PHRASES[scene.place])
    if rng.random() < 0.3:
        where = ""
    shown: tuple[Part, ...] = ()
    if kind != "place" and rng.random() < 0.3:
        shown = (scene,)
        if kind == "colour":
            told = article(f"{word} {who.kind}")
            text = _worded(CHANGES["colour"], rng, wording, animal=f"the {who.kind}", colour=word, a_red_fox=told)
        else:
            text = _worded(CHANGES["add"], rng, wording, a_red_fox=article(listed))
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


def ending(rng: random.Random, wording: str = "train") -> Item:
    """The end of a story: of one that was told to its last step, or of any where the end is asked for."""
    story = sample_story(rng, wording=wording)
    if rng.random() < 0.5:
        steps, text, end = story.steps, rng.choice(CONTINUE), story.ending
    else:
        steps = story.steps[: rng.randrange(2, len(story.steps) + 1)]
        text, end = rng.choice(END_QUESTIONS[wording]), tell_end(steps[-1].scene, rng, wording)
    shown = not story.colour_told or rng.random() < 0.7
    told = [part for step in steps for part in ((step.text, step.scene) if shown else (step.text,))]
    return Item("ending", (*told, text), (end,))


def turns(rng: random.Random, wording: str = "train") -> Item:
    """The last of two to four turns of a chat about a picture that is shown or wished for, and may be changed.

    In training twice as many turns are another wish.
    """
    earlier: list[Item] = []
    begin = paint if rng.random() < 0.5 else ASKED_OF_ONE[rng.choice(tuple(ASKED_OF_ONE))]
    item = begin(rng, wording)
    scene = item.scene or next(part for part in item.question if isinstance(part, Scene))
    for _ in range(rng.choice((1, 2, 3))):
        earlier.append(item)
        way = rng.random()
        if way < (0.2 if wording == "train" else 0.1):
            item = paint(rng, wording)
        elif way < 0.5:
            item = changed(rng, wording, scene=scene).unseen()
        else:
            item = ASKED_OF_ONE[rng.choice(tuple(ASKED_OF_ONE))](rng, wording, scene).unseen()
        scene = item.scene or scene
    return replace(item, before=tuple(earlier))


TASKS: dict[str, Callable[[random.Random, str], Item]] = {
    "question": question,
    "ground": ground,
    "refer": refer,
    "change": changed,
    "paint": paint,
    "outside": outside,
    "ending": ending,
    "turns": turns,
}


def training_item(task: str, rng: random.Random) -> Item:
    """An item of a task as training draws it, typed roughly now and then."""
    item = TASKS[task](rng, "train")
    return item.roughened(rng) if task != "ending" and rng.random() < ROUGH_SHARE else item


def fresh_items(
    make: Callable[[random.Random, str], Item], count: int, split: str = "test", wording: str = "fresh"
) -> Iterator[Item]:
    """Items that no training text has the wording of, of seeds that training never used."""
    for seed in range(count):
        yield make(random.Random(f"storyworld/{split}/{make.__name__}/{seed}"), wording)


# Marking.

Mark = Callable[[str, str], bool]


def conclusion(text: str) -> str:
    """What a reply says behind the comparison that it makes first, up to "So blue."; all of it, if that is nothing."""
    return re.split(r"\bSo [^.]*\.\s*", text)[-1] or text


def _told(text: str, meanings: Mapping[str, Any]) -> list:
    """What the words of a text mean, in their order; those without a meaning are passed over."""
    return [meanings[word] for word in split_words(text) if word in meanings]


def _same(meanings: Mapping[str, Any]) -> Mark:
    """Whether a reply names the same of some words' meanings as the true answer, and no other."""
    return lambda reply, truth: set(_told(reply, meanings)) == set(_told(truth, meanings))


def _same_conclusion(meanings: Mapping[str, Any], weak: Mapping[str, Any] | None = None, begins: bool = False) -> Mark:
    """Whether a reply concludes with the same of some words' meanings as the true answer.

    It concludes with its first word ("Yes, there is no doubt."), or with the last with a meaning ("A red cat: yes."),
    behind its last "so" if there is one there.

    Args:
        weak: words that count where no other does, as the "no" of "Two animals, no more."
        begins: the first with a meaning counts, not the last ("Two animals: one fox and one dog.").
    """

    def concluded(text: str) -> Any:
        whole = text.lower().replace("not true", "false")
        # What it says that it is not is no conclusion ("The second, not the first."), nor of how many it is one.
        whole = re.sub(r"\bnot (the |an? )?\w+|\bof (\d|two|three)\b", "", whole)
        whole = re.sub(r"\bpicture (one|two|three)\b", lambda told: f"picture {_DIGITS[told[1]]}", whole)
        *_, behind = re.split(r"\bso\b", whole)
        for said, known in ((behind, meanings), (whole, meanings), (behind, weak or {})):
            told = [word for word in re.findall(r"[a-z]+|\d+", said) if word in known]
            # A word of its own, not the first of several as in "Yes and no."
            front = re.match(r"\W*((?:yes|no|true|false)\b(?! and| or)|(?:[a-z]+|\d+)(?=[^\w\s]|\s*$))", said)
            if told:
                return known[told[0] if begins or (front and front[1] == told[0]) else told[-1]]
        return None

    return lambda reply, truth: concluded(reply) == concluded(truth)


def _same_difference(reply: str, truth: str) -> bool:
    """The same before and after, and nothing else that changes."""
    aspects = ({kind: kind for kind in KINDS}, {colour: colour for colour in COLOURS}, WORD_PLACES, WORD_TIMES)
    for meanings in aspects:
        told = (_told(text.lower().replace("time of day", ""), meanings) for text in (reply, truth))
        # "On the sand by the sea" names one place twice.
        one, other = ([meaning for meaning, _ in groupby(named)] for named in told)
        if one != other if other else len(set(one)) > 1:
            return False
    return True


def _same_description(reply: str, truth: str) -> bool:
    scene = imagine(truth)
    return scene is not None and describes(reply, scene)


def _same_thing(reply: str, truth: str) -> bool:
    lights = set(LIGHTS.values())
    one, other = ([(who.kind, who.colour) for who in read(text).mentions] for text in (reply, truth))
    return one == other and lights & set(split_words(reply)) == lights & set(split_words(truth))


def _same_box(reply: str, truth: str) -> bool:
    one, other = parse_box(reply), parse_box(truth)
    assert other is not None, f"the truth {truth!r} is no box"
    return one is not None and same_thing(one, other)


def _same_refusal(reply: str, truth: str) -> bool:
    """Whether it says sorry, and that nothing is seen or would be left where it is that, not elsewhere."""
    not_of_the_world = [SORRY[kind] for kind in ("unseen", "alone", "picture")]
    return says_sorry(reply) and all((text in reply) == (text == truth) for text in not_of_the_world)


MARKS: dict[str, Mark] = {
    "animal": _same({kind: kind for kind in KINDS}),
    "colour": _same({colour: colour for colour in COLOURS}),
    "place": _same(WORD_PLACES),
    "time": _same(WORD_TIMES),
    "place and time": _same(WORD_PLACES | WORD_TIMES),
    "side": _same(SIDE_WORDS),
    "yes or no": _same_conclusion({"yes": "yes", "true": "yes", "no": "no", "false": "no"}),
    "count": _same_conclusion(
        {"zero": 0, "nobody": 0, "single": 1, **{str(i): i for i in range(10)}}
        | {word: i for i, word in enumerate(NUMBERS)},
        weak={"no": 0},
        begins=True,
    ),
    "which": _same_conclusion({word: word for word in ORDINALS} | {str(i): word for i, word in enumerate(ORDINALS, 1)}),
    "compare": _same_difference,
    "describe": _same_description,
    "ground": _same_box,
    "refer": _same_thing,
    "outside": _same_refusal,
    "ending": lambda reply, truth: says_end(reply),
}


def says_sorry(text: str) -> bool:
    """Whether a reply says that it does not do what was asked for."""
    return "sorry" in split_words(text)


def says_end(text: str) -> bool:
    """Whether a reply ends a story."""
    return not {"end", "ends"}.isdisjoint(split_words(text))
