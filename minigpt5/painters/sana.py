"""SANA: a flow-matching transformer with linear attention over the latents of a deep-compression autoencoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from minigpt5.painters.family import TrainablePainter, mask_of


class SanaPainter(TrainablePainter):
    """Predicts the velocity from latents to noise; times are logit-normal and shifted (arXiv 2410.10629)."""

    encoded: ClassVar = ("prompt_embeds", "mask", None, None)

    @property
    def size_multiple(self) -> int:
        """Heights and widths are multiples of this, in pixels: the call takes no others."""
        return 32

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The autoencoder's latents, in which nothing is random."""
        vae = self.pipeline.vae
        return vae.encode(pixels.to(vae.device, vae.dtype)).latent

    def latents(self, moments: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Latents as the denoiser knows them `(pictures, channels, height / f, width / f)`; none is drawn."""
        return self.scaled(moments)

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features and their mask."""
        return super().inputs(conditioning) | {"encoder_attention_mask": mask_of(conditioning)}

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The transformer's answer, of the latents' shape."""
        timestep = timestep * self.denoiser.config.timestep_scale
        predicted = self.denoiser(noisy, timestep=timestep, **self.inputs(conditioning)).sample
        return predicted[:, : self.channels]
