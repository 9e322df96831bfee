"""What is learnt from an item of a data set, as chat messages: the last one is the reply."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from minigpt5.readers.prompts import Message

LOOK = ("What do you see?", "What is in this picture?", "Describe this picture.")
DRAW = ("Draw this:", "Paint this:", "Make a picture of this:")
CONTINUE = ("What happens next?", "Tell me the next scene with a picture.", "How does it go on?")
NARRATE = ("Tell what happens here.", "Go on with this picture.")


class NothingToLearn(ValueError):
    """A row that is too short or too empty for a task; the message says why."""


def _picture(image: Any) -> dict:
    return {"type": "image", "image": image}


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def exchange(question: list[dict], answer: list[dict]) -> list[Message]:
    """A question and its reply."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def caption_task(caption: str, image: Any, rng: random.Random) -> list[Message]:
    """Name what a picture shows."""
    return exchange([_picture(image), _text(rng.choice(LOOK))], [_text(caption)])


def draw_task(caption: str, image: Any, rng: random.Random) -> list[Message]:
    """Paint a caption: unimodal alignment (arXiv 2310.02239, section 3.3)."""
    return exchange([_text(f"{rng.choice(DRAW)} {caption}")], [_picture(image)])


def story_context(texts: Sequence[str | None], images: Sequence[Any]) -> list[dict]:
    """The steps so far, each a sentence and its picture; either may be `None`."""
    parts = []
    for text, image in zip(texts, images, strict=True):
        parts += [_text(text)] if text is not None else []
        parts += [_picture(image)] if image is not None else []
    return parts


def continue_story(texts: Sequence[str | None], images: Sequence[Any], rng: random.Random | None = None) -> list[dict]:
    """The question for the next step of a story; worded in the first way without `rng`."""
    return [*story_context(texts, images), _text(rng.choice(CONTINUE) if rng else CONTINUE[0])]


def illustrate(
    texts: Sequence[str | None], images: Sequence[Any], sentence: str, rng: random.Random | None = None
) -> list[dict]:
    """The question for a picture of a sentence, in the light of earlier steps."""
    return [*story_context(texts, images), _text(f"{rng.choice(DRAW) if rng else DRAW[0]} {sentence}")]


def story_tasks(texts: Sequence[str], images: Sequence[Any], rng: random.Random, paint: bool = True) -> list[Message]:
    """One task of the multimodal stage on a random step: text and picture, picture for text, or text for picture.

    The context shows its pictures, or not, where its text tells enough (arXiv 2310.02239, section 3.3); `paint=False`
    asks for text alone.

    Raises:
        NothingToLearn: from a story of one step.
    """
    if len(texts) < 2:
        raise NothingToLearn(f"a story needs two steps, this one has {len(texts)}")
    step = rng.randrange(1, len(texts))
    shown = rng.random() < 0.7
    context_images = list(images[:step]) if shown else [None] * step
    task = rng.choice(("both", "both", "picture", "opening", "text")) if paint else rng.choice(("both", "text"))
    answer = [_text(texts[step])] + ([_picture(images[step])] if paint else [])
    if task == "both":
        return exchange(continue_story(texts[:step], context_images, rng), answer)
    if task == "text":
        question = [*story_context(texts[:step], context_images), _picture(images[step]), _text(rng.choice(NARRATE))]
        return exchange(question, [_text(texts[step])])
    if task == "opening":
        # A first sentence with a portrait of whom it is about: any other picture of the same story.
        portrait = rng.choice(images[1:]) if rng.random() < 0.6 else None
        return exchange(illustrate([None], [portrait], texts[0], rng), [_picture(images[0])])
    return exchange(illustrate(texts[:step], context_images, texts[step], rng), [_picture(images[step])])


def dialogue_task(texts: Sequence[str], images: Sequence[Any], rng: random.Random, paint: bool = True) -> list[Message]:
    """A random turn of the second speaker in the light of all turns before.

    Raises:
        NothingToLearn: from a talk of one turn, or in which the second speaker says and shows nothing.
    """
    if len(texts) < 2:
        raise NothingToLearn(f"a talk needs two turns, this one has {len(texts)}")
    said = [i for i in range(1, len(texts), 2) if texts[i].strip() or (paint and images[i] is not None)]
    if not said:
        raise NothingToLearn("the second speaker's turns are empty")
    turn = rng.choice(said)
    messages = []
    for i in range(turn + 1):
        parts = [_text(texts[i])]
        if images[i] is not None and (paint or i < turn):
            parts.append(_picture(images[i]))
        messages.append({"role": ("user", "assistant")[i % 2], "content": parts})
    return messages
