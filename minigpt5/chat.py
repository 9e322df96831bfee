"""A conversation with a pipeline that remembers what it has read.

chat = pipe.chat()
reply = chat.reply("Draw this: a red fox.")
reply = chat.reply("What is in front of it? <ImageHere>", photo)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from minigpt5.output import MiniGPT5PipelineOutput
from minigpt5.readers import ReaderCache
from minigpt5.readers.conversation import conversation
from minigpt5.readers.prompts import Message, PromptTooLongError, as_batch
from minigpt5.vokens.decoding import TextEvent, as_segments

if TYPE_CHECKING:
    from minigpt5.pipeline import ImageEvent, MiniGPT5Pipeline

T = TypeVar("T")


class Chat:
    """Turns of a user and replies to them; each reply is that of the pipeline to all `messages` so far.

    No picture or text is read twice as long as all turns fit into the model's context. Where they do not, the oldest
    are forgotten, and what is left is read again; so is all where the pipeline's weights have changed or moved.

    Args:
        pipe: what answers.
        messages: what was said before, such as a system message.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, messages: Sequence[Message] = ()):
        self.pipe, self.messages, self.cache = pipe, list(messages), ReaderCache()

    def reply(self, prompt: str | list[dict], images: Any = None, **options: Any) -> MiniGPT5PipelineOutput:
        """The reply to a user's next turn.

        Args:
            prompt: a string with `<ImageHere>` where a picture stands, or the content of a message.
            images: the prompt's pictures, one or a list.
            options: of the pipeline's call.

        Raises:
            ValueError: as the call does; the conversation is then as it was.
        """
        asked = self._asked(prompt, images, options)
        messages, output = fitting(asked, lambda kept: self.pipe(kept, prompt_cache=self.cache, **options))
        # Of an output or, without `return_dict`, of a tuple.
        self._said(messages, output[2][0])
        return output

    def stream(self, prompt: str | list[dict], images: Any = None, **options: Any) -> Iterator[TextEvent | ImageEvent]:
        """The reply as it comes; it is remembered once it is whole. Arguments as for `reply`."""
        asked = self._asked(prompt, images, options)
        messages, _ = fitting(asked, lambda kept: self.pipe.encode_prompt([kept]))
        pieces: list[Any] = []
        for event in self.pipe.stream(messages, prompt_cache=self.cache, **options):
            yield event
            pieces.append(event.text if isinstance(event, TextEvent) else event.image)
        self._said(messages, as_segments(pieces))

    def _asked(self, prompt: str | list[dict], images: Any, options: dict[str, Any]) -> list[Message]:
        """What was said and a user's turn; a cache of no use is emptied."""
        if options.get("output_type") == "latent":
            raise ValueError("a chat reads the pictures that it painted, so output_type cannot be 'latent'")
        asked = [*self.messages, user_turn(prompt, images)]
        if not self.pipe.reader.knows(self.cache, self.pipe._execution_device):
            self.cache.clear()
        return asked

    def _said(self, messages: list[Message], segments: Sequence[Any]) -> None:
        self.messages = [*messages, assistant_turn(segments)]


def user_turn(prompt: str | list[dict], images: Any = None) -> Message:
    """What a user says, as a message that brings its pictures.

    Args:
        prompt, images: as for `Chat.reply`.

    Raises:
        TypeError, ValueError: for what is no prompt, and where pictures and marks do not match.
    """
    asked = prompt if isinstance(prompt, str) else [_message("user", prompt)]
    (asked,), (images,) = as_batch(asked, images)
    turn, pictures = conversation(asked, images)
    rest = iter(pictures)
    content = [{**part, "image": next(rest)} if part["type"] == "image" else part for part in turn[0]["content"]]
    return _message("user", content)


def assistant_turn(segments: Sequence[Any]) -> Message:
    """A reply's strings and pictures as a message."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else _picture(part) for part in segments]
    return _message("assistant", parts)


def fitting(messages: Sequence[Message], read: Callable[[list[Message]], T]) -> tuple[list[Message], T]:
    """Read a conversation, its oldest turns left out until it fits the context; a system message stays.

    Args:
        messages: the last is a user's turn.
        read: reads them, or raises `PromptTooLongError`.

    Returns:
        What was read, and what came of it.

    Raises:
        PromptTooLongError: if the last turn alone does not fit.
    """
    system = [message for message in messages[:1] if message["role"] == "system"]
    said = list(messages[len(system) : -1])
    while True:
        kept = [*system, *said, messages[-1]]
        try:
            return kept, read(kept)
        except PromptTooLongError:
            if not said:
                raise
            said = said[2:]


def _message(role: str, content: list[dict]) -> Message:
    return {"role": role, "content": content}


def _picture(image: Any) -> dict:
    return {"type": "image", "image": image}
