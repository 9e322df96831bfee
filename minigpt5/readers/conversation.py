"""Prompts as the conversations that chat templates take, and what a template writes around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from minigpt5.readers.prompts import IMAGE_MARK, Example, Mark, Message, Piece, Prompt, split_marks
from minigpt5.readers.styles import MINIGPT4


def conversation(prompt: Prompt, images: Sequence[Any] = ()) -> tuple[list[Message], list[Any]]:
    """A prompt as chat messages, and its pictures in order.

    A string is a user's turn, and so is the source of an example. The content of each message is a list of texts, no
    two of them neighbours, and `{"type": "image"}`. Pictures that the assistant painted come first in the turn behind
    theirs: chat templates know pictures of the user alone.

    Args:
        prompt: as `as_batch` leaves it.
        images: the pictures of marks and messages that bring none of their own.

    Raises:
        ValueError: where pictures and marks do not match.
    """
    if isinstance(prompt, Example):
        images = [*prompt.images, *images]
        prompt = [{"role": "user", "content": [_part(piece) for piece in prompt.source]}]
    elif isinstance(prompt, str):
        prompt = [{"role": "user", "content": [_part(piece) for piece in split_marks(prompt)]}]
    messages: list[Message] = []
    pictures, painted = [], []
    for message in prompt:
        parts = message["content"]
        if message["role"] == "user":
            parts, painted = [*painted, *parts], []
        pieces: list[Piece] = []
        for part in parts:
            if part["type"] == "image" and message["role"] == "assistant":
                painted.append(part)
            elif part["type"] == "image":
                pictures.append(part.get("image"))
                pieces.append(Mark.IMAGE)
            elif part["text"].strip():
                pieces.append(part["text"].strip())
        content: list[dict] = []
        for is_text, run in groupby(pieces, lambda piece: isinstance(piece, str)):
            together = list(run)
            content += [_text(" ".join(map(str, together)))] if is_text else map(_part, together)
        messages.append({"role": message["role"], "content": content})
    if painted:
        messages.append({"role": "user", "content": [{"type": "image"}] * len(painted)})
        pictures += [part.get("image") for part in painted]
    missing = sum(picture is None for picture in pictures)
    if missing != len(images):
        raise ValueError(
            f"the prompt has {missing} image mark(s) but {len(images)} image(s) were given; "
            f"write {IMAGE_MARK} once for each image"
        )
    rest = iter(images)
    return messages, [next(rest) if picture is None else picture for picture in pictures]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _part(piece: Piece) -> dict:
    return _text(piece) if isinstance(piece, str) else {"type": "image"}


def template_of(processor: Any) -> Any:
    """The chat template of a processor, or of its tokenizer; `None` where there is none."""
    return getattr(processor, "chat_template", None) or getattr(processor, "tokenizer", processor).chat_template


class ChatTemplate:
    """A processor's chat template, or without one MiniGPT-4's dialogue (arXiv 2304.10592, section 3).

    Args:
        processor: of a vision-language model, or a tokenizer.
    """

    def __init__(self, processor: ProcessorMixin | PreTrainedTokenizerBase):
        self.processor: Any = processor
        self.tokenizer: Any = getattr(processor, "tokenizer", processor)
        self.template = template_of(processor)

    def render(self, messages: Sequence[Message], reply: bool = True) -> str:
        """A conversation as the text that the model reads.

        Args:
            messages: of `conversation`.
            reply: whether the assistant is to speak next.

        Raises:
            ValueError: if the template does not take these messages, such as two of the same role in a row.
        """
        messages = [{**message, "content": self._plain(message["content"])} for message in messages]
        if self.template is None:
            mark = str(getattr(self.processor, "image_token", ""))
            pieces = MINIGPT4.write(messages, reply)
            return "".join(piece if isinstance(piece, str) else mark for piece in pieces).strip()
        # Templates of language models that read no pictures want texts.
        for message in messages:
            texts = [part.get("text", "") for part in message["content"]]
            bare = self.processor is self.tokenizer
            message["content"] = " ".join(texts) if bare else message["content"] or [_text("")]
        # Models that think aloud are asked to answer at once.
        options = {"enable_thinking": False} if "enable_thinking" in str(self.template) else {}
        template = self.template if isinstance(self.template, str) else None
        try:
            return self.processor.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=reply, tokenize=False, **options
            )
        except Exception as error:  # of its words, or of Python itself
            raise ValueError(f"the chat template does not take this conversation: {error}") from error

    def _plain(self, parts: Sequence[dict]) -> list[dict]:
        """Content whose texts spell no special token."""
        return [{**part, "text": self.plain(part["text"])} if "text" in part else part for part in parts]

    def plain(self, text: str) -> str:
        """A text in which no special token is spelt: a space breaks each one."""
        while self._spelt.search(text):
            text = self._spelt.sub(lambda found: " ".join([found[0][0], found[0][1:]]), text)
        return text

    @cached_property
    def _spelt(self) -> re.Pattern:
        specials = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        words = sorted((token for token in specials if len(token.strip()) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, words)) or r"(?!)")

    @cached_property
    def opening(self) -> str:
        """What stands between a conversation and the assistant's reply."""
        asked = self.render(_ASKED)
        return asked.removeprefix(self.render(_ASKED, reply=False))

    @cached_property
    def frame(self) -> tuple[str, str]:
        """What the template puts before a reply, behind the opening, and what ends the reply."""
        if self.template is None:
            return " ", " ###"
        asked, told = self.render(_ASKED), [*_ASKED, {"role": "assistant", "content": [_text(_SAID)]}]
        before, _, behind = self.render(told, reply=False).partition(_SAID)
        return before.removeprefix(asked) if before.startswith(asked) else "", behind


class Question(ChatTemplate):
    """A user's only turn as it is, and a longer conversation as MiniGPT-4's dialogue, without its pictures.

    Of models that were trained to answer one question about what stands before it.
    """

    def render(self, messages: Sequence[Message], reply: bool = True) -> str:
        """See `ChatTemplate.render`."""
        texts = [
            {**message, "content": [part for part in message["content"] if part["type"] == "text"]}
            for message in messages
        ]
        if len(texts) == 1:
            return " ".join(self.plain(part["text"]) for part in texts[0]["content"])
        return super().render(texts, reply)

    @property
    def opening(self) -> str:
        """Nothing."""
        return ""

    @property
    def frame(self) -> tuple[str, str]:
        """Nothing, and the end of the text."""
        return "", self.tokenizer.eos_token or ""


_ASKED = [{"role": "user", "content": [_text("What?")]}]
_SAID = "Nothing."
