"""Pictures on their way to browsers and from them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from minigpt5.utils.images import ImageError, open_image


class Pictures:
    """A folder of pictures, each written once.

    Args:
        folder: is there; whoever made it takes it away.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def file(self, image: Image.Image) -> str:
        """The picture's file, which holds its pixels and nothing else of it."""
        told = vars(image)
        if "studio_file" not in told:
            path = self.folder / f"{uuid.uuid4().hex}.png"
            image.save(path)
            told["studio_file"] = str(path)
        return told["studio_file"]

    def html(self, image: Image.Image, alt: str) -> str:
        """An `<img>` of the picture's file."""
        return f'<img alt="{escape(alt)}" src="/gradio_api/file={self.file(image)}">'


def box(elem_id: str, placeholder: str, text: str = "", **options: Any) -> gr.MultimodalTextbox:
    """A text box that takes pictures too. Gradio opens none of them, so what is wrong with one is told by `opened`."""
    return gr.MultimodalTextbox(
        {"text": text, "files": []},
        show_label=False,
        elem_id=elem_id,
        placeholder=placeholder,
        sources=["upload"],
        file_types=["image"],
        max_plain_text_length=10_000,
        **options,
    )


def opened(said: Mapping[str, Any]) -> list[Image.Image]:
    """The pictures of a text box.

    Raises:
        gr.Error: naming a file that is none.
    """
    try:
        return [open_image(file, Path(file).name) for file in said["files"]]
    except ImageError as error:
        raise gr.Error(str(error), print_exception=False) from None
