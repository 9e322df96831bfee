"""PixArt-α and PixArt-Σ: a transformer that predicts noise, with features of T5."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from diffusers import PixArtAlphaPipeline

from minigpt5.painters.family import TrainablePainter, mask_of


class PixArtPainter(TrainablePainter):
    """Predicts the noise, and a variance that is not used, at one of 1,000 timesteps (arXiv 2403.04692)."""

    encoded: ClassVar = ("prompt_embeds", "mask", None, None)

    def check_steps(self, num_inference_steps: int) -> None:
        """As for others; a single step of PixArt-α is that of PixArt-DMD, whose scheduler tells the clean sample too.

        Raises:
            ValueError: if the scheduler cannot make so many steps.
        """
        super().check_steps(num_inference_steps)
        if num_inference_steps == 1 and isinstance(self.pipeline, PixArtAlphaPipeline):
            scheduler, nothing = copy.deepcopy(self.pipeline.scheduler), torch.zeros(1, 1, 1, 1)
            scheduler.set_timesteps(1)
            if len(scheduler.step(nothing, scheduler.timesteps[0], nothing, return_dict=False)) < 2:
                raise ValueError(
                    f"num_inference_steps is 1, for which PixArt-α wants a scheduler that tells the clean sample, such "
                    f"as LCMScheduler or DDPMScheduler, not {type(scheduler).__name__}"
                )

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
