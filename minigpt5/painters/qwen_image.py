"""Qwen-Image: a flow-matching transformer over packed latents of a video VAE, with features of Qwen2.5-VL."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from minigpt5.painters.packed import PackedPainter


class QwenImagePainter(PackedPainter):
    """Predicts the velocity from latents to noise; times are logit-normal, shifted by the number of tokens."""

    encoded: ClassVar = ("prompt_embeds", "mask")

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Mean and log variance of a film of one picture, as of a picture."""
        return super().encode(pixels.unsqueeze(2)).squeeze(2)

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        return self.pipeline.vae.decode(latents.unsqueeze(2), return_dict=False)[0].squeeze(2)

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features, and the mask of a caption's."""
        return super().inputs(conditioning) | {"encoder_hidden_states_mask": conditioning.get("mask")}

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The transformer's answer, of the latents' shape."""
        height, width = noisy.shape[-2:]
        tokens = self.denoiser(
            hidden_states=self.pack(noisy),
            timestep=timestep / 1000,
            img_shapes=[[(1, height // 2, width // 2)]] * len(noisy),
            **self.inputs(conditioning),
        ).sample
        return self.unpack(tokens, height, width)
