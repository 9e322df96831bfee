"""Stories of a service: told with its engine as `tell_story` tells them with a pipeline alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from minigpt5.output import MiniGPT5PipelineOutput, Segment
from minigpt5.readers import ReaderCache
from minigpt5.readers.prompts import Message
from minigpt5.service.engine import CancelledError, Engine, Reply
from minigpt5.service.pictures import PictureLimits, open_picture
from minigpt5.story import StoryStep, tell_story
from minigpt5.utils.checks import sampling, shown

# Of a request: arguments of `tell_story`, and a temperature, where 0 takes the likeliest words.
FIELDS = ("opening", "image", "steps", "seed", "image_mode", "temperature")


class Teller:
    """An engine in a pipeline's place, for one story.

    Args:
        engine: makes the steps, among whatever else it makes.
        body: of the request, with `FIELDS`; its image is a picture's address.
        limits: of the image.

    Raises:
        TypeError, ValueError: for what cannot be done; names it.
    """

    def __init__(self, engine: Engine, body: Mapping[str, Any], limits: PictureLimits):
        self.engine, self.cancelled = engine, False
        # What the engine has answered, and what that was.
        self.replies, self.parts = list[Reply](), list[list[Segment]]()
        unknown = [name for name in body if name not in FIELDS]
        if unknown:
            raise ValueError(f"a story is told by {', '.join(FIELDS)}, got {shown(unknown[0])}")
        asked = {name: value for name, value in body.items() if value is not None}
        if "image" in asked:
            asked["image"] = open_picture(asked["image"], limits)
        asked |= sampling(asked.pop("temperature", None))
        asked.setdefault("opening", "")
        # What a story asks of a pipeline, this does.
        pipe: Any = self
        self.steps: Iterator[StoryStep] = tell_story(pipe, **asked)

    def __call__(
        self, prompt: list[Message], *, prompt_cache: ReaderCache, generator: torch.Generator, **options: Any
    ) -> MiniGPT5PipelineOutput:
        """One reply; of what was read before, the engine has caches of its own."""
        if self.cancelled:
            raise CancelledError("the story was given up")
        reply = self.engine.submit(prompt, generator=generator, goes_on=bool(self.replies), **options)
        self.replies.append(reply)
        parts = reply.segments()
        self.parts.append(parts)
        texts = [part for part in parts if isinstance(part, str)]
        images = [part for part in parts if not isinstance(part, str)]
        return MiniGPT5PipelineOutput(text=[" ".join(texts)], images=[images], segments=[parts])

    def start(self, listener: Callable[[StoryStep | Exception | None], None]) -> None:
        """Tell the story in a thread of its own.

        Args:
            listener: is told each step; then `None`, or the error that ended the story.
        """
        threading.Thread(target=self._tell, args=(listener,), name="minigpt5-story", daemon=True).start()

    def _tell(self, listener: Callable[[StoryStep | Exception | None], None]) -> None:
        try:
            for step in self.steps:
                listener(step)
        except Exception as error:
            listener(error)
        else:
            listener(None)

    def cancel(self) -> None:
        """Tell no more."""
        self.cancelled = True
        for reply in self.replies:
            reply.cancel()
