"""The tasks by name, from single questions to chats, and how training and judging draw items of them.

A task is a function that makes an `Item` of a `random.Random`; `TASKS` has them all by the names that mixtures draw
them by.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from minigpt5.data.tasks import CONTINUE
from minigpt5.storyworld.changes import changed
from minigpt5.storyworld.items import Item
from minigpt5.storyworld.questions import ASKED_OF_ONE, ground, question, refer
from minigpt5.storyworld.scene import Scene
from minigpt5.storyworld.stories import sample_story, tell_end
from minigpt5.storyworld.wishes import outside, paint
from minigpt5.storyworld.wordings import END_QUESTIONS

# Of prompts in training; replies are never rough.
ROUGH_SHARE = 0.7


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
