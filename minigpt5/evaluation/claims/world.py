"""The small world in which the claims are put to the test, and what is asked of it.

StoryWorld cut down to what a model of a few hundred thousand weights learns on a CPU core in minutes: one animal, four
kinds and colours, three places, 32×32 pixels. Everything else, drawing, language and truth, is StoryWorld's own.

A story has four steps. Where its last sentence *tells all*, nothing before it is needed to paint it. Where it *leaves
out*, it names time and side alone: the place was named by the sentence before and is in no picture yet, the colour is
in the pictures and was never named. So text alone and pictures alone each lack one thing, and both together none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from PIL import Image

from minigpt5.data.tasks import DRAW, caption_task, continue_story, draw_task, exchange, illustrate, story_context
from minigpt5.evaluation.items import CONTEXTS
from minigpt5.readers.prompts import Message
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.language import (
    PLACE_PHRASES,
    SIDE_PHRASES,
    TIME_PHRASES,
    article,
    caption,
    plain_caption,
    sentence,
)
from minigpt5.storyworld.scene import SIDES, TIMES, Character, Scene, split_rng
from minigpt5.storyworld.stories import TO_PLACE, Step, Turn

SIZE = 32
KINDS = ("cat", "bird", "turtle", "elephant")
COLOURS = ("red", "yellow", "blue", "white")
PLACES = ("forest", "beach", "city")
# How many looks each scene has; those of training and of what is asked are others.
LOOKS = 64
# Of stories whose last sentence leaves out.
SHARES = (0.0, 0.5, 1.0)
# In half of the training's stories.
TRAINED_SHARE = 0.5
DESCRIPTION_MARK = "[DST]"


@lru_cache(maxsize=2**16)
def picture(scene: Scene) -> Image.Image:
    """A scene drawn at the small world's size."""
    return draw(scene, SIZE)


def sample_scene(rng: random.Random, look: Callable[[random.Random], int]) -> Scene:
    """Any scene; `look` draws its decor."""
    hero = Character(rng.choice(KINDS), rng.choice(COLOURS))
    return Scene(hero, rng.choice(SIDES), rng.choice(PLACES), rng.choice(TIMES), decor=look(rng))


def training_look(rng: random.Random) -> int:
    """Of pictures to learn from."""
    return rng.randrange(LOOKS)


def fresh_look(rng: random.Random) -> int:
    """Of pictures that no training shows."""
    return LOOKS + rng.randrange(LOOKS)


def look_of(split: str) -> Callable[[random.Random], int]:
    """How the pictures of a split look."""
    return training_look if split == "train" else fresh_look


@dataclass(frozen=True)
class Story:
    """Four steps of one hero; `leaves_out` says that the last sentence does not tell all."""

    steps: tuple[Step, ...]
    leaves_out: bool


def sample_story(rng: random.Random, leaves_out: bool, look: Callable[[random.Random], int] = training_look) -> Story:
    """A story: who is where; something changes; a wish where to go; and there it is."""
    first = sample_scene(rng, look)
    hero = article(first.hero.kind) if leaves_out else f"{article(first.hero.colour)} {first.hero.kind}"
    where = rng.choice(PLACE_PHRASES[first.place])
    opening = f"{hero} is {where} {rng.choice(TIME_PHRASES[first.time])} {rng.choice(SIDE_PHRASES[first.side])}"
    steps = [Step(sentence(opening), first)]
    if rng.random() < 0.5:
        side = rng.choice([side for side in SIDES if side != first.side])
        second, told = (
            replace(first, side=side, decor=look(rng)),
            f"it goes and stands {rng.choice(SIDE_PHRASES[side])}",
        )
    else:
        time = TIMES[1 - TIMES.index(first.time)]
        second = replace(first, time=time, decor=look(rng))
        told = f"now it is there {rng.choice(TIME_PHRASES[time])}"
    steps.append(Step(sentence(told), second))
    goal = rng.choice([place for place in PLACES if place != first.place])
    steps.append(Step(sentence(f"it wants to go {rng.choice(TO_PLACE[goal])}"), replace(second, decor=look(rng))))
    last = replace(sample_scene(rng, look), hero=first.hero, place=goal)
    time, side = rng.choice(TIME_PHRASES[last.time]), rng.choice(SIDE_PHRASES[last.side])
    left = sentence(f"it gets there and stands {side} {time}")
    steps.append(Step(left if leaves_out else caption(last, rng), last))
    return Story(tuple(steps), leaves_out)


