"""Wishes that text and pictures reply to, from the files that benchmarks of interleaved generation come in.

What a file says that its layout does not have is an error which names file, row and field.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from minigpt5.data.layouts import chat_lines, existing
from minigpt5.evaluation.items import Criterion, Item, checked, pieces_of, text_part, user_message
from minigpt5.readers.prompts import Message
from minigpt5.utils.json_files import field, read_json, read_json_lines, said, shortened

# OpenING's, by the names of its judges (arXiv 2411.18499, section 3.3), each in a sentence.
OPENING_CRITERIA = tuple(
    Criterion(name, statement, 10)
    for name, statement in {
        "Correctness": "Text and pictures are there, are true, and do what the input asks for.",
        "Image-Text Coherency": "The pictures show what the text beside them says.",
        "Multi-step Consistency": "Style, persons and things stay the same over all pictures, and the steps follow on.",
        "Content Quality": "The pictures are clear and look real, and the language has no mistakes.",
        "Human Preference Alignment": "Nothing in it is harmful or unpleasant, and the pictures please.",
        "Completeness": "No step that the input asks for is left out.",
        "Content Richness": "The pictures are varied, and the text is detailed and says something.",
    }.items()
)


def wish_items(data: Path, count: int | None = None) -> list[Item]:
    """The last reply of each conversation, a line of a file in the layout of chats, with the first of its pictures.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.data.layouts`; or if there is nothing to ask.
    """
    items = []
    for number, (_, _, (*question, reply)) in enumerate(islice(chat_lines(existing(data)), count)):
        text = " ".join(part["text"] for part in reply["content"] if part["type"] == "text")
        picture = next((part["image"] for part in reply["content"] if part["type"] == "image"), None)
        items.append(_item(number, question, OPENING_CRITERIA, text=text or None, picture=picture))
    return checked(items, str(data))


def opening_items(data: Path, count: int | None = None) -> list[Item]:
    """OpenING's instances, a line each of `test_data.jsonl` (arXiv 2411.18499).

    An instance is `{"conversations": [{"input": [{"text": …, "image": PATH or null}, …]}, {"output": […]}]}`, paths
    relative to the file; the marks `<BEGIN>` and `<image>` in its texts are left out. Its own output is not compared
    with: replies are judged by `OPENING_CRITERIA`.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if a line is anything else; names the file, line and field.
    """
    items = []
    for number, (place, line) in enumerate(islice(read_json_lines(existing(data)), count)):
        conversations = field(line, "conversations", list, place)
        asked = field(conversations[0] if conversations else None, "input", list, f"{place}, conversations[0]")
        parts: list[dict[str, Any]] = []
        for i, step in enumerate(asked):
            where = f"{place}, conversations[0].input[{i}]"
            text = field(step, "text", str, where).replace("<BEGIN>", "").replace("<image>", "").strip()
            parts += [text_part(text)] if text else []
            if step.get("image") is not None:
                parts.append({"type": "image", "image": str(data.parent / said(step, "image", where))})
        if not parts:
            raise ValueError(f"{place}: the input says and shows nothing")
        items.append(_item(number, user_message(parts), OPENING_CRITERIA))
    return checked(items, str(data))


def ueval_items(data: Path, count: int | None = None) -> list[Item]:
    """UEval's questions, a JSON list with the columns of its data set (arXiv 2601.22155).

    A question is `{"prompt": …, "text_rubrics": […], "image_rubrics": […]}`; a rubric is a string, or an object whose
    `criterion` is one. Each is met or not, and "text" and "image" are the shares that are. A judge sees the whole reply
    for both, where UEval's own script shows it the text alone for rubrics of text.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is in another form, or a question has no rubric; names the file, row and field.
    """
    items = []
    for number, row in enumerate(read_json(existing(data), list)[:count]):
        place = f"{data}, [{number}]"
        prompt = said(row, "prompt", place)
        criteria = [
            Criterion(name, _rubric(rubric, f"{place}.{name}_rubrics[{i}]"), 1)
            for name in ("text", "image")
            for i, rubric in enumerate(field(row, f"{name}_rubrics", list, place))
        ]
        if not criteria:
            raise ValueError(f"{place}: text_rubrics and image_rubrics are empty, so there is nothing to judge by")
        items.append(_item(number, user_message([text_part(prompt)]), tuple(criteria)))
    return checked(items, str(data))


def _rubric(rubric: Any, place: str) -> str:
    if isinstance(rubric, dict):
        return said(rubric, "criterion", place)
    if not isinstance(rubric, str) or not rubric.strip():
        raise ValueError(f"{place}: expected a text or an object with criterion, got {shortened(rubric)}")
    return rubric


def _item(
    number: int,
    prompt: list[Message],
    criteria: tuple[Criterion, ...],
    text: str | None = None,
    picture: str | None = None,
) -> Item:
    name = f"{number:06}"
    return Item(name, name, "reply", pieces_of(prompt), None, text, picture, "auto", prompt, criteria=criteria)


# How the items of each layout are made.
INTERLEAVED = {"chat": wish_items, "opening": opening_items, "ueval": ueval_items}
