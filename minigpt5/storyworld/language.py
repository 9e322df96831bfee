"""How StoryWorld speaks: captions of scenes, and the reading of any text back into what it names.

Captions are put together from interchangeable phrases. `wording="fresh"` has word orders and namings that no
training text has, so that what is measured is understanding and not recall. What a caption leaves out has a default:
day, a lone hero in the middle, a first-named character on the left and the second on the right.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import cast

from minigpt5.storyworld.scene import COLOURS, KINDS, OPPOSITE, Character, Scene

WORDINGS = ("train", "fresh")

PLACE_PHRASES = {
    "forest": ("in the forest", "in the woods", "among the trees"),
    "meadow": ("in the meadow", "on the grass", "among the flowers"),
    "beach": ("on the beach", "by the sea", "on the sand by the sea"),
    "city": ("in the city", "in the town", "on a city street"),
    "desert": ("in the desert", "among the cactuses", "in the hot desert"),
    "mountains": ("in the mountains", "in the snow", "under the snowy mountains"),
}
TIME_PHRASES = {
    "day": ("by day", "in the sunshine", "on a sunny day", "under the sun"),
    "night": ("at night", "by night", "in the moonlight", "under the moon"),
}
SIDE_PHRASES = {
    "left": ("on the left", "on the left side"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "on the right side"),
}
VERBS = ("stands", "waits", "is", "rests")

# Word orders. {who} is the hero with its side, {pair} hero and companion with their sides.
LONE_ORDERS = {
    "train": (
        "{a_hero} {side} {place} {time}",
        "{a_hero} {place} {time} {side}",
        "{a_hero} {verb} {place} {side} {time}",
        "{place} {time}, {a_hero} {side}",
        "{time} {a_hero} {verb} {side} {place}",
        "{side} {a_hero}, {place} {time}",
        "a picture of {a_hero} {place} {side} {time}",
        "{time} {place}, {a_hero} {verb} {side}",
    ),
    "fresh": (
        "{side}, {time}, {a_hero} {verb} {place}",
        "{place} {a_hero} {verb} {time} {side}",
        "a picture {place} {time} of {a_hero} {side}",
        "{time} {side} {place}: {a_hero}",
        "{a_hero} {time}, {place}, {side}",
        "{a_hero} {verb} {time} {side} {place}",
    ),
}
PAIR_ORDERS = {
    "train": (
        "{a_hero} {side} and {a_companion} {other_side} {place} {time}",
        "{place} {time}, {a_hero} {side} and {a_companion} {other_side}",
        "{time} {a_hero} {side} meets {a_companion} {other_side} {place}",
        "{side} {a_hero} and {other_side} {a_companion}, {place} {time}",
        "a picture of {a_hero} {side} and {a_companion} {other_side} {place} {time}",
        "{a_hero} {verb} {side}, {a_companion} {verb} {other_side}, {place} {time}",
        "{side} {a_hero}, {other_side} {a_companion}: {place} {time}",
        "{place} {side} {a_hero}, {time} {other_side} {a_companion}",
        "{time}, {side} {a_hero} {verb} and {other_side} {a_companion} {place}",
    ),
    "fresh": (
        "{time} {place}: {side} {a_hero}, {other_side} {a_companion}",
        "{a_hero} {side} meets {a_companion} {other_side}, {time} {place}",
        "{place}, {a_hero} {verb} {side} and {a_companion} {other_side} {time}",
        "a picture {time} of {a_hero} {side} and {a_companion} {other_side} {place}",
        "{time} {a_hero} {verb} {side} {place} and {a_companion} {verb} {other_side}",
    ),
}
FRESH_CHARACTERS = ("a {kind} that is {colour}", "one {colour} {kind}", "the {colour} {kind}")


def article(word: str) -> str:
    """The word behind its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def name_character(character: Character, rng: random.Random, wording: str = "train") -> str:
    """A character with its colour, such as "a red fox" or "a fox that is red"."""
    if wording == "train" and rng.random() < 0.85:
        return f"{article(character.colour)} {character.kind}"
    templates = FRESH_CHARACTERS if wording == "fresh" else FRESH_CHARACTERS[:1]
    template = rng.choice(templates)
    text = template.format(kind=character.kind, colour=character.colour)
    return re.sub(r"^a (?=[aeiou])", "an ", text)


def caption(scene: Scene, rng: random.Random, wording: str = "train", brief: bool = False) -> str:
    """One of the many captions of a scene; `brief` leaves out now and then what the defaults say anyway.

    Raises:
        ValueError: if `wording` is neither train nor fresh.
    """
    if wording not in WORDINGS:
        raise ValueError(f"wording must be one of {', '.join(WORDINGS)}, got {wording!r}")
    default_side = "left" if scene.companion else "middle"
    leave_out_side = brief and scene.side == default_side and rng.random() < 0.4
    leave_out_time = brief and scene.time == "day" and rng.random() < 0.4
    orders = (PAIR_ORDERS if scene.companion else LONE_ORDERS)[wording]
    verb = rng.choice(VERBS)
    phrases = {
        "a_hero": name_character(scene.hero, rng, wording),
        "side": "" if leave_out_side else rng.choice(SIDE_PHRASES[scene.side]),
        "place": rng.choice(PLACE_PHRASES[scene.place]),
        "time": "" if leave_out_time else rng.choice(TIME_PHRASES[scene.time]),
        "verb": verb,
    }
    if scene.companion:
        phrases["a_companion"] = name_character(scene.companion, rng, wording)
        phrases["other_side"] = "" if leave_out_side else rng.choice(SIDE_PHRASES[OPPOSITE[scene.side]])
    return sentence(rng.choice(orders).format(**phrases))