def stories(split: str, count: int, share: float) -> list[Story]:
    """The first stories of a split, of which a share leaves out; one that tells all at a share does so at a lower one.

    Raises:
        ValueError: if the share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of stories is between 0 and 1, got {share}")
    found = []
    for seed in range(count):
        rng = split_rng(split, seed)
        # Evenly spread, so that the share is exact for counts that it divides.
        leaves_out = int((seed + 1) * share) > int(seed * share)
        found.append(sample_story(rng, leaves_out, look_of(split)))
    return found


def sample_talk(rng: random.Random, look: Callable[[random.Random], int] = training_look) -> tuple[Turn, ...]:
    """A scene is shown or named, its colour asked for, and a picture at the other time wished for."""
    scene = sample_scene(rng, look)
    time = TIMES[1 - TIMES.index(scene.time)]
    told, when = caption(scene, rng), rng.choice(TIME_PHRASES[time])
    if rng.random() < 0.5:
        turns = [Turn("What do you see?", scene), Turn(told)]
    else:
        turns = [Turn(f"{DRAW[0]} {told}"), Turn("Here it is.", scene)]
    turns += [Turn(f"What colour is the {scene.hero.kind}?"), Turn(f"The {scene.hero.kind} is {scene.hero.colour}.")]
    return (*turns, Turn(f"Show it {when}."), Turn(f"Here it is {when}.", replace(scene, time=time, decor=look(rng))))


@dataclass(frozen=True)
class Question:
    """Something asked, and its true reply.

    Args:
        group: the caption, story or talk that it is of.
        messages: the prompt.
        sentence: what is to be painted, where that is given.
        text, scene: what the true reply says and shows.
        image_mode: "always" where the reply is a picture, "auto" where that is part of the question.
    """

    group: int
    messages: list[Message]
    sentence: str | None
    text: str | None
    scene: Scene | None
    image_mode: str = "always"


def _told(content: list[dict]) -> list[Message]:
    return [{"role": "user", "content": content}]


def captions(split: str, count: int) -> list[tuple[str, Scene]]:
    """The first captions of a split and what they tell of."""
    pairs = []
    for seed in range(count):
        rng = split_rng(split, 10**6 + seed)
        scene = sample_scene(rng, look_of(split))
        pairs.append((caption(scene, rng), scene))
    return pairs


def final(context: str, share: float) -> str:
    """The task of painting the last step under a context, of stories of which a share leaves out."""
    return f"final, {context} context, share {share:g}"


CAPTIONS, EVERY, NEXT, TURN = "captions", "every step", "next step", "next turn"
FINALS = tuple(final(context, share) for share in SHARES for context in CONTEXTS)
TASKS = (CAPTIONS, *FINALS, EVERY, NEXT, TURN)


def questions(task: str, split: str, count: int) -> list[Question]:
    """The questions of one of `TASKS`, of so many captions, stories or talks; each has equally many.

    Raises:
        ValueError: for another task.
    """
    if task == CAPTIONS:
        return [
            Question(i, _told(illustrate([], [], told)), told, None, scene)
            for i, (told, scene) in enumerate(captions(split, count))
        ]
    if task == TURN:
        return [question for i in range(count) for question in _turns(i, split)]
    if task in FINALS:
        share, context = next((s, c) for s in SHARES for c in CONTEXTS if task == final(c, s))
        return [_painted(i, story, 3, context) for i, story in enumerate(stories(split, count, share))]
    if task not in (EVERY, NEXT):
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    told = list(enumerate(stories(split, count, TRAINED_SHARE)))
    if task == EVERY:
        return [_painted(i, story, step, "image-text") for i, story in told for step in range(4)]
    return [
        Question(i, _told(continue_story(*_context(story, step, "image-text"))), None, *_step(story, step))
        for i, story in told
        for step in (1, 2, 3)
    ]


def _step(story: Story, step: int) -> tuple[str, Scene]:
    return story.steps[step].text, story.steps[step].scene


def _context(story: Story, step: int, context: str) -> tuple[list[str | None], list[Image.Image | None]]:
    with_text, with_pictures = CONTEXTS[context]
    before = story.steps[:step]
    return (
        [one.text if with_text else None for one in before],
        [picture(one.scene) if with_pictures else None for one in before],
    )


def _painted(group: int, story: Story, step: int, context: str) -> Question:
    text, scene = _step(story, step)
    return Question(group, _told(illustrate(*_context(story, step, context), text)), text, None, scene)


def _turns(group: int, split: str) -> list[Question]:
    talk = sample_talk(split_rng(split, 2 * 10**6 + group), look_of(split))
    messages, found = [], []
    for i, turn in enumerate(talk):
        if i % 2:
            found.append(Question(group, list(messages), None, turn.text, turn.scene, "auto"))
        shown = [picture(turn.scene)] if turn.scene else [None]
        messages.append({"role": ("user", "assistant")[i % 2], "content": story_context([turn.text], shown)})
    return found


@dataclass(frozen=True)
class Lesson:
    """A conversation to learn from, and what the picture that it paints shows: in its own words, and plainly."""

    messages: list[Message]
    own: str | None = None
    plain: str | None = None


def draw_lesson(told: str, scene: Scene, rng: random.Random) -> Lesson:
    """Paint a caption."""
    return Lesson(draw_task(told, picture(scene), rng), told, plain_caption(scene))


def caption_lesson(told: str, scene: Scene, rng: random.Random) -> Lesson:
    """Name what a picture shows."""
    return Lesson(caption_task(told, picture(scene), rng))


def describe_lesson(told: str, scene: Scene, rng: random.Random) -> Lesson:
    """Say plainly what a caption asks to paint."""
    return _lesson(illustrate([], [], told, rng), "", scene, "plain")


def story_lesson(story: Story, rng: random.Random, paints: str) -> Lesson:
    """A step of a story: half of the lessons ask for what happens next, half for a picture of a sentence.

    Args:
        paints: "vokens", "words" (a mark and a plain description in the picture's place), "plain" (that description
            where a picture alone is asked for, as a language model answers that cannot paint) or "nothing", which asks
            for what happens next alone.
    """
    tells = paints not in ("vokens", "plain") or rng.random() < 0.5
    step = rng.randrange(1 if tells else 0, 4)
    text, scene = _step(story, step)
    if tells:
        question = continue_story(*_context(story, step, "image-text"), rng)
        return _lesson(question, text, scene, paints)
    question = illustrate(*_context(story, step, rng.choice(list(CONTEXTS))), text, rng)
    return _lesson(question, "", scene, paints)


def talk_lesson(talk: Sequence[Turn], rng: random.Random, paints: str) -> Lesson:
    """A random turn of the second speaker; see `story_lesson`."""
    turn = rng.choice(range(1, len(talk), 2))
    before = [
        {"role": ("user", "assistant")[i % 2], "content": story_context([one.text], [one.scene and picture(one.scene)])}
        for i, one in enumerate(talk[:turn])
    ]
    own = _lesson([], talk[turn].text, talk[turn].scene, paints)
    return replace(own, messages=[*before, own.messages[-1]])


def _lesson(question: list[dict], text: str, scene: Scene | None, paints: str) -> Lesson:
    reply: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    if scene is None or paints == "nothing" or (paints == "plain" and text):
        return Lesson(exchange(question, reply))
    plain = plain_caption(scene)
    if paints == "plain":
        return Lesson(exchange(question, [{"type": "text", "text": plain}]))
    if paints == "words":
        return Lesson(exchange(question, [{"type": "text", "text": f"{text} {DESCRIPTION_MARK} {plain}"}]))
    return Lesson(exchange(question, [*reply, {"type": "image", "image": picture(scene)}]), text or plain, plain)
