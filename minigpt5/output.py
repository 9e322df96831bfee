"""What the pipeline returns, and how it is shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from minigpt5.readers.conversation import conversation
from minigpt5.readers.prompts import Prompt
from minigpt5.utils.files import write_text
from minigpt5.utils.html import page, segments_html
from minigpt5.utils.images import to_rgb

Segment = Any
"""A piece of a reply: a string, or a picture of the call's `output_type`."""


@dataclass
class MiniGPT5PipelineOutput(BaseOutput):
    """Replies, one a prompt.

    Args:
        text: the text of each reply, pictures left out.
        images: the pictures of each reply, in order; each of the call's `output_type`.
        segments: strings and pictures of each reply in the order they came.
    """

    text: list[str]
    images: list[list[Any]]
    segments: list[list[Segment]]
    # What was asked, each with its own pictures; no field, so that the output has the same three parts as ever.
    prompts: ClassVar[Sequence[tuple[Prompt, list]]] = ()

    def _shown(self) -> list[list[str | Image.Image]]:
        return [[part if isinstance(part, str) else _as_pil(part) for part in reply] for reply in self.segments]

    def _repr_html_(self) -> str:
        replies = [segments_html(reply) for reply in self._shown()]
        if len(self.prompts) != len(replies):
            return "".join(replies)
        asked = [segments_html(_asked(*prompt), "prompt") for prompt in self.prompts]
        return "".join(part for pair in zip(asked, replies, strict=True) for part in pair)

    def save_html(self, path: str | os.PathLike) -> None:
        """Write the replies, each under its prompt, as one self-contained page.

        Raises:
            ValueError: where pictures are latents, which cannot be shown.
        """
        write_text(path, page("MiniGPT-5", self._repr_html_()))


def _asked(prompt: Prompt, images: list) -> list[str | Image.Image]:
    """A prompt's texts and pictures, those of all its turns, in order."""
    messages, pictures = conversation(prompt, images)
    rest = iter(pictures)
    parts = [part for message in messages for part in message["content"]]
    return [to_rgb(next(rest)) if part["type"] == "image" else part["text"] for part in parts]


def _as_pil(picture: Image.Image | np.ndarray | torch.Tensor) -> Image.Image:
    if isinstance(picture, torch.Tensor) and picture.shape[0] not in (1, 3):
        raise ValueError("latents cannot be shown; call the pipeline with output_type 'pil', 'np' or 'pt'")
    return to_rgb(picture)
