"""Stable Diffusion 3 and 3.5: a flow-matching transformer with features and a pooled vector."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.nn.functional import pad

from minigpt5.painters.family import TrainablePainter


class StableDiffusion3Painter(TrainablePainter):
    """Predicts the velocity from latents to noise; times are logit-normal and shifted (arXiv 2403.03206).

    Text has no mask here, and attention without one depends on how many features there are. So fewer features than
    text has are followed by zeros, which the pipeline itself has in the place of a T5 that is left out. How many text
    has is told by the tokenizers; without them it is 77 and what the call takes, as published.
    """

    encoded: ClassVar = ("prompt_embeds", None, "pooled_prompt_embeds", None)

    @property
    def text_length(self) -> int:
        """The features of CLIP, and behind them those of T5."""
        return self.pipeline.tokenizer_max_length + self.sequence_length

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Features and the pooled vector."""
        pooled = conditioning["pooled_prompt_embeds"].to(self.denoiser.dtype)
        features, _ = self._padded("prompt_embeds", conditioning["prompt_embeds"])
        return super().inputs({"prompt_embeds": features}) | {"pooled_projections": pooled}

    def _padded(self, name: str, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        missing = max(0, self.text_length - features.shape[1])
        return super()._padded(name, pad(features, (0, 0, 0, missing)))

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The transformer's answer, of the latents' shape."""
        return self.denoiser(hidden_states=noisy, timestep=timestep, **self.inputs(conditioning)).sample
