"""Stable Diffusion 3 and 3.5: a flow-matching transformer with features and a pooled vector."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from minigpt5.painters.family import TrainablePainter


class StableDiffusion3Painter(TrainablePainter):
    """Predicts the velocity from latents to noise; times are logit-normal and shifted (arXiv 2403.03206)."""

    encoded: ClassVar = ("prompt_embeds", None, "pooled_prompt_embeds", None)

    @property
    def text_length(self) -> int:
        """The features of CLIP, and behind them those of T5."""
        return self.pipeline.tokenizer_max_length + self.sequence_length

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features and the pooled vector."""
        pooled = conditioning["pooled_prompt_embeds"].to(self.denoiser.dtype)
        return super().inputs(conditioning) | {"pooled_projections": pooled}

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The transformer's answer, of the latents' shape."""
        return self.denoiser(hidden_states=noisy, timestep=timestep, **self.inputs(conditioning)).sample
