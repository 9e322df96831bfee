"""What a prompt is: a string with `<ImageHere>` marks, chat messages, or a ready-made example; and the checks of it.

Whatever reads prompts takes them as `as_batch` and `check_messages` leave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from transformers.image_utils import load_image

from minigpt5.utils.checks import shown, some_text
from minigpt5.utils.images import ImageError, Picture

IMAGE_MARK = "<ImageHere>"
ROLES = ("system", "user", "assistant")
# By which a part of a message may name a picture that is to be opened.
_SOURCES = ("image", "url", "path", "base64")

Message = dict[str, Any]


class Mark(Enum):
    """What stands in a prompt beside text."""

    IMAGE = "a picture to be read"
    VOKENS = "a picture to be painted"


Piece = str | Mark


@dataclass(frozen=True)
class Example:
    """A prompt and the reply to be learnt, in pieces: what no chat message can say, such as a prompt without a turn.

    Args:
        source: the prompt.
        target: the reply, its closing `###` included.
        images: the pictures read, one for each `Mark.IMAGE` of the source.
        outputs: the pictures painted, one for each `Mark.VOKENS` of the target.
        caption: what the output shows, for the caption loss, where the data set tells.
    """

    source: Sequence[Piece]
    target: Sequence[Piece] = ()
    images: Sequence[Picture] = ()
    outputs: Sequence[Picture] = ()
    caption: str | None = None


Prompt = str | list[Message] | Example


class PromptTooLongError(ValueError):
    """A prompt that the model's context cannot hold."""


def as_list(images: Any) -> list:
    """`None` as no pictures, one picture as a list of one."""
    if images is None:
        return []
    return list(images) if isinstance(images, (list, tuple)) else [images]


def split_marks(text: str) -> list[Piece]:
    """A string with `<ImageHere>` marks as pieces."""
    pieces: list[Piece] = []
    for part in text.split(IMAGE_MARK):
        pieces += [part, Mark.IMAGE]
    return pieces[:-1]


