"""What the pipeline returns, and how it is shown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

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

    def _shown(self) -> list[list[str | Image.Image]]:
        return [[part if isinstance(part, str) else _as_pil(part) for part in reply] for reply in self.segments]

    def _repr_html_(self) -> str:
        return "".join(segments_html(reply) for reply in self._shown())

    def save_html(self, path: str | os.PathLike) -> None:
        """Write the replies as one self-contained page.

        Raises:
            ValueError: where pictures are latents, which cannot be shown.
        """
        write_text(path, page("MiniGPT-5", self._repr_html_()))


def _as_pil(picture: Image.Image | np.ndarray | torch.Tensor) -> Image.Image:
    if isinstance(picture, torch.Tensor) and picture.shape[0] not in (1, 3):
        raise ValueError("latents cannot be shown; call the pipeline with output_type 'pil', 'np' or 'pt'")
    return to_rgb(picture)
