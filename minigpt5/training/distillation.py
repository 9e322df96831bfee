"""A painter learns to paint in one step what its guided self paints in many (LCM, arXiv 2310.04378)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from diffusers import LCMScheduler
from torch import nn
from transformers import BatchFeature

from minigpt5.painters import build_painter, painter_of, trainable
from minigpt5.painters.schedules import BetaSchedule
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.utils.processes import share_of_batch


class ConsistencyModel(nn.Module):
    """The consistency loss of what a batch of conversations paints: the denoiser trains, conditioned through vokens.

    The teacher, a frozen copy of the denoiser, goes from a noised picture one step of a ladder towards the clean one,
    with guidance. Before and after that step the student has to tell the same clean picture. Guidance is thereby folded
    in: the student paints without the negative half.

    Args:
        pipe: gets an `LCMScheduler` with this ladder, and is trained in place.
        guidance_scale: of the teacher.
        ladder: steps from pure noise to the picture.
        huber: latents that lie closer are squared, others are not (pseudo-Huber loss, arXiv 2310.14189, equation 7).

    Raises:
        ValueError: if the painter is no diffusion model with timesteps, such as a flow.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, guidance_scale: float, ladder: int = 50, huber: float = 1e-3):
        super().__init__()
        if not isinstance(trainable(pipe.picture.painter).schedule, BetaSchedule):
            raise ValueError(
                f"{type(pipe.scheduler).__name__} has no ladder of timesteps; consistency distillation is for painters "
                "that are trained on one, such as Stable Diffusion's"
            )
        pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config, original_inference_steps=ladder)
        self.pipe, self.guidance_scale, self.ladder, self.huber = pipe, guidance_scale, ladder, huber
        self.vokens = VokenModel(pipe, LossWeights(caption=0.0)).requires_grad_(False)
        self.student = trainable(pipe.picture.painter)
        name = self.student.denoiser_name
        self.teacher_denoiser = deepcopy(self.student.denoiser)
        parts = {part: pipe.components[part] for part in self.student.pipeline.components if part in pipe.components}
        settings = (
            pipe.config["painter_class"],
            parts | {name: self.teacher_denoiser},
            pipe.config["painter_settings"],
        )
        self.teacher = trainable(painter_of(build_painter(*settings)))
        self.student.denoiser.float().requires_grad_(True)

    def train(self, mode: bool = True) -> ConsistencyModel:
        """Only the student leaves evaluation mode."""
        super().train(mode)
        self.vokens.eval()
        self.teacher_denoiser.eval()
        self.student.denoiser.train(mode)
        return self

    def consistent(
        self, noisy: torch.Tensor, times: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The clean latents that the student tells of noised ones: at time 0 those themselves (equation 9)."""
        schedule: Any = self.student.schedule
        answer = self.student.predict(noisy, schedule.told(times), conditioning).float()
        clean, _ = schedule.split(answer, noisy, times)
        scalings = self.pipe.scheduler.get_scalings_for_boundary_condition_discrete(times)
        skip, scale = (scaling.view(-1, 1, 1, 1) for scaling in scalings)
        return skip * noisy + scale * clean

    @torch.no_grad()
    def guided_step(
        self, noisy: torch.Tensor, times: torch.Tensor, before: torch.Tensor, conditioning: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Latents after the teacher's DDIM step from `times` to `before`, with guidance (equation 17)."""
        schedule: Any = self.student.schedule
        null = {name: row.expand(len(noisy), *row.shape[1:]) for name, row in self.pipe.null_conditioning().items()}
        told, seen = schedule.told(times), noisy.to(self.teacher_denoiser.dtype)
        away, towards = (self.teacher.predict(seen, told, rows).float() for rows in (null, conditioning))
        clean, noise = schedule.split(away + self.guidance_scale * (towards - away), noisy, times)
        return schedule.noised(clean, noise, before)

    def forward(self, batch: BatchFeature, places: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The loss of a batch made ready by `VokenModel.prepare`.

        Args:
            places: where on the ladder each picture stands, 1 to `ladder`; drawn where not given.

        Returns:
            "loss", 0 without a picture to paint; in training it is scaled so that the mean over the processes is that
            over all their pictures.
        """
        vokens, schedule = self.vokens, self.student.schedule
        if not len(batch["targets"]):
            # Of talks a batch may paint nothing, but the loop asks for a gradient, and the others for all shares.
            loss = 0 * torch.stack([parameter.sum() for parameter in self.student.denoiser.parameters()]).sum()
            return {"loss": loss * share_of_batch(0) if self.training else loss}
        with torch.no_grad():
            states = vokens.reader.prefill(batch, features=vokens.read_pictures(batch))
            conditioning = self.pipe.mapper.conditioning(vokens.voken_features(states.features, batch["input_ids"]))
            latents = vokens.encode_targets(batch).float()
            if places is None:
                places = torch.randint(1, self.ladder + 1, (len(latents),), device=latents.device)
            apart = self.pipe.scheduler.config.num_train_timesteps // self.ladder
            times, before = places * apart - 1, ((places - 1) * apart - 1).clamp(min=0)
            noisy = schedule.noised(latents, torch.randn_like(latents), times)
            earlier = self.guided_step(noisy, times, before, conditioning)
            target = self.consistent(earlier, before, conditioning)
        apart_by = self.consistent(noisy, times, conditioning) - target
        loss = (apart_by.square() + self.huber**2).sqrt().mean() - self.huber
        return {"loss": loss * share_of_batch(len(latents)) if self.training else loss}
