"""What systems are asked: items of CC3M, VIST and MMDialog, with what the data set has in the reply's place.

Items hold texts and paths; pictures are opened when a prompt is built. Prompts are worded as this library's training is
("chat"), or as the published checkpoints' was ("published").
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from minigpt5.data.layouts import PictureFile, cc3m_rows, mmdialog_rows, vist_rows
from minigpt5.data.published import ANSWER, CONTINUE, ILLUSTRATE, clean_caption, story_so_far, talk_so_far
from minigpt5.data.tasks import DRAW, continue_story, story_context
from minigpt5.readers.prompts import Example, Message, Prompt
from minigpt5.utils.images import open_image

PROMPTS = ("chat", "published")
# What of the earlier steps is given: (texts, pictures), arXiv 2310.02239, table 1.
CONTEXTS = {"no": (False, False), "text": (True, False), "image": (False, True), "image-text": (True, True)}
# An item of any kind.
Asked = TypeVar("Asked")
STORY_TASKS = (*(f"final, {name} context" for name in CONTEXTS), "every step", "next step")


class Criterion(NamedTuple):
    """What a judge is asked about a reply.

    Args:
        name: of the figure; criteria of one name are averaged.
        statement: what the reply should be.
        most: the best mark; the worst is 0.
    """

    name: str
    statement: str
    most: int


@dataclass(frozen=True)
class Item:
    """One question.

    Args:
        id: unique in its data set, and fit for a file's name.
        group: the caption, story or talk it belongs to; items of one group are not independent of each other.
        task: what is asked; figures are taken apart by it.
        context: the steps before, each a text and a picture's path; either may be `None`.
        sentence: what is to be painted, where it is given.
        text, picture: what the data set has as the reply; the picture as a path.
        image_mode: "always" where the reply is a picture, "auto" where that is part of the question, "never" where only
            words are asked for.
        unopened: the prompt with paths in the place of pictures.
        captions: what people said that the picture shows, where several did.
        answers: what people answered to a question that asks for a word or two.
        box: of the thing that is to be found in the picture, in shares of its width and height.
        criteria: what a judge is asked about the reply.
    """

    id: str
    group: str
    task: str
    context: tuple[tuple[str | None, str | None], ...]
    sentence: str | None
    text: str | None
    picture: str | None
    image_mode: str
    unopened: Prompt
    captions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    box: tuple[float, ...] | None = None
    criteria: tuple[Criterion, ...] = ()

    @property
    def paths(self) -> list[str]:
        """The pictures that it needs: of its context and its own."""
        return [path for path in (*(path for _, path in self.context), self.picture) if path is not None]

    @property
    def asked(self) -> str:
        """What tells the question from others, whatever the data set has as the reply: 16 hexadecimal digits."""
        return hashlib.sha256(repr((self.image_mode, self.unopened)).encode()).hexdigest()[:16]

    def prompt(self) -> Prompt:
        """The prompt with its pictures opened."""
        if isinstance(self.unopened, Example):
            return replace(self.unopened, images=[open_image(cast(str, path)) for path in self.unopened.images])
        return opened(cast(list[Message], self.unopened))


def opened(messages: Sequence[Message]) -> list[Message]:
    """Messages with paths for pictures, with these opened."""
    return [message | {"content": [_opened(part) for part in message["content"]]} for message in messages]


def _opened(part: dict) -> dict:
    return part | {"image": open_image(part["image"])} if part["type"] == "image" else part


def text_part(text: str) -> dict:
    """Text in a message's content."""
    return {"type": "text", "text": text}


def user_message(content: list[dict]) -> list[Message]:
    """A conversation of one question."""
    return [{"role": "user", "content": content}]


def pieces_of(prompt: Sequence[Message]) -> tuple[tuple[str | None, str | None], ...]:
    """What messages with paths for pictures say and show, each piece a text or a path, as an item's context."""
    return tuple((part.get("text"), part.get("image")) for message in prompt for part in message["content"])


def alignment_items(root: str | Path, split: str, count: int | None = None, prompts: str = "chat") -> list[Item]:
    """A picture for each caption of CC3M that says something.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.data.layouts`; or if there is nothing to ask.
    """
    items = []
    for number, row in enumerate(islice(cc3m_rows(root, split), count)):
        name, caption, picture = f"{number:06}", row.texts[0], cast(PictureFile, row.pictures[0]).path
        if not caption.strip():
            continue
        prompt: Prompt = user_message([text_part(DRAW[0]), text_part(caption)])
        if prompts == "published":
            prompt = Example([clean_caption(caption)], (), caption=caption)
        items.append(Item(name, name, "caption to picture", (), caption, None, picture, "always", prompt))
    return checked(items, f"the split {split} of {root}")


