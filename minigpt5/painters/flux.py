"""FLUX.1: a flow-matching transformer over packed latents, with features of T5 and a pooled vector of CLIP."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from minigpt5.painters.packed import PackedPainter


class FluxPainter(PackedPainter):
    """Predicts the velocity from latents to noise; times are logit-normal, shifted by the number of tokens.

    `guidance_scale` leads away from null features. What the distilled FLUX.1 [dev] calls guidance is a number it is
    told; it is always the one that its call has by default, in training too.
    """

    encoded: ClassVar = ("prompt_embeds", "pooled_prompt_embeds", None)

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features and the pooled vector."""
        pooled = conditioning["pooled_prompt_embeds"].to(self.denoiser.dtype)
        return super().inputs(conditioning) | {"pooled_projections": pooled}

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The transformer's answer, of the latents' shape."""
        height, width = noisy.shape[-2:]
        inputs, place = self.inputs(conditioning), {"device": noisy.device, "dtype": noisy.dtype}
        if self.denoiser.config.guidance_embeds:
            inputs["guidance"] = torch.full((len(noisy),), self.default("guidance_scale"), device=noisy.device)
        tokens = self.denoiser(
            hidden_states=self.pack(noisy),
            timestep=timestep / 1000,
            img_ids=self.pipeline._prepare_latent_image_ids(len(noisy), height // 2, width // 2, **place),
            txt_ids=torch.zeros(inputs["encoder_hidden_states"].shape[1], 3, **place),
            **inputs,
        ).sample
        return self.unpack(tokens, height, width)
