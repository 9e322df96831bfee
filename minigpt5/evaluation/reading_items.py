"""Questions about pictures that are replied to in words, each layout from the file that its data set comes in.

A wording is a prompt in which `{}` stands for the question or phrase; readers differ in what they were trained to be
asked. What a file says that its layout does not have is an error which names file, row and field.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from minigpt5.data.layouts import caption_rows, chat_lines, existing, find_picture, llava_chats
from minigpt5.data.tasks import LOOK
from minigpt5.evaluation.items import Item, checked, pieces_of, text_part, user_message
from minigpt5.metrics.reading import normalise_answer
from minigpt5.readers.prompts import Message
from minigpt5.utils.boxes import inside, parse_box
from minigpt5.utils.checks import real_number
from minigpt5.utils.json_files import field, read_json, said, shortened

# LLaVA-1.5's, which asks for answers in VQA's form (arXiv 2310.03744, section 3.2).
SHORT_ANSWER = "{}\nAnswer the question using a single word or phrase."
WHERE = "Where is {}? Reply with its box as {<left><top><right><bottom>}, each in hundredths of the picture."
WORDINGS = {"chat": "{}", "chat-llava": "{}", "cc3m": LOOK[0], "coco": LOOK[0], "vqa": SHORT_ANSWER, "refcoco": WHERE}
# Shares of a side by which people's boxes may leave the picture.
EDGE = 0.02
# Whose pictures lie in a folder of their own.
APART = ("chat-llava", "coco", "vqa", "refcoco")


def chat_items(data: Path, wording: str = WORDINGS["chat"], count: int | None = None) -> list[Item]:
    """The last reply of each conversation, a line of a file in the layout of chats.

    StoryWorld's exports say what kind of question each is, which is then the task. A reply that has a box asks for it.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.data.layouts`; where a reply shows a picture, or there is none.
    """
    items = []
    for number, (place, line, messages) in enumerate(islice(chat_lines(existing(data)), count)):
        *question, reply = messages
        if any(part["type"] == "image" for part in reply["content"]):
            raise ValueError(f"{place}: the reply shows a picture; what reads is asked for words alone")
        text = " ".join(part["text"] for part in reply["content"])
        task = field(line, "kind", str, place) if "kind" in line else "reply"
        box = parse_box(text)
        if task == "ground" and (box is None or not (box[0] < box[2] and box[1] < box[3])):
            raise ValueError(f"{place}: kind is ground, and the reply {shortened(text)} has no box with an area")
        # What nothing is left of, such as "?!", would be matched by silence.
        answers = (text,) if normalise_answer(text) else ()
        items.append(_item(number, task, _worded(question, wording), text=text, answers=answers, box=box))
    return checked(items, str(data))


def llava_items(
    data: Path, images: Path | None = None, wording: str = WORDINGS["chat-llava"], count: int | None = None
) -> list[Item]:
    """Each reply of LLaVA-Instruct's conversations, after all that was said before it.

    Args:
        images: the folder that picture paths are relative to; by default that of the file.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.data.layouts`; or if there is nothing to ask.
    """
    items = []
    chats = llava_chats(existing(data), images or data.parent)
    for number, (place, _, (*question, reply)) in enumerate(islice(chats, count)):
        text = reply["content"][0]["text"]
        items.append(_item(number, "reply", _worded(question, wording), text=text, apart=place))
    return checked(items, str(data))


def _worded(messages: list[dict[str, Any]], wording: str) -> list[Message]:
    """Messages, the last text of which is put into the wording."""
    if wording == "{}":
        return messages
    *before, last = messages
    parts = [*last["content"]]
    texts = [place for place, part in enumerate(parts) if part["type"] == "text"]
    if not texts:
        texts, parts = [len(parts)], [*parts, text_part("")]
    parts[texts[-1]] = text_part(wording.replace("{}", parts[texts[-1]]["text"]))
    return [*before, last | {"content": parts}]


def caption_items(data: Path, wording: str = WORDINGS["cc3m"], count: int | None = None) -> list[Item]:
    """A caption for each picture of a table in CC3M's layout.

    Raises:
        FileNotFoundError, ValueError: see `minigpt5.data.layouts`; or if there is nothing to ask.
    """
    items = []
    for number, row in enumerate(islice(caption_rows(existing(data)), count)):
        picture: Any = row.pictures[0]
        items.append(_item(number, "caption", _about(picture.path, wording), text=row.texts[0]))
    return checked(items, str(data))


def coco_items(
    data: Path, images: Path | None = None, wording: str = WORDINGS["coco"], count: int | None = None
) -> list[Item]:
    """A caption for each picture of COCO's, `captions_val2014.json`, of which people gave several.

    Args:
        images: folder of the pictures; by default that of the file.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is in another form, or a picture has no caption; names the file, row and field.
    """
    content = read_json(existing(data))
    captions: dict[int, list[str]] = {}
    for number, row in enumerate(field(content, "annotations", list, str(data))):
        place = f"{data}, annotations[{number}]"
        captions.setdefault(field(row, "image_id", int, place), []).append(field(row, "caption", str, place))
    items: list[Item] = []
    seen: set[int] = set()
    for number, row in enumerate(field(content, "images", list, str(data))[:count]):
        place = f"{data}, images[{number}]"
        picture, identity = said(row, "file_name", place), field(row, "id", int, place)
        if identity in seen:
            raise ValueError(f"{place}: the picture {identity} stands there twice")
        seen.add(identity)
        if identity not in captions:
            raise ValueError(f"{place}: no annotation has a caption of the picture {identity}")
        prompt = _about(str((images or data.parent) / picture), wording)
        items.append(_item(number, "caption", prompt, captions=tuple(captions[identity])))
    return checked(items, str(data))


def vqa_items(
    data: Path,
    annotations: Path,
    images: Path | None = None,
    wording: str = WORDINGS["vqa"],
    count: int | None = None,
) -> list[Item]:
    """VQA v2's questions, and OK-VQA's, which come in the same form.

    Args:
        data: the file of questions, as `v2_OpenEnded_mscoco_val2014_questions.json`.
        annotations: the file of what people answered, ten of them a question.
        images: folder of COCO's pictures, `COCO_val2014_000000000042.jpg`; by default that of the questions.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is in another form, or nobody answered a question; names the file, row and field.
    """
    answers = _vqa_answers(annotations)
    content = read_json(existing(data))
    subset = field(content, "data_subtype", str, str(data))
    items = []
    for number, row in enumerate(field(content, "questions", list, str(data))[:count]):
        place = f"{data}, questions[{number}]"
        question, image = said(row, "question", place), field(row, "image_id", int, place)
        identity = field(row, "question_id", int, place)
        if identity not in answers:
            raise ValueError(f"{annotations} has no answers to the question {identity} of {place}")
        given, about = answers[identity]
        if about not in (None, image):
            raise ValueError(f"{place}: image_id is {image}, but the answers in {annotations} are about {about}")
        picture = str((images or data.parent) / f"COCO_{subset}_{image:012}.jpg")
        prompt = _about(picture, wording.replace("{}", question))
        items.append(_item(number, "question", prompt, answers=given))
    return checked(items, str(data))


def _vqa_answers(file: Path) -> dict[int, tuple[tuple[str, ...], int | None]]:
    """What people answered to each question, and about which picture, if that is said."""
    answers: dict[int, tuple[tuple[str, ...], int | None]] = {}
    for number, row in enumerate(field(read_json(existing(file)), "annotations", list, str(file))):
        place = f"{file}, annotations[{number}]"
        given = [
            field(answer, "answer", str, f"{place}.answers[{i}]")
            for i, answer in enumerate(field(row, "answers", list, place))
        ]
        if len(given) < 2:
            raise ValueError(f"{place}: answers are those of several people, ten as a rule, got {len(given)}")
        identity = field(row, "question_id", int, place)
        if identity in answers:
            raise ValueError(f"{place}: the question {identity} is answered there twice")
        answers[identity] = tuple(given), field(row, "image_id", int, place) if "image_id" in row else None
    return answers


def refcoco_items(
    data: Path, images: Path | None = None, wording: str = WORDINGS["refcoco"], count: int | None = None
) -> list[Item]:
    """The box of what a phrase refers to: RefCOCO, RefCOCO+ and RefCOCOg as MiniGPT-v2's evaluation has them.

    Args:
        data: a list of objects with `img_id`, of which the first 27 characters name COCO's picture; `sents`, the
            phrase; `bbox`, left, top, width and height in pixels; and `width` and `height` of the picture.
        images: folder of COCO's pictures; by default that of the file.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is in another form; names the file, row and field.
    """
    items = []
    for number, row in enumerate(read_json(existing(data), list)[:count]):
        place = f"{data}, [{number}]"
        name, phrase = said(row, "img_id", place), said(row, "sents", place)
        size = [field(row, side, int, place) for side in ("width", "height")]
        bbox = field(row, "bbox", list, place)
        try:
            left, top, wide, high = (real_number("bbox", value) for value in bbox)
            across, down = (real_number("the size", side, 1) for side in size)
            if min(wide, high) <= 0:
                raise ValueError("a box without an area")
        except (TypeError, ValueError):
            told = f"{shortened(bbox)} in a picture of {shortened(size)}"
            raise ValueError(f"{place}: bbox is {told}, expected left, top, width and height in pixels") from None
        box = (left / across, top / down, (left + wide) / across, (top + high) / down)
        if min(box) < -EDGE or max(box) > 1 + EDGE:
            told = f"{shortened(bbox)} leaves its picture of {across:g} × {down:g}"
            raise ValueError(
                f"{place}: bbox {told}; expected left, top, width and height, not left, top, right, bottom"
            )
        picture = find_picture(images or data.parent, name[:27])
        prompt = _about(picture, wording.replace("{}", phrase))
        items.append(_item(number, "grounding", prompt, box=tuple(map(inside, box))))
    return checked(items, str(data))


def _about(picture: str, text: str) -> list[Message]:
    return user_message([{"type": "image", "image": picture}, text_part(text)])


def _item(
    number: int, task: str, prompt: list[Message], text: str | None = None, apart: str | None = None, **truth: Any
) -> Item:
    """An item; those of one picture hang together, and where there is none those that say the same of `apart`."""
    context = pieces_of(prompt)
    group = next((path for _, path in context if path is not None), apart or f"{number:06}")
    return Item(f"{number:06}", group, task, context, None, text, None, "never", prompt, **truth)
