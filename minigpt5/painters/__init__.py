"""What paints: diffusers pipelines that are given features in the place of a prompt, a file a family.

All that a painter does:

    painter = painter_of(pipeline)               # any pipeline whose call takes prompt_embeds
    painter.shapes()                             # what it is conditioned on
    painter.paint(conditioning, null, 4.5)       # pictures, through the pipeline's own call
    trainable(painter).loss(latents, conditioning)
"""

from __future__ import annotations

from importlib import import_module

from diffusers import DiffusionPipeline

from minigpt5.painters.base import Painter
from minigpt5.painters.build import PARTS, build_painter, take_apart
from minigpt5.painters.family import TrainablePainter

# The file and class of each family, found by the name of the pipeline's class or of one that it is derived from.
FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion.StableDiffusionPainter",
    "StableDiffusionXLPipeline": "stable_diffusion_xl.StableDiffusionXLPainter",
    "StableDiffusion3Pipeline": "stable_diffusion_3.StableDiffusion3Painter",
    "FluxPipeline": "flux.FluxPainter",
    "SanaPipeline": "sana.SanaPainter",
    "PixArtAlphaPipeline": "pixart.PixArtPainter",
    "PixArtSigmaPipeline": "pixart.PixArtPainter",
    "Lumina2Pipeline": "lumina2.Lumina2Painter",
    "QwenImagePipeline": "qwen_image.QwenImagePainter",
}


def painter_of(pipeline: DiffusionPipeline) -> Painter:
    """The painter of a pipeline's family; of any other one that paints, but cannot be trained.

    Raises:
        ValueError: if the pipeline cannot be given embeddings.
    """
    for kind in type(pipeline).__mro__:
        if kind.__name__ in FAMILIES:
            module, _, name = FAMILIES[kind.__name__].partition(".")
            return getattr(import_module(f"{__name__}.{module}"), name)(pipeline)
    return Painter(pipeline)


def trainable(painter: Painter) -> TrainablePainter:
    """The same painter, if its family can be trained.

    Raises:
        ValueError: if it paints only.
    """
    if not isinstance(painter, TrainablePainter):
        raise ValueError(
            f"{painter.name} paints, but cannot be trained: no loss is known for it, only for {', '.join(FAMILIES)}"
        )
    return painter


__all__ = ["FAMILIES", "PARTS", "Painter", "TrainablePainter", "build_painter", "painter_of", "take_apart", "trainable"]
