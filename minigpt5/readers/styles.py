"""How conversations are written: one style an object, around a chat template as transformers knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from minigpt5.readers.prompts import IMAGE_MARK, Mark, Message, Piece, split_marks


@dataclass(frozen=True)
class PromptStyle:
    """A way to write conversations.

    Args:
        chat_template: a Jinja template of transformers that writes `<ImageHere>` where a picture stands.
    """

    chat_template: str

    def write(self, messages: Sequence[Message], reply: bool = True) -> list[Piece]:
        """A conversation as text and marks; a text that spells a mark stays text.

        Args:
            messages: as `check_messages` leaves them.
            reply: whether the assistant is to speak next.

        Raises:
            ValueError: if the template does not take this conversation.
        """
        # Takes the place of a mark that a text merely spells. It ends in a character that it holds once, so it is found
        # just where it was put, also behind characters of its own.
        spelt = "\ufdd0\ufdd1"
        texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
        while any(spelt in text for text in texts):
            spelt = f"\ufdd0{spelt}"
        plain = [
            {
                "role": message["role"],
                "content": [
                    {"type": "text", "text": part["text"].replace(IMAGE_MARK, spelt)}
                    if part["type"] == "text"
                    else {"type": "image"}
                    for part in message["content"]
                ],
            }
            for message in messages
        ]
        try:
            (text,), _ = render_jinja_template([plain], chat_template=self.chat_template, add_generation_prompt=reply)
        except (TemplateError, TypeError) as error:
            raise ValueError(f"the chat template does not take this conversation: {error}") from error
        pieces = [part.replace(spelt, IMAGE_MARK) if isinstance(part, str) else part for part in split_marks(text)]
        pictures = sum(part["type"] == "image" for message in messages for part in message["content"])
        if pieces.count(Mark.IMAGE) > pictures:
            raise ValueError(
                f"the chat template writes {pieces.count(Mark.IMAGE)} picture(s) of a conversation that has {pictures}"
            )
        return pieces

    @cached_property
    def turn(self) -> str:
        """What the turn of a user begins with."""
        said = "said"
        pieces = self.write([{"role": "user", "content": [{"type": "text", "text": said}]}], reply=False)
        return str(pieces[0]).partition(said)[0].strip()

    def is_written(self, text: str) -> bool:
        """Whether a text is a conversation already, with its turns written out."""
        return bool(self.turn) and self.turn in text


MINIGPT4 = PromptStyle(
    """\
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{ '###Human: ' }}
    {%- elif message.role == 'assistant' -%}
        {{ '###Assistant: ' }}
    {%- endif -%}
    {%- if message.content is string -%}
        {{ message.content + ('' if message.role == 'system' else ' ') }}
    {%- else -%}
        {%- for part in message.content -%}
            {%- if part.type == 'image' -%}
                {{ '<Img><ImageHere></Img> ' }}
            {%- else -%}
                {{ part.text + ('' if message.role == 'system' and loop.last else ' ') }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '###Assistant:' }}
{%- endif -%}
"""
)
"""MiniGPT-4's (arXiv 2304.10592, section 3): `###Human: … ###Assistant: …`, pictures as `<Img><ImageHere></Img>`."""
