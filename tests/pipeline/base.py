"""The configuration that all mixins are told by, and what they share."""

from itertools import chain
from typing import ClassVar

import pytest
import torch

from minigpt5 import MiniGPT5Pipeline


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def paint(pipe, prompt="Draw this: a red fox", images=None, **options):
    """A reply that holds a picture, as latents unless asked otherwise."""
    options = {"image_mode": "always", "max_new_tokens": 3, "generator": seeded(), "output_type": "latent"} | options
    return pipe(prompt, images, **options)


def latents(pipe, *args, **options):
    return paint(pipe, *args, **options).images[0][0]


def pictures_of(output):
    return list(chain.from_iterable(output.images))


def same(first, second, atol=0.0):
    """Whether two outputs hold the same text and the same pictures, of which there are some."""
    ours, theirs = pictures_of(first), pictures_of(second)
    close = all(torch.allclose(one, other, rtol=0, atol=atol) for one, other in zip(ours, theirs, strict=True))
    return first.text == second.text and close and len(ours) > 0


class PipelineConfig:
    """Which parts a pipeline has; the mixins take it from here and from the fixtures alone.

    `pipe` is to be changed at will as long as its weights are not, `opened()` to be changed in every way.
    """

    prompt: ClassVar[str] = "Draw this: a red fox"
    picture_prompt: ClassVar[str] = "what is <ImageHere>?"
    latents_shape: ClassVar[tuple] = (4, 16, 16)
    size: ClassVar[tuple] = (64, 64)
    connector: ClassVar[str] = "VokenMapper"

    @pytest.fixture
    def IMAGE(self, tiny_processor):
        """The token that begins a picture."""
        return tiny_processor.voken_ids[0]

    @pytest.fixture
    def folder(self, tiny_folder):
        """The pipeline as `save_pretrained` writes it."""
        return tiny_folder

    @pytest.fixture
    def opened(self, folder):
        """Opens the folder once more, as often as one likes."""

        def open_it(**options):
            pipe = MiniGPT5Pipeline.from_pretrained(folder, **options)
            pipe.set_progress_bar_config(disable=True)
            return pipe

        return open_it
