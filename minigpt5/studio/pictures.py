"""Pictures as files that the browser fetches."""

from __future__ import annotations

import uuid
from pathlib import Path

from PIL import Image


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
