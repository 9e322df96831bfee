"""PixArt-α and PixArt-Σ: a transformer that predicts noise, with features of T5."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from minigpt5.painters.family import TrainablePainter, mask_of


class PixArtPainter(TrainablePainter):
    """Predicts the noise, and a variance that is not used, at one of 1,000 timesteps (arXiv 2403.04692)."""

    encoded: ClassVar = ("prompt_embeds", "mask", None, None)

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features and their mask."""
        return super().inputs(conditioning) | {"encoder_attention_mask": mask_of(conditioning)}

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The transformer's answer, of the latents' shape."""
        predicted = self.denoiser(
            noisy,
            timestep=timestep,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            **self.inputs(conditioning),
        ).sample
        return predicted[:, : self.channels]
