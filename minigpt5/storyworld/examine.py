"""Examinations of a pipeline on StoryWorld, marked by the judge: scenes and stories of seeds that training never used.

The `examine_` functions return figures in [0, 1]. What is told is worded in ways that no training text is;
a caption, a picture and a next step are asked for as in training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from minigpt5.data.tasks import caption_task, continue_story, illustrate
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers import Reader
from minigpt5.readers.prompts import Message
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.judge import Judge, Verdict, judge_accuracy, load_judge
from minigpt5.storyworld.language import SIDE_WORDS, caption, describes, read, split_words
from minigpt5.storyworld.scene import Character, Scene, sample_scene, split_rng
from minigpt5.storyworld.stories import Story, sample_story
from minigpt5.vokens.decoding import decode_texts

# What tells of more than one animal without naming it.
_SEVERAL = {"they", "together", "friends", "both"}


def sample_scenes(count: int, split: str = "test", **kind: Any) -> list[Scene]:
    """Fresh scenes; `kind` goes to `sample_scene`."""
    return [sample_scene(split_rng(split, seed), **kind) for seed in range(count)]


def fresh_captions(scenes: Sequence[Scene], wording: str = "fresh") -> list[str]:
    """A caption of each scene, by default in a wording that training never used."""
    return [caption(scene, random.Random(f"caption/{i}"), wording) for i, scene in enumerate(scenes)]


def hero_kept(verdict: Verdict, hero: Character) -> bool:
    """Whether the picture shows the hero in its kind and colour."""
    return hero in verdict.characters


def text_agrees(text: str, verdict: Verdict) -> bool:
    """Whether a picture shows all that a text names: everybody, in the colour told, the place and the time.

    Who is called "they" or friends are two, and who is alone stands on the side that is told. A text that names nothing
    agrees with nothing.
    """
    reading, words = read(text), split_words(text)
    if not (reading.mentions or reading.place or reading.time):
        return False
    for mention in reading.mentions:
        if not any(mention.kind == who.kind and mention.colour in (None, who.colour) for who in verdict.characters):
            return False
    if _SEVERAL.intersection(words) and len(verdict.characters) < 2:
        return False
    sides, scene = {SIDE_WORDS[word] for word in words if word in SIDE_WORDS}, verdict.scene
    if sides and scene and not scene.companion and scene.side not in sides:
        return False
    return reading.place in (None, verdict.place) and reading.time in (None, verdict.time)


def one_turn(question: list[dict]) -> list[dict]:
    """A question as chat messages."""
    return [{"role": "user", "content": question}]


def ask(
    pipe: MiniGPT5Pipeline,
    chats: Sequence[list[Message]],
    seed: int = 0,
    batch_size: int = 50,
    image_mode: str = "always",
    **options: Any,
) -> tuple[list[str], list[Any]]:
    """Replies to chats: their texts, and of each its picture or `None`; by default all have exactly one."""
    texts, pictures = [], []
    for start in range(0, len(chats), batch_size):
        batch = list(chats[start : start + batch_size])
        generators = [torch.Generator().manual_seed(seed * 100_003 + start + i) for i in range(len(batch))]
        output = pipe(batch, generator=generators, image_mode=image_mode, max_images=1, **options)
        texts += output.text
        pictures += [images[0] if images else None for images in output.images]
    return texts, pictures


def paint_captions(pipe: MiniGPT5Pipeline, captions: Sequence[str], **options: Any) -> list[Any]:
    """A picture of each caption, through the vokens; `options` go to `ask`."""
    return ask(pipe, [one_turn(illustrate([], [], caption)) for caption in captions], **options)[1]


def examine_painting(pipe: MiniGPT5Pipeline, scenes: Sequence[Scene], judge: Judge | None = None) -> dict[str, float]:
    """Attribute accuracy of pictures painted from captions through the vokens."""
    painted = paint_captions(pipe, fresh_captions(scenes))
    return judge_accuracy((judge or load_judge()).read(painted), list(scenes))


def examine_captions(reader: Reader, scenes: Sequence[Scene]) -> float:
    """The share of pictures whose caption names everything rightly."""
    questions = [
        one_turn(caption_task("", draw(scene), random.Random(i))[0]["content"]) for i, scene in enumerate(scenes)
    ]
    replies = decode_texts(reader, questions)
    return sum(map(describes, replies, scenes)) / len(scenes)


def sample_stories(count: int, colour_told: bool | None = None, split: str = "test") -> list[Story]:
    """Fresh stories in a wording that training never used; without `colour_told` every other one tells it."""
    return [
        sample_story(split_rng(split, seed), seed % 2 == 0 if colour_told is None else colour_told, "fresh")
        for seed in range(count)
    ]


def examine_next_step(
    pipe: MiniGPT5Pipeline, count: int, colour_told: bool, split: str = "test", judge: Judge | None = None
) -> dict[str, float]:
    """Ask for the next step after one to four true ones, whose colour is only said (no pictures) or only shown.

    Returns:
        "hero", the share of pictures with the hero in its kind and colour; "agrees", the share of replies whose text
        agrees with their own picture.
    """
    stories = sample_stories(count, colour_told, split)
    questions = []
    for i, story in enumerate(stories):
        steps = story.steps[: 1 + i % 4]
        pictures = [None if colour_told else draw(step.scene) for step in steps]
        questions.append(one_turn(continue_story([step.text for step in steps], pictures)))
    texts, painted = ask(pipe, questions)
    verdicts = (judge or load_judge()).read(painted)
    kept = [hero_kept(verdict, story.steps[0].scene.hero) for verdict, story in zip(verdicts, stories, strict=True)]
    agrees = [text_agrees(text, verdict) for text, verdict in zip(texts, verdicts, strict=True)]
    return {"hero": sum(kept) / count, "agrees": sum(agrees) / count}


def run_stories(
    pipe: MiniGPT5Pipeline, stories: Sequence[Story], steps: int = 5, seed: int = 0, **options: Any
) -> list[list[tuple[str, Any]]]:
    """Let the pipeline tell stories from their first sentence, with a portrait where the colour is not told.

    `options` go to the pipeline; another seed paints, and where `do_sample` is set tells, another story.
    """
    openings = [story.steps[0].text for story in stories]
    portraits = [None if story.colour_told else draw(story.steps[0].scene) for story in stories]
    _, painted = ask(
        pipe,
        [one_turn(illustrate([None], [portrait], text)) for portrait, text in zip(portraits, openings, strict=True)],
        seed=steps * seed,
        **options,
    )
    told = [[(text, picture)] for text, picture in zip(openings, painted, strict=True)]
    for step in range(1, steps):
        questions = [one_turn(continue_story([text for text, _ in story], [one for _, one in story])) for story in told]
        for story, text, picture in zip(told, *ask(pipe, questions, seed=steps * seed + step, **options), strict=True):
            story.append((text, picture))
    return told


def examine_stories(
    pipe: MiniGPT5Pipeline, count: int, split: str = "test", judge: Judge | None = None
) -> dict[str, float]:
    """Free-running five-step stories, half with the colour said and half with it shown.

    Returns:
        "hero_in_all", the share of stories with the hero in all pictures; "hero", of pictures with the hero;
        "agrees", of steps after the first whose text agrees with their own picture.
    """
    stories = sample_stories(count, split=split)
    told = run_stories(pipe, stories)
    judge = judge or load_judge()
    kept, agrees = [], []
    for story, steps in zip(stories, told, strict=True):
        verdicts = judge.read([picture for _, picture in steps])
        kept.append([hero_kept(verdict, story.steps[0].scene.hero) for verdict in verdicts])
        agrees += [text_agrees(text, verdict) for (text, _), verdict in list(zip(steps, verdicts, strict=True))[1:]]
    return {
        "hero_in_all": sum(map(all, kept)) / count,
        "hero": sum(map(sum, kept)) / (count * len(kept[0])),
        "agrees": sum(agrees) / len(agrees),
    }
