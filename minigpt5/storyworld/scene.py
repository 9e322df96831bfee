"""What a StoryWorld picture shows, as plain data: one hero, one place, one time of day and perhaps a companion.

A `Scene` is the ground truth of one frame. Everything else derives from it: `draw` paints it, `language` words it, the
judge reads it back off a picture. Scenes are sampled from a `random.Random`, so a seed names a world.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = ("cat", "dog", "fox", "rabbit", "bear", "bird", "turtle", "elephant")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PLACES = ("forest", "meadow", "beach", "city", "desert", "mountains")
TIMES = ("day", "night")
SIDES = ("left", "middle", "right")
OPPOSITE = {"left": "right", "right": "left"}
LIGHTS = {"day": "sun", "night": "moon"}

# Pairs that no training picture or text ever shows, to measure composition: every kind and every colour once.
HELD_OUT = frozenset(zip(KINDS, ("blue", "pink", "green", "red", "purple", "white", "orange", "yellow"), strict=True))

SPLITS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Character:
    """An animal of `KINDS` in one of `COLOURS`."""

    kind: str
    colour: str

    @property
    def held_out(self) -> bool:
        """Whether no training picture shows this kind in this colour."""
        return (self.kind, self.colour) in HELD_OUT


@dataclass(frozen=True)
class Scene:
    """The ground truth of one frame.

    A lone hero stands on any of `SIDES`; beside a companion it stands left or right and the companion takes the other
    side. `decor` seeds what carries no meaning: the exact spot, clouds, stars, tufts of grass.
    """

    hero: Character
    side: str
    place: str
    time: str
    companion: Character | None = None
    decor: int = 0

    def __post_init__(self):
        if self.companion and self.side == "middle":
            raise ValueError("beside a companion the hero stands on the left or on the right, not in the middle")

    @property
    def characters(self) -> tuple[Character, ...]:
        """The hero, then the companion, if there is one."""
        return (self.hero, self.companion) if self.companion else (self.hero,)

    @property
    def slots(self) -> dict[str, Character | None]:
        """Who stands on each of `SIDES`: what a judge has to read off the picture, beside place and time."""
        slots: dict[str, Character | None] = dict.fromkeys(SIDES)
        slots[self.side] = self.hero
        if self.companion:
            slots[OPPOSITE[self.side]] = self.companion
        return slots


def split_rng(split: str, seed: int) -> random.Random:
    """A generator whose draws no other (split, seed) shares.

    Raises:
        ValueError: if `split` is not one of train, validation, test.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return random.Random(f"storyworld/{split}/{seed}")


def sample_character(rng: random.Random, held_out: bool = False, unlike: Character | None = None) -> Character:
    """A character from the training pairs, or from the held-out ones; never of `unlike`'s kind or colour."""
    while True:
        character = Character(rng.choice(KINDS), rng.choice(COLOURS))
        if character.held_out != held_out:
            continue
        if unlike is None or (character.kind != unlike.kind and character.colour != unlike.colour):
            return character


def sample_scene(
    rng: random.Random, companion: bool | None = None, held_out: bool = False, companion_share: float = 0.3
) -> Scene:
    """A scene.

    Args:
        companion: with or without one; `None` has one in `companion_share` of the scenes.
        held_out: whether the hero is of the pairs that training never shows; a companion never is.
    """
    if companion is None:
        companion = rng.random() < companion_share
    hero = sample_character(rng, held_out)
    return Scene(
        hero=hero,
        side=rng.choice(("left", "right") if companion else SIDES),
        place=rng.choice(PLACES),
        time=rng.choice(TIMES),
        companion=sample_character(rng, unlike=hero) if companion else None,
        decor=rng.getrandbits(32),
    )