def is_conversation(prompt: Any) -> bool:
    """Whether it is one conversation, not a batch of prompts."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and isinstance(prompt[0], dict)


def as_batch(prompt: Prompt | Sequence[Prompt], images: Any = None) -> tuple[list[Prompt], list[list]]:
    """One prompt or many, checked, and for each the list of its pictures that do not stand in messages.

    Pictures of a string without a mark are put in front of it.

    Args:
        prompt: a string, chat messages or an example, or a list of these.
        images: for one prompt a picture or a list of them; for a list of prompts one such entry, or `None`, each.

    Raises:
        TypeError, ValueError: for what is no prompt or says nothing, and for pictures nested otherwise.
    """
    if isinstance(prompt, (str, Example)) or is_conversation(prompt):
        pictures = as_list(images)
        return [_check_prompt("the prompt", prompt, pictures)], [pictures]
    if isinstance(prompt, dict):
        raise TypeError("chat messages are a list of dictionaries, got one alone; put it in a list")
    if not isinstance(prompt, (list, tuple)):
        raise TypeError(f"a prompt is a string or a list of chat messages, got {type(prompt).__name__}")
    if not prompt:
        raise ValueError("prompt is an empty list; give at least one prompt")
    if images is None:
        images = [None] * len(prompt)
    if not isinstance(images, (list, tuple)):
        kind = type(images).__name__
        raise TypeError(f"{len(prompt)} prompt(s) in a list need a list with an entry of images for each, got {kind}")
    if len(images) != len(prompt):
        raise ValueError(f"{len(prompt)} prompts need {len(prompt)} lists of images, got {len(images)}")
    lists = [as_list(own) for own in images]
    numbered = enumerate(zip(prompt, lists, strict=True), 1)
    return [_check_prompt(f"prompt {number}", one, own) for number, (one, own) in numbered], lists


def _check_prompt(where: str, prompt: Any, images: list) -> Prompt:
    if isinstance(prompt, Example):
        if not isinstance(prompt.source, (list, tuple)):
            raise TypeError(f"{where}: an example's source is a list of pieces, got {type(prompt.source).__name__}")
        for piece in prompt.source:
            if not isinstance(piece, Mark):
                some_text(f"{where}: a piece of the source", piece)
        if not any(isinstance(piece, Mark) or piece.strip() for piece in prompt.source):
            raise ValueError(_empty(where))
        return replace(prompt, images=tuple(as_list(prompt.images)))
    if not isinstance(prompt, str):
        return check_messages(prompt, where)
    some_text(where, prompt)
    if not prompt.strip():
        raise ValueError(_empty(where))
    return IMAGE_MARK * len(images) + prompt if IMAGE_MARK not in prompt else prompt


def check_messages(messages: Any, where: str = "the conversation") -> list[Message]:
    """Chat messages, checked; the content of each becomes a list of parts.

    Args:
        messages: dictionaries with `role` (user, assistant, or system in front) and `content`: a string, or a list of
            `{"type": "text", "text": …}` and `{"type": "image"[, "image": …]}`. What is `None` counts as left out.
        where: what an error calls them.

    Raises:
        TypeError, ValueError: for messages of another form, or that say nothing; names the message.
    """
    if not isinstance(messages, (list, tuple)):
        raise TypeError(f"{where}: a prompt is a string or a list of chat messages, got {type(messages).__name__}")
    checked = [_check_message(message, number, where) for number, message in enumerate(messages, 1)]
    parts = [part for message in checked for part in message["content"]]
    if not any(part["type"] == "image" or part["text"].strip() for part in parts):
        raise ValueError(_empty(where))
    return checked


def _empty(where: str) -> str:
    return f"{'' if where == 'the prompt' else f'{where}: '}the prompt is empty; say what to tell or draw"


def _check_message(message: Any, number: int, where: str) -> Message:
    where = f"{where}, message {number}"
    given = _fields(message, where, "a message is a dictionary with role and content", ("role", "content"))
    role, content = given.get("role"), given.get("content")
    if not isinstance(role, str) or role not in ROLES or (role == "system" and number > 1):
        raise ValueError(f"{where}: a message's role is system (first only), user or assistant, got {shown(role)}")
    if content is None:
        raise ValueError(f"{where} has no content; give a string or a list of parts")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"{where}: a message's content is a string or a list of parts, got {type(content).__name__}")
    parts = [_check_part(part, where) for part in content]
    if role == "system" and any(part["type"] == "image" for part in parts):
        raise ValueError(f"{where}: a system message holds text alone; put the picture into a user's message")
    return {"role": role, "content": parts}


def _check_part(part: Any, where: str) -> dict[str, Any]:
    given = _fields(part, where, "a part of the content is a dictionary with a type", ("type", "text", "image"))
    kind = given.pop("type", None)
    if not isinstance(kind, str) or kind not in ("text", "image"):
        raise ValueError(f"{where}: a message's content has type text or image, got {shown(kind)}")
    surplus = given.keys() - {kind}
    if surplus:
        raise ValueError(f"{where}: a part of type {kind} has no {surplus.pop()}; make it a part of its own")
    if kind == "text":
        return {"type": "text", "text": some_text(f"{where}: the text of a part", given.get("text"))}
    return {"type": "image", **given}


def _fields(value: Any, where: str, what: str, known: Sequence[str]) -> dict[str, Any]:
    """The entries of a dictionary that are not `None`."""
    if not isinstance(value, dict):
        raise TypeError(f"{where}: {what}, got {type(value).__name__}")
    given = {name: entry for name, entry in value.items() if entry is not None}
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: {what}; there is no {shown(name)}, only {', '.join(known)}")
    return given


def open_pictures(messages: Any) -> Any:
    """Messages in which pictures that are named by an address, a path or base64, as in transformers, are opened.

    Raises:
        ImageError: for one that cannot be.
    """
    if not isinstance(messages, (list, tuple)):
        return messages
    return [
        {**message, "content": [_opened_part(part) for part in message["content"]]}
        if isinstance(message, dict) and isinstance(message.get("content"), (list, tuple))
        else message
        for message in messages
    ]


def _opened_part(part: Any) -> Any:
    if not isinstance(part, dict) or part.get("type") != "image":
        return part
    sources = {name: part[name] for name in _SOURCES if isinstance(part.get(name), str)}
    if not sources:
        return part
    if len(sources) > 1:
        raise ValueError(f"a picture has one source, got {' and '.join(sources)}")
    (source,) = sources.values()
    try:
        picture = load_image(source)
    except Exception as error:  # of the file, of the network or of PIL
        raise ImageError(f"a picture of the conversation cannot be opened: {error}") from error
    return {"type": "image", "image": picture}