def plain_caption(scene: Scene) -> str:
    """The one caption of what a scene shows, from left to right and always in the same words."""
    phrases = SIDE_PHRASES | PLACE_PHRASES | TIME_PHRASES
    first = {name: options[0] for name, options in phrases.items()}
    slots = {side: who for side, who in scene.slots.items() if who}
    who = " and ".join(f"{article(who.colour)} {who.kind} {first[side]}" for side, who in slots.items())
    return sentence(f"{who} {first[scene.place]} {first[scene.time]}")


def sentence(text: str) -> str:
    """White space and punctuation put right, a capital in front, a full stop behind."""
    text = re.sub(r"\s+", " ", text).strip(" ,:")
    text = re.sub(r"\s+([,.:])", r"\1", text)
    text = re.sub(r"([,:])[,:]+", r"\1", text)
    return f"{text[0].upper()}{text[1:]}."


# Words by which a text names a place or a time, for reading; single words, so that any word order is understood.
PLACE_WORDS = {
    "forest": ("forest", "woods", "trees", "tree"),
    "meadow": ("meadow", "flowers", "grass", "grassy"),
    "beach": ("beach", "sea", "sand"),
    "city": ("city", "town", "street"),
    "desert": ("desert", "cactuses", "cactus", "dunes"),
    "mountains": ("mountains", "snow", "snowy", "mountain"),
}
TIME_WORDS = {
    "day": ("day", "daytime", "sunshine", "sunny", "sun", "morning", "daylight"),
    "night": ("night", "nighttime", "moonlight", "moon", "dark", "stars"),
}
ORDINALS = ("first", "second", "third")
NUMBERS = ("none", "one", "two")
SIDE_WORDS = {"left": "left", "right": "right", "middle": "middle", "centre": "middle", "center": "middle"}


def _meanings(words_of: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {word: meaning for meaning, words in words_of.items() for word in words}


WORD_PLACES = _meanings(PLACE_WORDS)
WORD_TIMES = _meanings(TIME_WORDS)
KNOWN_WORDS = frozenset((*KINDS, *COLOURS, *WORD_PLACES, *WORD_TIMES))


@dataclass(frozen=True)
class Mention:
    """An animal that a text names; colour and side are `None` where it does not tell them."""

    kind: str
    colour: str | None = None
    side: str | None = None


@dataclass(frozen=True)
class Reading:
    """What a text names. `place` and `time` are `None` where it names none; the last one named counts."""

    mentions: tuple[Mention, ...]
    place: str | None
    time: str | None


def split_words(text: str) -> list[str]:
    """The lower-case words of a text."""
    return re.findall(r"[a-z]+", text.lower())


def read(text: str) -> Reading:
    """Read a text back into what it names.

    A colour belongs to the animal right behind it, or else to the one before it ("a fox that is red"). Sides belong to
    the animal before them, unless a side is named before any animal is: then each belongs to the animal behind it.
    """
    words = split_words(text)
    at = [i for i, word in enumerate(words) if word in KINDS]
    first_side = next((i for i, word in enumerate(words) if word in SIDE_WORDS), len(words))
    side_leads = bool(at) and first_side < at[0]

    mentions = []
    for n, i in enumerate(at):
        start = at[n - 1] + 1 if n else 0
        end = at[n + 1] if n + 1 < len(at) else len(words)
        before, behind = words[start:i], words[i + 1 : end]
        colour = before[-1] if before and before[-1] in COLOURS else None
        if colour is None:
            # The colour right before the next animal is that animal's own.
            own = behind[:-1] if end < len(words) else behind
            colour = next((word for word in own if word in COLOURS), None)
        side = next((SIDE_WORDS[word] for word in (before if side_leads else behind) if word in SIDE_WORDS), None)
        mentions.append(Mention(words[i], colour, side))

    places = [WORD_PLACES[word] for word in words if word in WORD_PLACES]
    times = [WORD_TIMES[word] for word in words if word in WORD_TIMES]
    return Reading(tuple(mentions), places[-1] if places else None, times[-1] if times else None)


def imagine(text: str) -> Scene | None:
    """The scene that a text describes, what it leaves out filled in by default; `None` if that is no scene."""
    reading, words = read(text), split_words(text)
    mentions = reading.mentions
    if any(len({known[word] for word in words if word in known}) > 1 for known in (WORD_PLACES, WORD_TIMES)):
        return None
    if not 1 <= len(mentions) <= 2 or reading.place is None or any(mention.colour is None for mention in mentions):
        return None
    characters = [Character(mention.kind, cast(str, mention.colour)) for mention in mentions]
    sides = [SIDE_WORDS[word] for word in words if word in SIDE_WORDS]
    if len(sides) > len(mentions) or len(set(sides)) < len(sides):
        return None
    if len(mentions) == 1:
        return Scene(characters[0], mentions[0].side or "middle", reading.place, reading.time or "day")
    side = mentions[0].side or OPPOSITE.get(mentions[1].side or "", "left")
    if side == "middle" or (mentions[1].side or OPPOSITE[side]) != OPPOSITE[side]:
        return None
    return Scene(characters[0], side, reading.place, reading.time or "day", characters[1])


def describes(text: str, scene: Scene) -> bool:
    """Whether a text describes just this scene: everybody on their side, the place and the time."""
    imagined = imagine(text)
    if imagined is None:
        return False
    return (imagined.slots, imagined.place, imagined.time) == (scene.slots, scene.place, scene.time)
