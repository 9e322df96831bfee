"""Latents in packs of 2 × 2, each a token of the transformer: FLUX and Qwen-Image."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from minigpt5.painters.family import TrainablePainter


class PackedPainter(TrainablePainter):
    """A painter whose pipeline counts latents as `(pictures, tokens, 4 · channels)`.

    Outside of the pipeline's call latents keep the shape that they have elsewhere.
    """

    @property
    def patch_size(self) -> int:
        """Latents a token, in each direction, whatever the transformer calls it."""
        return 2

    @property
    def channels(self) -> int:
        """Channels of a latent, a fourth of a token's."""
        return self.denoiser.config.in_channels // 4

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        """`(pictures, channels, height, width)` as `(pictures, height / 2 · width / 2, 4 · channels)`."""
        return self.pipeline._pack_latents(latents, *latents.shape)

    def unpack(self, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The reverse, for latents of this height and width."""
        factor = self.scale_factor
        latents = self.pipeline._unpack_latents(tokens, height * factor, width * factor, factor)
        return latents.view(len(tokens), self.channels, height, width)

    def decode(self, latents: torch.Tensor, height: int, width: int) -> list[Image.Image]:
        """See `TrainablePainter.decode`."""
        latents = self.unpack(latents, height // self.scale_factor, width // self.scale_factor)
        return super().decode(latents, height, width)

    def paint(self, conditioning: dict[str, torch.Tensor], *args: Any, **options: Any) -> list[Any]:
        """See `Painter.paint`; latents are packed on the way in and unpacked on the way out."""
        if options.get("latents") is not None:
            options["latents"] = self.pack(options["latents"])
        pictures = super().paint(conditioning, *args, **options)
        if options.get("output_type") != "latent":
            return pictures
        height, width = (
            options.get(name) or own for name, own in zip(("height", "width"), self.default_size, strict=True)
        )
        return list(self.unpack(torch.stack(pictures), height // self.scale_factor, width // self.scale_factor))
