"""Lumina-Image 2.0: a flow-matching transformer that reads features of Gemma and latents as one sequence."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from minigpt5.painters.family import TrainablePainter, mask_of


class Lumina2Painter(TrainablePainter):
    """Predicts the velocity from noise to latents, and counts its times that way too (arXiv 2503.21758).

    Times are drawn evenly, and shifted by the number of tokens.
    """

    encoded: ClassVar = ("prompt_embeds", "mask", None, None)
    logit_normal: ClassVar = False

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features and their mask."""
        return super().inputs(conditioning) | {"encoder_attention_mask": mask_of(conditioning)}

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The transformer's answer as a velocity from latents to noise, of the latents' shape."""
        timestep = 1 - timestep / self.pipeline.scheduler.config.num_train_timesteps
        return -self.denoiser(hidden_states=noisy, timestep=timestep, **self.inputs(conditioning)).sample
