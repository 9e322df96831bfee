"""Stable Diffusion 1.x, 2.x and their distillations such as SD-Turbo: a UNet conditioned on one sequence of features.

SD-Turbo differs in its settings only: no guidance (`guidance_scale` of 0), one to four steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from minigpt5.painters.family import TrainablePainter


class StableDiffusionPainter(TrainablePainter):
    """Predicts noise, velocity or latents at one of 1,000 timesteps (arXiv 2112.10752)."""

    encoded: ClassVar = ("prompt_embeds",)
    least_multiple: ClassVar = 8

    @property
    def text_length(self) -> int:
        """As many features as its tokenizer makes tokens, 77 of the published ones."""
        tokenizer = self.pipeline.tokenizer
        return tokenizer.model_max_length if tokenizer is not None else 77

    def encode_captions(self, captions: Sequence[str], mask_padding: bool = False) -> dict[str, torch.Tensor]:
        """Features of captions, padded to the tokenizer's length.

        Args:
            mask_padding: whether the text encoder's attention leaves the padding out. In painting it does not, but the
                published code aims at such features.

        Raises:
            ValueError: if the pipeline has no text encoder.
        """
        self.require_text_encoder()
        tokenizer, text_encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        batch = tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).to(text_encoder.device)
        mask = batch["attention_mask"] if mask_padding else None
        return {"prompt_embeds": text_encoder(batch["input_ids"], attention_mask=mask).last_hidden_state}

    def predict(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The UNet's answer, of the latents' shape."""
        return self.denoiser(noisy, timestep, **self.inputs(conditioning)).sample