def story_items(
    root: str | Path,
    split: str,
    count: int | None = None,
    prompts: str = "chat",
    tasks: Iterable[str] = STORY_TASKS,
) -> list[Item]:
    """What is asked of the first `count` stories of VIST (arXiv 2310.02239, section 4.2).

    "final, … context" has the picture of the last sentence painted under a part of what was before; "every step" the
    picture of each step's sentence after all true steps before it; "next step" has text and picture of each step but
    the first told after all true steps before it. A step without a word has no sentence to be painted.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.data.layouts`; or if there is nothing to ask.
    """
    items = []
    tasks = tuple(tasks)
    for number, row in enumerate(islice(vist_rows(root, split), count)):
        steps = [(text, cast(PictureFile, one).path) for text, one in zip(row.texts, row.pictures, strict=True)]
        for task in tasks:
            texts, pictures = CONTEXTS[task.split()[1]] if task.startswith("final") else (True, True)
            asked = range(len(steps))[-1:] if task.startswith("final") else range(task == "next step", len(steps))
            for step in asked:
                text, picture = steps[step]
                if task != "next step" and not text.strip():
                    continue
                before = [(text if texts else None, path if pictures else None) for text, path in steps[:step]]
                context = tuple(part for part in before if part != (None, None))
                sentence = None if task == "next step" else text
                slug = task.replace(", ", "-").replace(" ", "-")
                items.append(
                    Item(
                        f"{number:06}-{slug}-{step + 1}",
                        f"{number:06}",
                        task,
                        context,
                        sentence,
                        text,
                        picture,
                        "always",
                        _story_prompt(context, sentence, prompts),
                    )
                )
    return checked(items, f"the split {split} of {root}")


def _story_prompt(context: Sequence[tuple[str | None, str | None]], sentence: str | None, prompts: str) -> Prompt:
    texts, paths = [text for text, _ in context], [path for _, path in context]
    if prompts == "published":
        question = CONTINUE[0] if sentence is None else f"{ILLUSTRATE[0]} {sentence}"
        shown: list[Any] = [path for path in paths if path is not None]
        return Example([*story_so_far(texts, paths), question, ANSWER], (), shown, caption=sentence)
    if sentence is None:
        return user_message(continue_story(texts, paths))
    # The sentence on its own: it is what a baseline without context paints.
    return user_message([*story_context(texts, paths), text_part(DRAW[0]), text_part(sentence)])


def dialogue_items(root: str | Path, split: str, count: int | None = None, prompts: str = "chat") -> list[Item]:
    """The second speaker's turns in the first `count` talks of MMDialog, each after all turns before it.

    In published prompts each turn but the first is asked for, after the two or three turns before it. A talk ends
    before the first turn whose picture is missing: many can no longer be downloaded.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.data.layouts`; or if there is nothing to ask.
    """
    items = []
    for number, row in enumerate(islice(mmdialog_rows(root, split), count)):
        turns = list(_until_missing(row.texts, row.pictures))
        for turn in range(1, len(turns), 1 if prompts == "published" else 2):
            text, picture = turns[turn]
            if not text.strip() and picture is None:
                continue
            name, group, context = f"{number:06}-{turn + 1}", f"{number:06}", tuple(turns[:turn])
            if prompts == "published":
                source, shown = talk_so_far(context)
                prompt: Prompt = Example(source, (), shown)
            else:
                prompt = [
                    {"role": ("user", "assistant")[i % 2], "content": story_context([said], [path])}
                    for i, (said, path) in enumerate(context)
                ]
            items.append(Item(name, group, "next turn", context, None, text, picture, "auto", prompt))
    return checked(items, f"the split {split} of {root}")


def _until_missing(texts: Sequence[str], pictures: Sequence[PictureFile | None]) -> Iterable[tuple[str, str | None]]:
    for text, picture in zip(texts, pictures, strict=True):
        if picture is not None and not os.path.exists(picture.path):
            return
        yield text, picture and picture.path


def checked(items: list[Asked], place: str) -> list[Asked]:
    """The items, if there are any.

    Raises:
        ValueError: naming the place, if there is nothing to ask.
    """
    if not items:
        raise ValueError(f"{place} holds nothing to ask")
    return items


# How the items of each layout are made.
ITEMS = {"cc3m": alignment_items, "vist": story_items, "mmdialog": dialogue_items}
