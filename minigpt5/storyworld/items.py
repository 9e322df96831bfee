"""What is asked and what is replied: one `Item` of any task, and the words that questions and wishes share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigpt5.data.tasks import exchange
from minigpt5.readers.prompts import Message
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.language import article
from minigpt5.storyworld.prompts import roughen
from minigpt5.storyworld.scene import KINDS, Character, Scene, sample_scene
from minigpt5.storyworld.wordings import Wording

Part = str | Scene
COMPANION_SHARE = 0.4
# Of an animal whose colour is not told.
USUAL_COLOURS: dict[str, str] = dict(
    zip(KINDS, ("orange", "yellow", "red", "white", "pink", "blue", "green", "purple"), strict=True)
)


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


def worded(options: Wording, rng: random.Random, wording: str, **words: str) -> str:
    """One of the wordings, its slots filled with the words, as the beginning of a sentence."""
    text = rng.choice(options[wording]).format(**words)
    return f"{text[0].upper()}{text[1:]}"


def the(who: Character, rng: random.Random, colour: bool = True) -> str:
    """The fox, or where its colour may be told now and then the red fox."""
    return f"the {who.colour} {who.kind}" if colour and rng.random() < 0.4 else f"the {who.kind}"


def or_it(animal: str, scene: Scene, rng: random.Random) -> str:
    """An animal by its name, or now and then "it", where it is alone."""
    return "it" if not scene.companion and rng.random() < 0.25 else animal


def in_row(scene: Scene) -> list[Character]:
    """Who is there, from left to right."""
    return [who for who in scene.slots.values() if who]


def with_colour(who: Character) -> str:
    """A red fox."""
    return article(f"{who.colour} {who.kind}")


def check(asked: str, seen: Iterable[tuple[str, bool]]) -> str:
    """What was asked for, and one by one what is there and whether it is that, in the same words.

    Replies that conclude begin with it. A small model cannot compare what it has not said, and so it has one way to
    compare to learn for all of them.
    """
    told = ", ".join(f"{what}: {'yes' if fits else 'no'}" for what, fits in seen)
    return f"{asked[0].upper()}{asked[1:]}? {told[0].upper()}{told[1:]}."


def other_than(value: str, options: Sequence[str], rng: random.Random) -> str:
    """One of the options that is not this one."""
    return rng.choice([option for option in options if option != value])


def random_scene(rng: random.Random, companion: bool | None = None) -> Scene:
    """A scene, in `COMPANION_SHARE` of two animals where that is not asked for."""
    return sample_scene(rng, companion, companion_share=COMPANION_SHARE)
