"""Stories of an engine, page by page, which may go on from any page in other words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

from minigpt5.data.tasks import continue_story, illustrate
from minigpt5.service.engine import LARGEST_SEED, Engine, Reply
from minigpt5.story import StoryStep, read_fitting


def tell(
    engine: Engine,
    told: Sequence[StoryStep],
    sentence: str | None,
    count: int,
    seed: int,
    image: Image.Image | None = None,
    began: Callable[[Reply], None] = lambda reply: None,
    image_mode: str = "auto",
    **options: Any,
) -> Iterator[StoryStep]:
    """The steps of a story behind those that are told, each as soon as it is painted.

    Args:
        told: the steps so far.
        sentence: of the next step, taken over as it is; without one the model goes on by itself.
        count: the most steps of the whole story.
        seed: of the first step; each step behind it has the next, so that a step can be repeated by itself.
        image: a picture of whom the story is about, for its opening.
        began: is told each reply that is on its way.
        image_mode: as in `minigpt5.story.tell_story`; a sentence that is given has a picture painted in any case.
        options: of `Engine.submit`.

    Raises:
        ValueError: for an empty sentence, or a story without an opening; and as `Engine.submit` does.
        CancelledError, DeadlineError, FailedError: where that ended a reply.
    """
    if (not told and sentence is None) or (sentence is not None and not sentence.strip()):
        raise ValueError("the sentence is empty; write what happens")
    texts, pictures = [step.text for step in told], [step.image for step in told]
    for index in range(len(told), count):
        first = sentence if index == len(told) else None
        mode = image_mode if first is None else "always"
        own = {"seed": (seed + index) % LARGEST_SEED, "image_mode": mode, "max_images": 1, "goes_on": index > len(told)}
        shown = pictures if index else [image]

        def question(texts: Sequence[str | None], pictures: Sequence[Any], words: str | None = first) -> list[dict]:
            return continue_story(texts, pictures) if words is None else illustrate(texts, pictures, words)

        reply = read_fitting(
            texts or [None], shown, question, lambda prompt, own=own: engine.submit(prompt, **own, **options)
        )
        began(reply)
        parts = reply.segments()
        words = " ".join(part for part in parts if isinstance(part, str))
        painted = next((part for part in parts if not isinstance(part, str)), None)
        step = StoryStep(index + 1, words if first is None else first, painted)
        if step.text or step.image:
            yield step
        if step.image is None:
            return
        texts.append(step.text)
        pictures.append(step.image)
