"""Stable Diffusion XL: a UNet that is told a pooled text vector, sizes and crop besides the features."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from minigpt5.painters.family import TrainablePainter


class StableDiffusionXLPainter(TrainablePainter):
    """Predicts noise or velocity at one of 1,000 timesteps, or EDM's scaled latents (arXiv 2307.01952)."""

    encoded: ClassVar = ("prompt_embeds", None, "pooled_prompt_embeds", None)
    least_multiple: ClassVar = 8

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features, and the pooled vector among what is added to the time's embedding."""
        dtype = self.denoiser.dtype
        return {
            "encoder_hidden_states": conditioning["prompt_embeds"].to(dtype),
            "added_cond_kwargs": {"text_embeds": conditioning["pooled_prompt_embeds"].to(dtype)},
        }

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The UNet's answer for whole pictures, neither enlarged nor cropped: of the latents' shape."""
        inputs = self.inputs(conditioning)
        height, width = (side * self.scale_factor for side in noisy.shape[-2:])
        ids = noisy.new_tensor([height, width, 0, 0, height, width]).expand(len(noisy), -1)
        inputs["added_cond_kwargs"]["time_ids"] = ids
        return self.denoiser(noisy, timestep, **inputs).sample
